"""The commands in docs/commands.md print what the page shows."""

from __future__ import annotations

import re
import shlex

import pytest

from flask_devkit_sso.testing import login_as

from .. import processes
from ..conftest import AppMaker
from ..documents import blocks
from .place import APP, CANARY, KEY, Place
from .server_check import at_sandbox, check_server


def alike(text: str) -> str:
    """Replace everything that differs from run to run."""
    for pattern, shown in (
        (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d\d:\d\d", "then"),
        (r"(state|code_challenge)=[\w-]+", r"\1=…"),
        (r"\b[0-9a-f]{64}\b", "…"),
        (r"s%3D[\w.%-]+", "s%3D…"),
        (r"readable only by [^.\n]+", "readable only by its owner"),
    ):
        text = re.sub(pattern, shown, text)
    return text


@pytest.mark.checkout
@pytest.mark.slow
def test_the_examples_of_the_documentation(make_app: AppMaker, place: Place) -> None:
    """Run the commands in the order in which the page shows them."""
    place.app(APP.partition("@session_ended")[0])
    uri = "http://127.0.0.1:5000/#/login"
    with processes.sandbox(f"--client-secret={CANARY}") as exported:
        url = exported["SERVER_URL"]
        app = make_app(
            server_url=url,
            redirect_uri=uri,
            client_secret=CANARY,
            store_url=f"sqlite:///{place.folder}/instance/devkit_sso.db",
        )
        for uid, name, role in (("1042", "ada", "Admin"), ("1043", "bob", "User")):
            login_as(app.test_client(), name, role, uid=uid)  # type: ignore[arg-type]
        for block in blocks("docs/commands.md", "console"):
            parts = re.fullmatch(r"\$ ((?:[^\n]*\\\n)*[^\n]*\n)(.*)", block, re.DOTALL)
            assert parts
            command, expected = parts.groups()
            arguments = shlex.split(command.partition(" <")[0].replace("\\\n", ""))
            arguments = [text.replace("http://127.0.0.1:9000", url) for text in arguments]
            assert arguments[:2] == ["flask", "devkit-sso"]
            if arguments[2] == "check-server":
                _, shown = check_server(place, at_sandbox(url), **KEY)
            else:
                done = place.run(*arguments[2:], stdin=CANARY, **KEY)
                assert done.returncode == 0, done.stderr
                shown = done.stdout
            shown = shown.replace(url.partition("//")[2], "127.0.0.1:9000")
            shown = shown.replace(f"port {url.rpartition(':')[2]}", "port 9000")
            shown = shown.replace(str(place.folder), "/srv/app")
            assert alike(shown) == alike(expected), command
