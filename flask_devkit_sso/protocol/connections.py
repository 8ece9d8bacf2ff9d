"""Connections to the authentication server, for calls that end at their deadline.

urllib3's timeouts apply to a single read, so a server that sends a byte a second would keep a
request waiting for ever. So each read may take only as long as the :class:`Call` has left. Nothing
limits the lookup of a host's name, though. So a new connection is opened in a thread of its own,
and the caller that waits for it gives the call up at its deadline, which shuts the socket down.
"""

from __future__ import annotations

# The first connection would import it in its thread, and a fork would not wait for that.
import encodings.idna  # noqa: F401
import logging
import socket
import ssl
import threading
import time
from contextlib import suppress
from typing import Any, Final

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError

from ..errors import ServerUnavailable
from .connecting import LATE, connect, resolve
from .framing import StrictResponse
from .trust import Trust

MAX_IDLE: Final = 4.0
"""Seconds for which an idle connection is reused. Standard servers close it after 5
(docs/protocol.md, "What standard servers also do"), and a code that is sent at that moment would be
lost."""


class NotConnected(Exception):
    """There is no open connection for a call that must not open one. Nothing was sent."""


class Call:
    """The deadline of one HTTP request, and the connection that it uses.

    :param deadline: when it has to end, as ``time.monotonic`` counts.
    :param may_connect: whether it may open a connection, which can take longer than that.
    :ivar was_sent: whether at least a part of the request was sent.
    """

    def __init__(self, deadline: float, *, may_connect: bool) -> None:
        self._deadline = self._read_until = deadline
        self.may_connect = may_connect
        self.was_sent = False
        self._lock = threading.Lock()
        self._connection: HTTPConnection | None = None
        self._is_given_up = False

    def start(self) -> float:
        """Record that the current thread makes the call, and return the seconds left.

        :raises ServerUnavailable: if there is no time left, or if nobody waits for it any longer.
        """
        time_left = self._deadline - time.monotonic()
        if time_left <= 0 or self._is_given_up:
            raise ServerUnavailable("Too many calls to the server are already in progress.")
        _current.call = self
        return time_left

    def stop(self) -> None:
        """Record that the current thread has finished the call, and the connection may have
        another one."""
        _current.call = None
        with self._lock:
            self._connection = None

    def use(self, connection: HTTPConnection) -> None:
        """Record which connection :meth:`give_up` has to close.

        :raises urllib3.exceptions.TimeoutError: if nobody waits for the call any longer.
        """
        with self._lock:
            # If the whole process was paused, this thread may continue before the other one gives
            # up.
            if self._is_given_up or time.monotonic() > self._deadline:
                raise urllib3.exceptions.TimeoutError
            self._connection = connection

    def seconds_left(self) -> float:
        """Return how many seconds the next read or write may take.

        :raises TimeoutError: if there is no time left.
        """
        now = time.monotonic()
        if now - self._read_until > LATE and self._read_until == self._deadline:
            self._read_until = now + LATE
        if now >= self._read_until:
            raise TimeoutError
        return self._read_until - now

    def give_up(self) -> None:
        """Shut the connection down, from another thread."""
        with self._lock:
            self._is_given_up = True
            sock = self._connection.sock if self._connection else None
        if sock is not None:
            with suppress(OSError):
                # SSLSocket.shutdown would remove the TLS layer while the other thread reads.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)


class _Current(threading.local):
    call: Call | None = None


_current = _Current()


def _is_harmless(record: logging.LogRecord) -> bool:
    return _current.call is None or record.levelno < logging.WARNING


# urllib3's warnings quote what it could not parse, which may contain a secret. They are suppressed
# in our own calls, whose errors say what went wrong.
for _name in ("urllib3.connection", "urllib3.connectionpool"):
    logging.getLogger(_name).addFilter(_is_harmless)


class _TimedResponse(StrictResponse):
    """A response whose reads end when the call has to end."""

    def before_read(self) -> None:
        if _current.call is not None:
            self._socket.settimeout(_current.call.seconds_left())


class _CuttableConnection(HTTPConnection):
    """A connection that its call can close, and that is not reused after a long idle time."""

    response_class = _TimedResponse
    _idle_since: float | None = None

    def connect(self) -> None:
        if _current.call is not None and not _current.call.may_connect:
            raise NotConnected
        self._register()
        super().connect()
        self._register()

    def _new_conn(self) -> socket.socket:
        # urllib3 tries the addresses of a host one after the other, each until the deadline.
        timeout = self.timeout
        assert isinstance(timeout, int | float)  # noqa: S101 - every call has a deadline
        try:
            addresses = resolve(self._dns_host, self.port)
            return connect(addresses, timeout, options=self.socket_options or ())
        except socket.gaierror as error:
            raise NameResolutionError(self.host, self, error) from error
        except TimeoutError as error:
            raise ConnectTimeoutError(self, "timed out") from error
        except OSError as error:
            raise NewConnectionError(self, "failed") from error

    def request(self, *args: Any, **kwargs: Any) -> None:
        if self._idle_since is not None and time.monotonic() - self._idle_since > MAX_IDLE:
            self.close()
            self.connect()
        super().request(*args, **kwargs)

    def send(self, data: Any) -> None:
        # The last moment: this process may have been paused since the call began.
        self._register()
        if _current.call is not None:
            _current.call.was_sent = True
            if self.sock is not None:
                self.sock.settimeout(_current.call.seconds_left())
        super().send(data)

    def getresponse(self) -> Any:
        response = super().getresponse()
        self._idle_since = time.monotonic()
        return response

    def close(self) -> None:
        self._idle_since = None
        super().close()

    def _register(self) -> None:
        if _current.call is not None:
            _current.call.use(self)


class _CuttableTLSConnection(_CuttableConnection, HTTPSConnection):
    pass


class _HTTPPool(HTTPConnectionPool):
    ConnectionCls = _CuttableConnection


class _HTTPSPool(HTTPSConnectionPool):
    ConnectionCls = _CuttableTLSConnection


class _PoolManager(urllib3.PoolManager):
    def __init__(self, tls: ssl.SSLContext, trust: Trust, size: int) -> None:
        super().__init__(maxsize=size, ssl_context=tls)
        self.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}
        self._trust = trust

    def _new_pool(
        self, scheme: str, host: str, port: int, request_context: dict[str, Any] | None = None
    ) -> HTTPConnectionPool:
        pool = super()._new_pool(scheme, host, port, request_context)
        if scheme == "https":
            # With assert_hostname instead, urllib3 would switch the check of the shared context off
            # for every host.
            pool.conn_kw["server_hostname"] = self._trust.expected_name(pool.host)
        return pool


def create_pool(tls: ssl.SSLContext, trust: Trust, size: int) -> urllib3.PoolManager:
    """Return a pool of connections that another thread can close."""
    return _PoolManager(tls, trust, size)
