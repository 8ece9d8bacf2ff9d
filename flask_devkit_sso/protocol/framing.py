"""Strict HTTP framing: where a response ends, and so where the next one on its connection begins.

http.client is tolerant: it reads to the end of the connection for a chunk size of ``-1``, accepts
``1_0`` and ``+5`` as numbers, and does not look at what follows a chunk. If client and server
disagree about the end of a response, one person may receive the response to another.
"""

from __future__ import annotations

import http.client
import io
import re
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final

MAX_RESPONSE: Final = 2 * 1024 * 1024
"""Maximum size of a response as it is sent, in bytes. This includes what is read and skipped:
interim responses, chunk sizes, chunk extensions and trailers."""

_CHUNK_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;[^\r\n]*)?\r\n")
_MAX_CHUNK_LINE: Final = 4096


class InvalidFraming(http.client.HTTPException):
    """A response that violates RFC 9112. The text continues "The response has". It quotes nothing
    that the server sent."""


class StrictResponse(http.client.HTTPResponse):
    """A response with unambiguous framing (RFC 9112 sections 6 and 7).

    Two deviations are tolerated, but the connection is not used again after them: a malformed
    header, and a Content-Length together with a Transfer-Encoding.

    :param before_read: called with the socket before each read from it.
    """

    def __init__(
        self, sock: socket.socket, *, before_read: Callable[[socket.socket], None], **kwargs: Any
    ) -> None:
        super().__init__(sock, **kwargs)
        self._socket = sock
        self._limited = _Limited(self.fp.detach(), partial(before_read, sock))
        self.fp = _Lines(self._limited)

    def begin(self, *args: Any, **kwargs: Any) -> None:
        super().begin(*args, **kwargs)
        lengths = self._values("Content-Length")
        encodings = self._values("Transfer-Encoding")
        if len(lengths) > 1 or not all(re.fullmatch("[0-9]{1,16}", text) for text in lengths):
            raise InvalidFraming("an invalid Content-Length")
        if encodings and [text.lower() for text in encodings] != ["chunked"]:
            raise InvalidFraming("an unsupported Transfer-Encoding")
        if self.headers.defects or (encodings and (lengths or self.version == 10)):
            self.will_close = True

    def read_all(self, most: int) -> bytes:
        """Return the body, or only its beginning if it has more than ``most`` bytes.

        :raises http.client.HTTPException: if the connection ends before the body does.
        """
        content = b""
        while len(content) < most and (more := self.read(most - len(content))):
            content += more
        if self.length and len(content) < most:
            raise http.client.IncompleteRead(b"", self.length)
        return content

    def _values(self, name: str) -> list[str]:
        return [text.strip(" \t") for text in self.headers.get_all(name, [])]

    def _read_status(self) -> tuple[str, int, str]:
        """Skip interim responses (RFC 9110 section 15.2). http.client skips only those with the
        status 100.

        If an interim response were taken for the response, the next call on this connection would
        read the real response, and that call may be for another person.
        """
        found: tuple[str, int, str] = super()._read_status()  # type: ignore[misc]
        while 100 <= found[1] < 200 and found[1] != 101:
            http.client.parse_headers(self.fp)
            found = super()._read_status()  # type: ignore[misc]
        return found

    def _get_chunk_left(self) -> int | None:
        """Return how much of the current chunk is left, or None after the last chunk."""
        if self.chunk_left == 0 and self.fp.read(2) != b"\r\n":
            raise InvalidFraming("a chunk of the wrong size")
        if not self.chunk_left:
            found = _CHUNK_SIZE.fullmatch(self.fp.readline(_MAX_CHUNK_LINE))
            if found is None:
                raise InvalidFraming("an invalid chunk size")
            self.chunk_left = int(found[1], 16) or None
            if self.chunk_left is None:
                self._read_and_discard_trailer()  # type: ignore[attr-defined]
                self._close_conn()
        return self.chunk_left

    def _close_conn(self) -> None:
        """Stop reading. If the server has already sent more than the response, nobody may read the
        rest as the next response."""
        self._limited.is_at_end = True
        decrypted = self._socket.pending() if isinstance(self._socket, ssl.SSLSocket) else 0
        if decrypted or self.fp.peek(1):
            with suppress(OSError):
                # SSLSocket.shutdown would remove the TLS layer.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
        super()._close_conn()  # type: ignore[misc]


class _Lines(io.BufferedReader):
    """Refuses lines with a bare carriage return (RFC 9112 section 2.2).

    http.client would take it for the end of a header, as no other program does.
    """

    def readline(self, size: int | None = -1, /) -> bytes:
        line = super().readline(size)
        if b"\r" in line.removesuffix(b"\r\n"):
            raise InvalidFraming("a carriage return without a line feed")
        return line


class _Limited(io.RawIOBase):
    """Reads at most :data:`MAX_RESPONSE` bytes from a socket.

    :param before_read: called before each read.
    """

    def __init__(self, raw: io.RawIOBase, before_read: Callable[[], None]) -> None:
        self._raw = raw
        self._before_read = before_read
        self._left = MAX_RESPONSE
        self.is_at_end = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if self.is_at_end:
            return 0
        self._before_read()
        count: int | None = self._raw.readinto(buffer)
        self._left -= count or 0
        if self._left < 0:
            raise InvalidFraming("more than 2 MiB")
        return count

    def close(self) -> None:
        super().close()
        self._raw.close()
