"""One HTTPS request of the authentication server, with a deadline that is one.

urllib3 carries the bytes. Its timeouts count between two reads, so a server that sends a byte a
second would hold a request for ever, and no timeout of a socket covers the resolver. Each call
therefore runs in a thread of a small pool; its caller waits no longer than the deadline and then
cuts the connection, which ends the thread's work too.
"""

from __future__ import annotations

import http.client
import logging
import math
import os
import socket
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Final, NamedTuple

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError as _HTTPError

from ..errors import ServerError, ServerUnavailable
from .contract import Reply

MAX_BODY: Final = 1024 * 1024
"""Bytes of an answer's body, after decompression."""

MAX_CALLS: Final = 16
"""Calls in flight in one process; a further one waits for a place within its own deadline."""

MAX_IDLE: Final = 4.0
"""Seconds for which a connection is kept for the next call. Standard servers close theirs after 5
(docs/protocol.md, "What standard servers do besides"): a code must not be sent into the closing."""

_WITHOUT_BODY: Final = (101, 204, 205, 304)

BREAK_AFTER: Final = 3
"""Calls of an interface without an answer, one after another, after which a process stops calling
it for a while."""

BREAK_FOR: Final = 5.0
"""Seconds until it tries again, by one call at a time."""

_HEADERS: Final = {
    "Accept": "application/json",
    "Content-Type": "application/json",
    "User-Agent": "flask-devkit-sso",
}

_ONE_MORE: Final = urllib3.Retry(
    total=1, connect=0, redirect=0, status=0, allowed_methods=None, respect_retry_after_header=False
)


class _Call:
    """One request under way: a POST, or a GET where there is no body. It is carried out by a pool
    thread, given up by the one that waits for it."""

    def __init__(self, url: str, body: bytes | None, timeout: float, *, repeatable: bool) -> None:
        self._url = url
        self._body = body
        self._repeatable = repeatable
        self._made = time.monotonic()
        self._deadline = self._made + timeout
        self._lock = threading.Lock()
        self._connection: HTTPConnection | None = None
        self._given_up = False
        self._turn = math.inf

    @property
    def waited(self) -> float:
        """Seconds until it had its turn; infinite if it had none."""
        return self._turn - self._made

    def run(self, pool: urllib3.PoolManager) -> Reply:
        _running.call = self
        self._turn = time.monotonic()
        try:
            time_left = self._deadline - self._turn
            if time_left <= 0:
                raise ServerUnavailable("Too many calls of the server are under way already.")
            response = pool.request(
                "GET" if self._body is None else "POST",
                self._url,
                body=self._body,
                headers={"User-Agent": "flask-devkit-sso"} if self._body is None else _HEADERS,
                timeout=urllib3.Timeout(total=time_left),
                retries=_ONE_MORE if self._repeatable else False,
                # A redirect could hand a secret on.
                redirect=False,
                preload_content=False,
            )
            if response.status in _WITHOUT_BODY:
                # What follows all the same must not be there for the next call.
                response.close()
            try:
                body = b""
                while chunk := response.read(MAX_BODY + 1 - len(body)):
                    body += chunk
                    if len(body) > MAX_BODY:
                        raise ServerError("The server's answer is larger than 1 MiB.")
            except BaseException:
                response.close()
                raise
            finally:
                response.release_conn()
            return Reply(response.status, body, response.headers, self._url.partition("?")[0])
        except _HTTPError as error:
            # Not chained: some of these repeat what the server sent.
            raise ServerUnavailable(_explain(error, self._url)) from None
        finally:
            _running.call = None

    def uses(self, connection: HTTPConnection) -> None:
        """Learn which connection to cut. Refuses to go on once nobody waits any longer."""
        with self._lock:
            # A process that was halted may come here before whoever waits has given up.
            if self._given_up or time.monotonic() > self._deadline:
                raise urllib3.exceptions.TimeoutError
            self._connection = connection

    def give_up(self) -> None:
        with self._lock:
            self._given_up = True
            sock = self._connection.sock if self._connection else None
        if sock is not None:
            with suppress(OSError):
                # The plain socket's method: SSLSocket.shutdown would drop the TLS layer under the
                # thread that is reading through it.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)


class _Running(threading.local):
    call: _Call | None = None


_running = _Running()


def _is_harmless(record: logging.LogRecord) -> bool:
    return _running.call is None or record.levelno < logging.WARNING


# urllib3's warnings quote what they could not parse, and a server may repeat a secret there. Ours
# are silent in our own calls; what went wrong is in the error that we raise.
for _name in ("urllib3.connection", "urllib3.connectionpool"):
    logging.getLogger(_name).addFilter(_is_harmless)


class _FinalResponse(http.client.HTTPResponse):
    """Reads over interim answers (RFC 9110 section 15.2), of which http.client knows 100 alone.

    One that were taken for the answer would leave the real one to the next call, which is another
    person's.
    """

    def _read_status(self) -> tuple[str, int, str]:
        found: tuple[str, int, str] = super()._read_status()  # type: ignore[misc]
        while 100 <= found[1] < 200 and found[1] != 101:
            http.client.parse_headers(self.fp)
            found = super()._read_status()  # type: ignore[misc]
        return found


class _CuttableConnection(HTTPConnection):
    """A connection that its call can find, and that is not used again after a long idle time."""

    response_class = _FinalResponse
    _idle_since: float | None = None

    def connect(self) -> None:
        self._tell()
        super().connect()
        self._tell()

    def request(self, *args: Any, **kwargs: Any) -> None:
        if self._idle_since is not None and time.monotonic() - self._idle_since > MAX_IDLE:
            self.close()
            self.connect()
        self._tell()
        super().request(*args, **kwargs)

    def getresponse(self) -> Any:
        response = super().getresponse()
        self._idle_since = time.monotonic()
        return response

    def close(self) -> None:
        self._idle_since = None
        super().close()

    def _tell(self) -> None:
        if _running.call is not None:
            _running.call.uses(self)


class _CuttableTLSConnection(_CuttableConnection, HTTPSConnection):
    pass


class _HTTPPool(HTTPConnectionPool):
    ConnectionCls = _CuttableConnection


class _HTTPSPool(HTTPSConnectionPool):
    ConnectionCls = _CuttableTLSConnection


class _Breaker:
    """Keeps a process from waiting for a server that does not answer."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._unanswered = 0
        self._next_try = 0.0

    def let_pass(self, timeout: float) -> None:
        """Return when a call may be made.

        :raises ServerUnavailable: when none is to be made now.
        """
        with self._lock:
            if self._unanswered < BREAK_AFTER:
                return
            now = time.monotonic()
            if now < self._next_try:
                raise ServerUnavailable("The server has not answered lately; it is tried again.")
            self._next_try = now + timeout + BREAK_FOR

    def note(self, *, answered: bool) -> None:
        with self._lock:
            self._unanswered = 0 if answered else self._unanswered + 1
            self._next_try = time.monotonic() + BREAK_FOR


def tls_context(ca_bundle: str | None) -> ssl.SSLContext:
    """Return what decides whom to trust: a PEM file of CAs, or with None the system's store."""
    return ssl.create_default_context(cafile=ca_bundle)


class _Process(NamedTuple):
    """What belongs to one process: sockets, threads and locks don't survive a fork."""

    pool: urllib3.PoolManager
    threads: ThreadPoolExecutor
    breakers: dict[str, _Breaker]
    """By interface: one that hangs is not hidden by one that answers."""


class Transport:
    """A process's way to the authentication server: one TLS context, one pool of connections.

    :param ca_bundle: path of a PEM file that replaces the system's store of CAs, or None.
    :param timeout: seconds for one whole call, from the resolver to the last byte.

    Neither proxies from the environment nor ``.netrc`` are looked at; redirects are not followed.
    """

    def __init__(self, *, ca_bundle: str | None, timeout: float) -> None:
        self._ca_bundle = ca_bundle
        self._timeout = timeout
        # setdefault needs no lock that a fork could find taken. The parent's entry stays, so that
        # nothing closes its sockets.
        self._by_process: dict[int, _Process] = {}

    def post(self, url: str, body: bytes, *, repeatable: bool = False) -> Reply:
        """Send a JSON body and return the answer whatever its status.

        :param repeatable: it may be sent once more when the connection breaks without an answer.
            Never for what uses something up: a code sent twice kills the tokens of its first use.
        :raises ServerUnavailable: when there is no whole answer within the deadline, or there was
            none lately (:data:`BREAK_AFTER`).
        :raises ServerError: when the answer is larger than 1 MiB.
        """
        return self._send(url, body, repeatable=repeatable)

    def get(self, url: str) -> Reply:
        """Ask for a page as a browser without cookies does, and follow no redirect.

        :raises ServerError, ServerUnavailable: as :meth:`post`.
        """
        return self._send(url, None, repeatable=True)

    def _send(self, url: str, body: bytes | None, *, repeatable: bool) -> Reply:
        pid = os.getpid()
        try:
            pool, threads, breakers = self._by_process[pid]
        except KeyError:
            pool, threads, breakers = self._by_process.setdefault(pid, self._set_up())
        breaker = breakers.setdefault(url.partition("?")[0], _Breaker())
        breaker.let_pass(self._timeout)
        call = _Call(url, body, self._timeout, repeatable=repeatable)
        try:
            future = threads.submit(call.run, pool)
        except RuntimeError:
            raise ServerUnavailable("This process is ending.") from None
        answered = True
        try:
            return future.result(self._timeout)
        except ServerUnavailable:
            answered = False
            raise
        except TimeoutError:
            answered = False
            future.cancel()
            call.give_up()
            raise ServerUnavailable(
                f"No whole answer from the server within {self._timeout:g} seconds."
            ) from None
        finally:
            # One that had its turn late, or never, says nothing of the server.
            if answered or call.waited < self._timeout / 2:
                breaker.note(answered=answered)

    def _set_up(self) -> _Process:
        pool = urllib3.PoolManager(maxsize=MAX_CALLS, ssl_context=tls_context(self._ca_bundle))
        pool.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}
        threads = ThreadPoolExecutor(MAX_CALLS, thread_name_prefix="devkit-sso")
        return _Process(pool, threads, {})


def _explain(error: _HTTPError, url: str) -> str:
    """Say what went wrong in words of ours: an error's own text may repeat the server's."""
    if isinstance(error, urllib3.exceptions.MaxRetryError) and isinstance(error.reason, _HTTPError):
        error = error.reason
    match error:
        case urllib3.exceptions.NameResolutionError():
            return "The server's host name is not known: check DEVKIT_SSO_SERVER_URL."
        case urllib3.exceptions.SSLError():
            cause = error.args[0] if error.args else None
            if isinstance(cause, ssl.SSLCertVerificationError):
                return (
                    f"The server's certificate is not accepted ({cause.verify_message}): with a "
                    "CA of your own set DEVKIT_SSO_CA_BUNDLE to its PEM file."
                )
            return "The TLS handshake with the server failed: does it speak https on this port?"
        case urllib3.exceptions.NewConnectionError() | urllib3.exceptions.ConnectTimeoutError():
            return "No connection to the server: check DEVKIT_SSO_SERVER_URL, port and firewall."
        case urllib3.exceptions.TimeoutError():
            return "The server did not answer in time."
        case _:
            # A server may just close the connection when it is spoken to in the other scheme.
            scheme = url.partition(":")[0]
            return (
                f"The connection to the server broke ({type(error).__name__}): does it speak "
                f"{scheme} on this port?"
            )
