"""Sends one HTTP request, reads the response, and describes what went wrong.

The standard library's HTTP client is enough for it. Other clients add cookies, redirects, proxies
and retries, and none of these may happen here.
"""

from __future__ import annotations

import logging
import socket
import ssl
import threading
import zlib
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from http.client import HTTP_PORT, HTTPS_PORT, HTTPException
from typing import Final
from urllib.parse import quote, urlsplit

from ..errors import ServerError, ServerUnavailable, unexpected
from .connections import Call, CannotConnect, Connection, Origin, Request
from .contract import RawResponse
from .framing import InvalidFraming
from .trust import TLSContexts, Trust

MAX_BODY: Final = 1024 * 1024
"""Maximum size of a response's body after decompression, in bytes."""

_USER_AGENT: Final = {"User-Agent": "flask-devkit-sso"}
_HEADERS: Final = {
    "Accept": "application/json",
    "Content-Type": "application/json",
    **_USER_AGENT,
}

_PAGE_HEADERS: Final = {
    "Accept": "text/html,application/xhtml+xml,*/*;q=0.8",
    "Sec-Fetch-Dest": "document",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Site": "cross-site",
    **_USER_AGENT,
}
"""As if a link or a redirect of another site led a browser to the page."""

_COMPRESSED: Final = ("gzip", "x-gzip", "deflate")
"""What some servers send although the request does not accept it."""

_FORMATS: Final = (32 + zlib.MAX_WBITS, -zlib.MAX_WBITS)
"""What zlib calls the formats: zlib and gzip, and what some servers send as ``deflate`` (RFC 9110
section 8.4.1.2)."""

_UNENCODED: Final = "!$%&'()*+,/:;=?@"
"""What a path and a query may contain, as well as letters, digits and ``-._~`` (RFC 3986 section
3.4). A percent sign belongs to what is already encoded."""

log: Final = logging.getLogger("flask_devkit_sso")


class NotConnected(Exception):
    """There is no open connection for a call that must not open one. Nothing was sent."""


class Connections:
    """The connections of one process.

    :param trust: which certificates are accepted.
    :param size: how many idle connections to keep for each host.
    :raises OSError: if the CA certificates cannot be read.
    """

    def __init__(self, trust: Trust, size: int) -> None:
        self._trust = trust
        self._size = size
        self._lock = threading.Lock()
        self._contexts = TLSContexts(trust)
        self._idle: dict[Origin, deque[Connection]] = {}

    def send(
        self,
        call: Call,
        url: str,
        body: bytes | None,
        *,
        headers: Mapping[str, str] | None,
        repeatable: bool,
    ) -> RawResponse | None:
        """Send a POST, or a GET without a body, and read the response.

        :param headers: what to send as well as, or instead of, the usual headers.
        :return: None if there is no open connection, and the call may not open one.
        """
        call.start()
        try:
            return self._send(call, url, body, headers or {}, repeatable=repeatable)
        except NotConnected:
            return None
        except (ServerError, ServerUnavailable):
            raise
        except (OSError, HTTPException, zlib.error) as error:
            # Do not chain the exception, because it may quote what the server sent.
            raise ServerUnavailable(_explain(error, url, self._trust)) from None
        except Exception as error:  # noqa: BLE001 - reported by its type and place
            raise unexpected(error) from None
        finally:
            call.stop()

    def _send(
        self,
        call: Call,
        url: str,
        body: bytes | None,
        headers: Mapping[str, str],
        *,
        repeatable: bool,
    ) -> RawResponse:
        origin, address, target = _split(url)
        method, usual = ("GET", _PAGE_HEADERS) if body is None else ("POST", _HEADERS)
        request = Request(method, target, {**usual, **headers}, body)
        context, idle = self._to(origin)
        if connection := _take(idle):
            try:
                response, content = connection.exchange(call, request, most=MAX_BODY + 1)
            except (OSError, HTTPException):
                # The server may have closed the idle connection at this moment. If the reason is a
                # restart, the others are no better.
                idle.clear()
                if not repeatable:
                    raise
                connection = None
        if connection is None:
            connection = self._connect(origin, context, call)
            response, content = connection.exchange(call, request, most=MAX_BODY + 1)
        # From now on, giving up this call must not end another one on the same connection.
        call.stop()
        if connection.is_open and len(idle) < self._size:
            idle.append(connection)
        encoding = response.getheader("Content-Encoding", "").strip().lower()
        # Some servers claim that an empty body is compressed.
        if 0 < len(content) <= MAX_BODY and encoding in _COMPRESSED:
            content = _decompress(content)
        if len(content) > MAX_BODY:
            raise ServerError("The server's response is larger than 1 MiB.")
        log.debug("%s %s: HTTP %d", method, address, response.status)
        return RawResponse(response.status, content, response.headers, address)

    def _to(self, origin: Origin) -> tuple[ssl.SSLContext, deque[Connection]]:
        """Return the present TLS context, and the idle connections to a host."""
        with self._lock:
            if self._contexts.has_changed():
                # The idle connections were accepted because of the old file. Calls in progress end.
                self._idle = {}
            return self._contexts.current, self._idle.setdefault(origin, deque())

    def _connect(self, origin: Origin, context: ssl.SSLContext, call: Call) -> Connection:
        if not call.may_connect:
            raise NotConnected
        connection = Connection(origin)
        connection.open(call, context, self._trust.expected_name(origin.host))
        return connection


def _split(url: str) -> tuple[Origin, str, str]:
    """Return what a URL's connection leads to, the URL without its query, and the path with it.

    They are encoded, because the address that a redirect leads to may contain anything.
    """
    parts = urlsplit(url)
    is_tls = parts.scheme == "https"
    # The percent sign of a zone is encoded in a URL (RFC 6874 section 2).
    host = (parts.hostname or "").replace("%25", "%")
    origin = Origin(is_tls, host, parts.port or (HTTPS_PORT if is_tls else HTTP_PORT))
    path = quote(parts.path or "/", _UNENCODED)
    query = f"?{quote(parts.query, _UNENCODED)}" if parts.query else ""
    return origin, f"{parts.scheme}://{parts.netloc}{path}", path + query


def _take(idle: deque[Connection]) -> Connection | None:
    """Return the connection that was used last, or None if there is none that can be used."""
    with suppress(IndexError):
        while True:
            connection = idle.pop()
            if connection.is_usable():
                return connection
            connection.close()
    return None


def _decompress(content: bytes) -> bytes:
    """Decompress a body, or only its beginning if it is too large.

    :raises zlib.error: if it is damaged or incomplete, or if something follows it.
    """
    for format in _FORMATS:
        decompressor = zlib.decompressobj(format)
        with suppress(zlib.error):
            found = decompressor.decompress(content, MAX_BODY + 1)
            is_whole = decompressor.eof and not decompressor.unused_data
            if is_whole or len(found) > MAX_BODY:
                return found
    raise zlib.error


def _explain(error: Exception, url: str, trust: Trust) -> str:
    """Describe an error in our own words, because its text may quote what the server sent."""
    scheme, host = url.partition(":")[0], urlsplit(url).hostname or ""
    match error:
        case InvalidFraming():
            return f"The server's response has {error}, so it is not valid HTTP."
        case socket.gaierror():
            return "The server's host name is unknown: check DEVKIT_SSO_SERVER_URL."
        case ssl.SSLError():
            problem = trust.explain(error, host)
            return f"TLS with the server failed: {problem.text}. {problem.fix}."
        case CannotConnect():
            return "Cannot connect to the server: check DEVKIT_SSO_SERVER_URL, port and firewall."
        case TimeoutError():
            return "The server did not respond in time."
        case zlib.error():
            return "The server's response cannot be decompressed."
        case _:
            # Some servers close the connection if the client uses the wrong scheme.
            return (
                f"The connection to the server broke ({type(error).__name__}): does it use "
                f"{scheme} on this port?"
            )
