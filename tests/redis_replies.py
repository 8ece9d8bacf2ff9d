"""Something at the address of Redis that replies what a test wants."""

from __future__ import annotations

import socketserver
import threading
from typing import Final

SOON: Final = b"99999999999"
"""A time at which a record expires, as Redis sends it."""


def bulk(*texts: bytes) -> bytes:
    """Return a reply with texts."""
    return b"*%d\r\n" % len(texts) + b"".join(
        b"$%d\r\n%s\r\n" % (len(text), text) for text in texts
    )


class ReplyServer(socketserver.ThreadingTCPServer):
    """Speaks enough of Redis's protocol, except for one reply."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _ReplyHandler)
        self._lock = threading.Lock()
        self._reply: bytes | None = None
        self._after = 0
        self.url = f"redis://127.0.0.1:{self.server_address[1]}/0"
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def arm(self, reply: bytes | None, after: int = 0) -> None:
        """Send ``reply`` after that many commands that are answered properly."""
        with self._lock:
            self._reply, self._after = reply, after

    def take(self) -> bytes | None:
        with self._lock:
            if self._reply is None or self._after > 0:
                self._after -= 1
                return None
            reply, self._reply = self._reply, None
            return reply

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore clients that gave up."""

    def stop(self) -> None:
        self.shutdown()
        self.server_close()


class _ReplyHandler(socketserver.StreamRequestHandler):
    server: ReplyServer

    def handle(self) -> None:
        while line := self.rfile.readline():
            words = []
            for _ in range(int(line[1:])):
                length = int(self.rfile.readline()[1:])
                words.append(self.rfile.read(length + 2)[:-2])
            reply = self.server.take()
            self.wfile.write(_proper(words) if reply is None else reply)


def _proper(words: list[bytes]) -> bytes:
    match words[0].upper():
        case b"HMGET":
            return bulk(words[1], b"1", SOON)
        case b"EVAL":
            return b":1\r\n"
        case b"ZRANGE":
            return bulk(b"devkit_sso:k")
        case b"SCAN":
            return b"*2\r\n$1\r\n0\r\n" + bulk(b"devkit_sso:k")
        case _:
            return b"+OK\r\n"
