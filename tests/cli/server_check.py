"""Runs ``flask devkit-sso check-server`` with a person."""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import parse_qs, urlsplit

from .. import forked
from ..processes import Person
from .place import CANARY, Place


def check_server(place: Place, person: Callable[[str], str], **environment: str) -> tuple[int, str]:
    """Run the command with a person who opens each URL; return its status and output."""
    command = ["-m", "flask", "devkit-sso", "check-server"]
    env = place.environment(**environment)
    with forked.piped(command, cwd=place.folder, env=env) as (process, stdin, stdout):
        shown, opened = "", []
        for line in stdout:
            shown += line
            if line.startswith("  http"):
                opened.append(person(line.strip()))
                stdin.write(opened[-1] + "\n")
                stdin.flush()
        status = process.wait(300)
    codes = [code for address in opened for code in re.findall(r"code=([\w-]+)", address)]
    assert all(code not in shown for code in codes)
    assert CANARY not in shown
    assert "Traceback" not in shown
    return status, shown


def at_sandbox(url: str) -> Callable[[str], str]:
    """Return a person who signs in at a sandbox, and presses Enter at an error page."""
    browser = Person("ada")

    def go(address: str) -> str:
        uri = parse_qs(urlsplit(address).query)["redirect_uri"][0]
        return "" if "s=" in uri else browser.response_url(address)

    return go
