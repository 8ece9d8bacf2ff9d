"""Sends one HTTP request with urllib3, reads the response, and describes what went wrong.

Only calls to the server need urllib3, so protocol/transport.py imports this module at the first
one.
"""

from __future__ import annotations

import ssl
import threading
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

import urllib3
from urllib3.exceptions import HTTPError

from ..errors import ServerError, ServerUnavailable, unexpected
from .connections import Call, NotConnected, create_pool
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

_WITHOUT_BODY: Final = (101, 204, 205, 304)

_RETRY_ONCE: Final = urllib3.Retry(
    total=1, connect=0, redirect=0, status=0, allowed_methods=None, respect_retry_after_header=False
)


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
        self._pool = create_pool(self._contexts.current, trust, size)

    def call(self, deadline: float, *, may_connect: bool) -> Call:
        """Return a call that has to end at a deadline, as ``time.monotonic`` counts.

        :param may_connect: whether it may open a connection, which can take longer than that.
        """
        return Call(deadline, may_connect=may_connect)

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
        time_left = call.start()
        usual = _PAGE_HEADERS if body is None else _HEADERS
        try:
            response = self._latest_pool().request(
                "GET" if body is None else "POST",
                url,
                body=body,
                headers={**usual, **(headers or {})},
                # The connection limits each read itself (_TimedResponse).
                timeout=urllib3.Timeout(connect=time_left, read=None),
                retries=_RETRY_ONCE if repeatable else False,
                # Following a redirect could send a secret to another host.
                redirect=False,
                preload_content=False,
            )
            if response.status in _WITHOUT_BODY:
                # If the server sends a body anyway, the next call must not read it.
                response.close()
            content = _read(response)
            return RawResponse(response.status, content, response.headers, url.partition("?")[0])
        except HTTPError as error:
            # Do not chain the exception, because it may quote what the server sent.
            raise ServerUnavailable(_explain(error, url, self._trust)) from None
        except NotConnected:
            return None
        except (ServerError, ServerUnavailable):
            raise
        except Exception as error:  # noqa: BLE001 - reported by its type and place
            raise unexpected(error) from None
        finally:
            call.stop()

    def _latest_pool(self) -> urllib3.PoolManager:
        """Return the pool of connections, which is a new one if the CA file has changed."""
        with self._lock:
            if self._contexts.has_changed():
                old = self._pool
                self._pool = create_pool(self._contexts.current, self._trust, self._size)
                # Idle connections were accepted because of the old file. Calls in progress end.
                old.clear()
            return self._pool


def _read(response: urllib3.BaseHTTPResponse) -> bytes:
    try:
        content = b""
        while chunk := response.read(MAX_BODY + 1 - len(content)):
            content += chunk
            if len(content) > MAX_BODY:
                raise ServerError("The server's response is larger than 1 MiB.")
    except BaseException:
        response.close()
        raise
    finally:
        response.release_conn()
    return content


def _explain(error: HTTPError, url: str, trust: Trust) -> str:
    """Describe an error in our own words, because its text may quote what the server sent."""
    if isinstance(error, urllib3.exceptions.MaxRetryError) and isinstance(error.reason, HTTPError):
        error = error.reason
    if error.args and isinstance(error.args[-1], InvalidFraming):
        return f"The server's response has {error.args[-1]}, so it is not valid HTTP."
    match error:
        case urllib3.exceptions.NameResolutionError():
            return "The server's host name is unknown: check DEVKIT_SSO_SERVER_URL."
        case urllib3.exceptions.SSLError():
            cause = error.args[0] if error.args else None
            if isinstance(cause, ssl.SSLError):
                problem = trust.explain(cause, urlsplit(url).hostname or "")
                return f"TLS with the server failed: {problem.text}. {problem.fix}."
            return "TLS with the server failed: does it use https on this port?"
        case urllib3.exceptions.NewConnectionError() | urllib3.exceptions.ConnectTimeoutError():
            return "Cannot connect to the server: check DEVKIT_SSO_SERVER_URL, port and firewall."
        case urllib3.exceptions.TimeoutError():
            return "The server did not respond in time."
        case urllib3.exceptions.DecodeError():
            return "The server's response cannot be decompressed."
        case _:
            # Some servers close the connection if the client uses the wrong scheme.
            scheme = url.partition(":")[0]
            return (
                f"The connection to the server broke ({type(error).__name__}): does it use "
                f"{scheme} on this port?"
            )
