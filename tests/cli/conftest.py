"""Fixtures for the tests of the commands."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ..scripted import (
    AUTHORIZE,
    GET_TOKEN,
    GET_USER_INFO,
    REFRESH_TOKEN,
    ScriptedServer,
    fails,
    registers,
)
from .place import Place
from .terminal import Opener, Terminal


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
def at_terminal(place: Place) -> Iterator[Opener]:
    opened: list[Terminal] = []

    def start(*args: str, **environment: str) -> Terminal:
        opened.append(Terminal(place, *args, **environment))
        return opened[-1]

    yield start
    for terminal in opened:
        terminal.process.kill()
        terminal.process.wait()


@pytest.fixture
def refusing(server: ScriptedServer) -> ScriptedServer:
    """A server that refuses made-up redirect URIs, codes and tokens, as it has to."""
    server.answers |= {
        AUTHORIZE: registers(lambda uri: "made-up" not in uri),
        GET_TOKEN: fails("8202"),
        GET_USER_INFO: fails("8205"),
        REFRESH_TOKEN: fails("8206"),
    }
    return server
