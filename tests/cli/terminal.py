"""A person at a terminal."""

from __future__ import annotations

import os
import pty
import select
import time
from collections.abc import Callable

from .. import forked
from .place import Place


class Terminal:
    """A person at a terminal."""

    def __init__(self, place: Place, *args: str, **environment: str) -> None:
        self.master, slave = pty.openpty()
        begin = (
            # A shell that runs the tests in the background makes them ignore SIGINT.
            "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
            "from flask.cli import main; main()"
        )
        self.process = forked.Program(
            ["-c", begin, "devkit-sso", *args],
            (slave, slave, slave),
            cwd=place.folder,
            env=place.environment(**environment),
            terminal=True,
        )
        os.close(slave)
        self.shown = ""
        self._seen = 0

    def expect(self, text: str) -> None:
        """Wait for a text, which comes after the text of the previous call."""
        end = time.monotonic() + 300
        while (at := self.shown.find(text, self._seen)) < 0:
            assert time.monotonic() < end, self.shown
            assert self._read(), self.shown
        self._seen = at + len(text)

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def close(self) -> int:
        while self._read():
            pass
        os.close(self.master)
        return self.process.wait(300)

    def _read(self) -> bool:
        # Not select.select, which accepts no descriptor above 1,023.
        poll = select.poll()
        poll.register(self.master, select.POLLIN)
        try:
            data = os.read(self.master, 4096) if poll.poll(300_000) else b""
        except OSError:
            return False  # the other side is closed
        self.shown += data.decode()
        return bool(data)


Opener = Callable[..., Terminal]
