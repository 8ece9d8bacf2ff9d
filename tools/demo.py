"""Start the example application and a sandbox to sign in at; Ctrl-C stops both."""

import argparse
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
CLIENT_ID = "20221017000000001"
START_DEADLINE = 30.0
"""Seconds until both must respond."""
STOP_DEADLINE = 5.0
"""Seconds until a process that was asked to stop is killed."""


class Child(NamedTuple):
    name: str
    process: subprocess.Popen[bytes]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--app-port", type=int, default=5000)
    parser.add_argument("--sandbox-port", type=int, default=9000)
    options = parser.parse_args()
    check_port(options.app_port, "APP_PORT")
    check_port(options.sandbox_port, "SANDBOX_PORT")
    for signal_number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signal_number, stop)

    app_url = f"http://127.0.0.1:{options.app_port}"
    sandbox_url = f"http://127.0.0.1:{options.sandbox_port}"
    redirect_uri = f"{app_url}/#/login"
    client_secret = secrets.token_hex()
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="devkit-sso-demo-"))
        environment = {k: v for k, v in os.environ.items() if not k.startswith("FLASK_")} | {
            "FLASK_SECRET_KEY": secrets.token_hex(),
            "FLASK_DEVKIT_SSO_CLIENT_ID": CLIENT_ID,
            "FLASK_DEVKIT_SSO_CLIENT_SECRET": client_secret,
            "FLASK_DEVKIT_SSO_SERVER_URL": sandbox_url,
            "FLASK_DEVKIT_SSO_REDIRECT_URI": redirect_uri,
            "FLASK_DEVKIT_SSO_STORE_URL": f"sqlite:///{directory}/demo.db",
        }
        sandbox = ["flask_devkit_sso.sandbox", "--port", str(options.sandbox_port)]
        sandbox += ["--client-id", CLIENT_ID, "--client-secret", client_secret]
        sandbox += ["--redirect-uri", redirect_uri]
        app = ["tools.run_example", "--port", str(options.app_port)]
        children = [
            stack.enter_context(running("The sandbox", sandbox, environment)),
            stack.enter_context(running("The example application", app, environment)),
        ]
        deadline = time.monotonic() + START_DEADLINE
        while not (
            status(options.sandbox_port, "/") and status(options.app_port, "/healthz") == 200
        ):
            check_children(children)
            if time.monotonic() > deadline:
                sys.exit(f"The demo did not start within {START_DEADLINE:.0f} seconds.")
            time.sleep(0.1)
        print(
            f"\nOpen {app_url}\n"
            "and sign in as ada (Admin), bob (User) or anyone else.\n"
            "Press Ctrl-C to stop.\n",
            flush=True,
        )
        while True:
            check_children(children)
            time.sleep(0.2)


def check_port(port: int, variable: str) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            sys.exit(
                f"Port {port} cannot be used ({error.strerror}). "
                f"Choose another port: make demo {variable}={port + 1}"
            )


def stop(signum: int, frame: object) -> None:
    # A second Ctrl-C must not interrupt the clean-up.
    for signal_number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signal_number, signal.SIG_IGN)
    sys.exit(0)


@contextmanager
def running(name: str, module: list[str], environment: dict[str, str]) -> Iterator[Child]:
    """Run a module until the ``with`` block ends."""
    process = subprocess.Popen(
        [sys.executable, "-m", *module],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        # The sandbox prints its client secret, for people who start it by hand.
        stdout=subprocess.DEVNULL,
        # Without this, Ctrl-C would reach it directly as well.
        start_new_session=True,
    )
    try:
        yield Child(name, process)
    finally:
        process.terminate()
        try:
            process.wait(STOP_DEADLINE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def check_children(children: list[Child]) -> None:
    for name, process in children:
        if process.poll() is not None:
            sys.exit(f"{name} stopped unexpectedly, with status {process.returncode}.")


def status(port: int, path: str) -> int | None:
    """Return the status of a response, or None if there is none."""
    connection = HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except (OSError, HTTPException):
        return None
    finally:
        connection.close()


if __name__ == "__main__":
    try:
        main()
    except OSError as error:
        # For example, the output cannot be written. Whatever is left of it must not be written when
        # the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(f"The demo ended: {error.strerror}.")
