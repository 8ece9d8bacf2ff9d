"""Runs ``flask devkit-sso check-server`` with a person."""

from __future__ import annotations

import re
from collections.abc import Callable

import requests

from .. import forked
from ..processes import Person
from .place import CANARY, Place


def check_server(
    place: Place, person: Callable[[str], str], *arguments: str, **environment: str
) -> tuple[int, str]:
    """Run the command with a person who follows its instructions; return its status and output.

    :param person: receives the lines before a prompt, and returns what to type.
    """
    command = ["-m", "flask", "devkit-sso", "check-server", *arguments]
    env = place.environment(**environment)
    with forked.piped(command, cwd=place.folder, env=env) as (process, stdin, stdout):
        shown, opened, told = "", [], ""
        for line in stdout:
            shown += line
            if line.startswith(("Open this URL", "Now ")):
                told = line
                if line.startswith("Now "):
                    opened.append(person(told))
                    stdin.write(opened[-1] + "\n")
                    stdin.flush()
            if line.startswith("  http"):
                opened.append(person(told + line))
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

    def go(text: str) -> str:
        if text.startswith("Now "):
            _change_ada(url, "disable" in text)
            return "done"
        address = opened(text)
        if "varies" in text:
            return ""
        if "do not sign in" in text:
            return "page" if browser.get(address, follow=False).status_code == 200 else address
        return browser.response_url(address, cancel="cancel the sign-in" in text)

    return go


def at_any_server(browser: Person) -> Callable[[str], str]:
    """Return a person who pastes every address, and only says that the account is changed."""

    def go(text: str) -> str:
        return "done" if text.startswith("Now ") else browser.response_url(opened(text))

    return go


def opened(text: str) -> str:
    """Return the URL that a person is to open."""
    return text.splitlines()[-1].strip()


def _change_ada(url: str, disabled: bool) -> None:
    body = {"username": "ada", "disabled": disabled}
    requests.post(f"{url}/_sandbox/people", json=body, timeout=60).raise_for_status()
