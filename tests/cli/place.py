"""A folder with an application, where the tests run the real ``flask`` command."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

from .. import forked
from ..conftest import CLIENT_ID

CANARY = "canary-of-the-command-5b0e"
OLD_CANARY = "canary-of-the-old-file-19d4"
NOWHERE = "http://127.0.0.1:1"
"""The address of an application that is not running."""

REDIRECT_URI = f"{NOWHERE}/sso/callback"
GOOD_APP = """
from flask import Flask
from flask_devkit_sso import DevKitSSO
app = Flask(__name__)
app.config.from_prefixed_env()
DevKitSSO(app)
"""
APP = """
from flask import Flask
from flask_devkit_sso import DevKitSSO, session_ended
app = Flask(__name__)
app.config.from_prefixed_env()
DevKitSSO(app)

@app.get("/")
def home():
    return "home"

@session_ended.connect_via(app)
def tell(sender, uid, why):
    print("signal", uid, why)
"""
OPTIONS = [
    "--client-id=20221017000000001",
    "--server-url=https://auth.example.com/auth/",
    "--redirect-uri=https://app.example.com/#/login",
]
WRITTEN = {
    "client_id": "20221017000000001",
    "client_secret": CANARY,
    "server_url": "https://auth.example.com/auth",
    "redirect_uri": "https://app.example.com/#/login",
}
VALIDITY = "/sso/oauth2/checkUsers"
KEY = {"FLASK_SECRET_KEY": "0d9f6b1ac54e2378-no-one-knows-this"}


class Running(NamedTuple):
    """A running command, and what it prints unless that goes elsewhere."""

    process: forked.Program
    stdout: IO[bytes]
    stderr: IO[bytes]

    def shown(self) -> str:
        """Return what it has printed so far."""
        texts = [os.pread(file.fileno(), 10**6, 0) for file in (self.stdout, self.stderr)]
        return b"".join(texts).decode()

    def end(self) -> tuple[int, str]:
        """Wait for its end; return its status and what it printed."""
        status, shown = self.process.wait(300), self.shown()
        assert "Traceback" not in shown
        assert "Exception ignored" not in shown
        assert CANARY not in shown
        return status, shown


class Place:
    """A folder with an application, in which the command runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "instance" / "devkit_sso.toml"
        self.app(GOOD_APP)

    def app(self, source: str) -> None:
        (self.folder / "app.py").write_text(source)

    def old_file(self, content: str | None = None, mode: int = 0o600) -> None:
        self.file.parent.mkdir(exist_ok=True)
        text = "\n".join(f'{key} = "old-{key}"' for key in ("client_id", "client_secret"))
        self.file.write_text(text.replace("old-client_secret", OLD_CANARY) + "\n")
        if content is not None:
            self.file.write_text(content)
        self.file.chmod(mode)

    @property
    def written(self) -> dict[str, Any]:
        return tomllib.loads(self.file.read_text())

    def environment(self, **more: str) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("FLASK_")}
        return kept | {"PYTHONDONTWRITEBYTECODE": "1"} | more

    def run(
        self, *args: str, stdin: str | bytes = "", before: str = "", **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run ``flask devkit-sso …``; ``before`` is Python that runs first in its process."""
        given = self.environment(**environment)
        data = stdin if isinstance(stdin, bytes) else stdin.encode()
        if before or "PYTHONIOENCODING" in environment:
            done = self._run_in_new_interpreter(*args, stdin=data, before=before, env=given)
        else:
            arguments = ["-m", "flask", "devkit-sso", *args]
            done = forked.run(arguments, stdin=data, cwd=self.folder, env=given)
        assert "Traceback" not in done.stdout + done.stderr, done.stderr
        assert CANARY not in done.stdout + done.stderr
        assert OLD_CANARY not in done.stdout + done.stderr
        return done

    def _run_in_new_interpreter(
        self, *args: str, stdin: bytes, before: str, env: dict[str, str]
    ) -> subprocess.CompletedProcess[str]:
        """Run the command in a new interpreter."""
        command = [sys.executable, "-m", "flask"]
        if before:
            # A limit on writing would affect coverage too.
            env = {k: v for k, v in env.items() if not k.startswith("COVERAGE_")}
            command = [sys.executable, "-c", f"{before}\nfrom flask.cli import main\nmain()"]
        done = subprocess.run(
            [*command, "devkit-sso", *args],
            input=stdin,
            capture_output=True,
            timeout=300,
            cwd=self.folder,
            env=env,
            check=False,
        )
        texts = [text.decode() for text in (done.stdout, done.stderr)]
        return subprocess.CompletedProcess(args, done.returncode, *texts)

    def findings(self, *levels: str, **environment: str) -> list[str]:
        """Return the lines of ``doctor`` that begin with one of these, by default errors and
        warnings, without their fixes."""
        done = self.run("doctor", **environment)
        assert done.stderr == ""
        lines = done.stdout.splitlines()
        assert done.returncode == any(line.startswith("error ") for line in lines)
        return [line for line in lines if line.startswith(levels or ("error ", "warning "))]

    @contextmanager
    def start(
        self,
        *args: str,
        environment: Mapping[str, str],
        closed: Sequence[int] = (),
        stdin: int | None = None,
        stdout: int | None = None,
    ) -> Iterator[Running]:
        """Start ``flask devkit-sso …`` as a shell does in the foreground.

        :param closed: the numbers of standard streams that the shell closes.
        """
        names = ("stdin", "stdout", "stderr")
        begin = [
            "import os, signal, sys",
            "signal.signal(signal.SIGINT, signal.default_int_handler)",
            *(f"os.close({n}); sys.{names[n]} = sys.__{names[n]}__ = None" for n in closed),
            "from flask.cli import main",
            "main()",
        ]
        with (
            tempfile.TemporaryFile() as shown,
            tempfile.TemporaryFile() as errors,
            Path("/dev/null").open("rb") as nothing,
        ):
            process = forked.Program(
                ["-c", "\n".join(begin), "devkit-sso", *args],
                (
                    nothing.fileno() if stdin is None else stdin,
                    shown.fileno() if stdout is None else stdout,
                    errors.fileno(),
                ),
                cwd=self.folder,
                env=self.environment(**environment),
            )
            try:
                yield Running(process, shown, errors)
            finally:
                process.kill()
                process.wait()

    def register(self, *args: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Register by options, the secret from standard input."""
        return self.run(
            "register", *OPTIONS, "--secret-stdin", *args, stdin=CANARY + "\n", **environment
        )


def validity(server_url: str) -> dict[str, str]:
    """Return the settings of user validity as the sandbox has it."""
    return {
        "VALIDITY_URL": f"{server_url}{VALIDITY}",
        "VALIDITY_FIELD": "users",
        "VALIDITY_KEY": "uid",
    }


def settings(**values: str) -> dict[str, str]:
    """Return the environment of a configured application, with more or other values."""
    given = {
        "CLIENT_ID": CLIENT_ID,
        "CLIENT_SECRET": CANARY,
        "REDIRECT_URI": REDIRECT_URI,
    } | values
    return KEY | {f"FLASK_DEVKIT_SSO_{key}": value for key, value in given.items()}
