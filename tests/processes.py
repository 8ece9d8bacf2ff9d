"""Processes that tests start, and a person with a browser who uses them."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import requests

from . import forked

ROOT = Path(__file__).parent.parent
EXPORT = "export FLASK_DEVKIT_SSO_"


@contextmanager
def sandbox(
    *arguments: str, log: Path | None = None, end: signal.Signals = signal.SIGTERM
) -> Iterator[dict[str, str]]:
    """Run the sandbox's command; yields the variables that it prints, and its output as "text"."""
    command = ["-m", "flask_devkit_sso.sandbox", "--port", "0", *arguments]
    with (
        (log or Path("/dev/null")).open("wb") as stderr,
        forked.piped(command, stderr=stderr.fileno()) as (process, _, stdout),
    ):
        exported = {"text": ""}
        for line in stdout:
            exported["text"] += line
            if line.startswith(EXPORT):
                name, _, value = shlex.split(line)[1].partition("=")
                exported[name.removeprefix("FLASK_DEVKIT_SSO_")] = value
            if line == "Press Ctrl-C to stop.\n":
                break
        yield exported
        process.send_signal(end)
        assert process.wait(60) == 0


def environment(**settings: str) -> dict[str, str]:
    """Return this process's environment with the given ``FLASK_…`` variables and no others."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FLASK_")}
    return kept | {f"FLASK_{name}": value for name, value in settings.items()}


def unprivileged() -> list[str]:
    """Return a command prefix that drops root's extra permissions.

    Root may read and write any file, so the command runs without these capabilities. It remains
    root otherwise, because the package may be below a folder that only root can enter.
    """
    return ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] * (os.geteuid() == 0)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
    return port


def wait_for(url: str, process: subprocess.Popen[bytes], seconds: float = 120) -> None:
    """Wait until a server process responds."""
    until = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < until:
        try:
            requests.get(url, timeout=60)
        except requests.exceptions.SSLError:
            # It responds, but its certificate is not known here.
            return
        except requests.ConnectionError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError(f"{url} does not answer; the process's status is {process.poll()}")


class Person:
    """A person whose browser supports cookies and redirects, but not JavaScript."""

    def __init__(self, username: str, *, ca_bundle: str | None = None) -> None:
        self.username = username
        self.browser = requests.Session()
        self.browser.trust_env = False
        if ca_bundle:
            self.browser.verify = ca_bundle

    def get(self, url: str, *, follow: bool = True) -> requests.Response:
        return self.browser.get(url, allow_redirects=follow, timeout=60)

    def response_url(self, authorize_url: str, *, cancel: bool = False) -> str:
        """Sign in at the sandbox if necessary, or cancel; return the URL of its authorization
        response."""
        answer = self.get(authorize_url, follow=False)
        if answer.status_code == 200:
            token = re.search(r'name="form_token" value="([^"]+)"', answer.text)
            assert token, answer.text
            answer = self.browser.post(
                "{0.scheme}://{0.netloc}/sign-in".format(urlsplit(authorize_url)),
                data={"form_token": token[1]}
                | ({"cancel": "1"} if cancel else {"username": self.username}),
                allow_redirects=False,
                timeout=60,
            )
        assert answer.status_code in (302, 303), answer.text
        return answer.headers["Location"]

    def start(self, app_url: str, next_url: str = "/") -> str:
        """Start a login and return the authorize URL."""
        answer = self.browser.get(
            f"{app_url}/sso/authorize", params={"next": next_url}, allow_redirects=False, timeout=60
        )
        assert answer.status_code == 303, answer.text
        return answer.headers["Location"]

    def sign_in(self, app_url: str, next_url: str = "/") -> requests.Response:
        """Complete a login and return the page after it."""
        return self.get(self.response_url(self.start(app_url, next_url)))

    def forget(self) -> None:
        """Delete the application's cookies and keep the sandbox's."""
        ours = [cookie for cookie in self.browser.cookies if "devkit_sso" in cookie.name]
        for cookie in ours:
            self.browser.cookies.clear(cookie.domain, cookie.path, cookie.name)

    def close(self) -> None:
        self.browser.close()
