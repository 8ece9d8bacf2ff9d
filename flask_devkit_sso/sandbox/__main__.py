"""The command ``python -m flask_devkit_sso.sandbox``."""

from __future__ import annotations

import argparse
import io
import ipaddress
import os
import shlex
import signal
import ssl
import sys
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any

from . import certificates
from .config import CLIENT_ID, REDIRECT_URIS, SandboxConfig
from .folder import FolderError, PrivateFolder
from .people import People, Person
from .saved import SavedState
from .server import create_sandbox
from .serving import open_server, stop_answering

# Addresses to listen on that mean "all", and an address to reach each of them by.
_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m flask_devkit_sso.sandbox",
        description="An authentication server for development and tests: anyone can sign in.",
        argument_default=argparse.SUPPRESS,
    )
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    add("--port", default=9000, type=int, help="0 for any free port (default: %(default)s)")
    add(
        "--tls",
        default=False,
        action="store_true",
        help="serve https with a new CA; needs trustme (python -m pip install trustme)",
    )
    add(
        "--state",
        metavar="DIR",
        help="keep client secret, people and, with --tls, the certificate in this folder; the next "
        "start uses them again",
    )
    add("--client-id", help=f"default: {CLIENT_ID}")
    add("--client-secret", help="default: random, or the one in the folder of --state")
    add(
        "--redirect-uri",
        action="append",
        dest="redirect_uris",
        help=f"can be repeated (default: {', '.join(REDIRECT_URIS)})",
    )
    add("--drop-state", action="store_false", dest="echo_state", help="do not return state")
    add(
        "--code-position",
        choices=("end", "query"),
        help="where in a redirect URI with a fragment the code goes: to its end, or into the query "
        "before the fragment (default: end)",
    )
    add(
        "--token-lifetime",
        type=int,
        metavar="SECONDS",
        help="of access tokens, 1 to 3600 (default: 3600)",
    )
    add(
        "--rotate-refresh-tokens",
        action="store_true",
        help="issue a new refresh token at each refresh; using an old one again ends the sign-in",
    )
    add("--issuer", action="store_true", help="return iss (RFC 9207)")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Serve a sandbox until Ctrl-C or SIGTERM; return the exit code."""
    parser = _parser()
    options: dict[str, Any] = vars(parser.parse_args(arguments))
    host, port, tls = options.pop("host"), options.pop("port"), options.pop("tls")
    state = options.pop("state", None)
    if not 0 <= port <= 65535:
        parser.error("The port must be 0 to 65535.")
    # Messages and the lines to export contain the absolute path.
    if state is not None and not (state and str(Path(state).absolute()).isprintable()):
        parser.error("The state folder's path is empty or contains a control character.")
    if "redirect_uris" in options:
        options["redirect_uris"] = tuple(options["redirect_uris"])
    try:
        config = SandboxConfig(**options)
    except ValueError as error:
        parser.error(str(error))
    # Set here because a shell starts background jobs with SIGINT ignored.
    signal.signal(signal.SIGINT, _stop)
    signal.signal(signal.SIGTERM, _stop)
    try:
        with ExitStack() as cleanup:
            saved = None
            if state is not None:
                folder = cleanup.enter_context(PrivateFolder(Path(state)))
                saved = SavedState(folder, options.get("client_secret"))
                config = replace(config, client_secret=saved.client_secret)
            _serve(config, host, port, tls, saved)
    except KeyboardInterrupt:
        return 0
    except FolderError as error:
        _print_error(f"{error}\n")
        return 1
    except (OSError, UnicodeError) as error:
        # For example, the output cannot be written. Whatever is left of it must not be written when
        # the interpreter ends.
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        reason = getattr(error, "strerror", None) or type(error).__name__
        _print_error(f"The sandbox ended: {reason}\n")
        return 1
    return 0


def _print_error(text: str) -> None:
    # It is None if it was closed.
    if sys.stderr is not None:
        with suppress(OSError):
            sys.stderr.write(text)


def _stop(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _serve(
    config: SandboxConfig, host: str, port: int, tls: bool, saved: SavedState | None
) -> None:
    if not _is_loopback(host):
        _print_error(
            f"Warning: listening on {host}. Anyone who can reach it can sign in as anyone.\n"
        )
    with ExitStack() as cleanup:
        context, ca_bundle = _certificates(host, saved, cleanup) if tls else (None, None)
        people = People(saved.people, saved.save_people) if saved else People()
        app = create_sandbox(config, people)
        cleanup.callback(stop_answering, app)
        server = open_server(app, host, port, context)
        name = _ANY_ADDRESS.get(host, host)
        name = f"[{name}]" if ":" in name else name
        url = f"{'https' if tls else 'http'}://{name}:{server.port}"
        if isinstance(sys.stdout, io.TextIOWrapper):
            # Not every terminal can show Chinese names.
            sys.stdout.reconfigure(errors="backslashreplace")
        if sys.stdout is not None:
            sys.stdout.write(_welcome(config, url, ca_bundle, people.listed()))
            sys.stdout.flush()
        server.serve_forever()


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _certificates(
    host: str, saved: SavedState | None, cleanup: ExitStack
) -> tuple[ssl.SSLContext, Path]:
    """Return the TLS context to serve with, and the file of the CA."""
    names = dict.fromkeys(("localhost", "127.0.0.1", "::1", _ANY_ADDRESS.get(host, host)))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        if saved:
            if saved.ensure_certificate(names):
                _print_error(f"Created a new CA: {saved.ca_path}\n")
            context.load_cert_chain(saved.server_path)
            return context, saved.ca_path
        certificate = certificates.issue(names)
    except ImportError:
        _print_error("--tls needs trustme: python -m pip install trustme\n")
        raise SystemExit(1) from None
    folder = Path(cleanup.enter_context(TemporaryDirectory(prefix="devkit-sso-sandbox-")))
    server_pem, ca_bundle = folder / "server.pem", folder / "ca.pem"
    server_pem.write_bytes(certificate.server_pem)
    context.load_cert_chain(server_pem)
    server_pem.unlink()
    ca_bundle.write_bytes(certificate.ca_pem)
    return context, ca_bundle


def _welcome(config: SandboxConfig, url: str, ca_bundle: Path | None, people: list[Person]) -> str:
    exports = {
        "SERVER_URL": url,
        "CLIENT_ID": config.client_id,
        "CLIENT_SECRET": config.client_secret,
        "REDIRECT_URI": config.redirect_uris[0],
    }
    if ca_bundle:
        exports["CA_BUNDLE"] = str(ca_bundle)
    lines = [
        "DevKit SSO sandbox, for development and tests only: anyone can sign in.",
        "",
        f"  Address        {url}",
        f"  People         {', '.join(map(_describe, people))}; or type any name",
        *(f"  Redirect URI   {uri}" for uri in config.redirect_uris),
        *([f"  CA             {ca_bundle}"] if ca_bundle else []),
        "",
        "Run this in the application's terminal:",
        "",
        *(f"export FLASK_DEVKIT_SSO_{key}={shlex.quote(value)}" for key, value in exports.items()),
        "",
        "Press Ctrl-C to stop.",
        "",
    ]
    return "\n".join(lines)


def _describe(person: Person) -> str:
    return f"{person.username} ({'disabled' if person.disabled else person.role})"


if __name__ == "__main__":
    raise SystemExit(main())
