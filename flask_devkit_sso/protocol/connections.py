"""Connections to the authentication server, for calls that end at their deadline.

A socket's timeout applies to a single read, so a server that sends a byte a second would keep a
request waiting for ever. So each read may take only as long as the :class:`Call` has left. Nothing
limits the lookup of a host's name, though. So a new connection is opened in a thread of its own,
and the caller that waits for it gives the call up at its deadline, which shuts the socket down.
"""

from __future__ import annotations

# The first connection would import it in its thread, and a fork would not wait for that.
import encodings.idna  # noqa: F401
import http.client
import socket
import ssl
import threading
import time
from contextlib import suppress
from functools import partial
from typing import Any, Final, NamedTuple

from ..errors import ServerUnavailable
from .connecting import LATE, connect, resolve
from .framing import StrictResponse

MAX_IDLE: Final = 4.0
"""Seconds for which an idle connection is reused. Standard servers close it after 5
(docs/protocol.md, "What standard servers also do"), and a code that is sent at that moment would be
lost."""

_WITHOUT_BODY: Final = (101, 204, 205, 304)

_CLOSED: Final = (ConnectionError, ssl.SSLEOFError)
"""What sending raises if the server has closed the connection."""

_NO_DELAY: Final = ((socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),)


class CannotConnect(OSError):
    """No connection could be opened."""


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
        self._connection: Connection | None = None
        self._is_given_up = False

    def start(self) -> None:
        """Return if the call may begin.

        :raises ServerUnavailable: if there is no time left, or if nobody waits for it any longer.
        """
        if self._is_given_up or time.monotonic() >= self._deadline:
            raise ServerUnavailable("Too many calls to the server are already in progress.")

    def stop(self) -> None:
        """Record that the call has finished, and the connection may have another one."""
        with self._lock:
            self._connection = None

    def use(self, connection: Connection) -> None:
        """Record which connection :meth:`give_up` has to close.

        :raises TimeoutError: if nobody waits for the call any longer.
        """
        with self._lock:
            # If the whole process was paused, this thread may continue before the other one gives
            # up.
            if self._is_given_up or time.monotonic() > self._deadline:
                raise TimeoutError
            self._connection = connection

    def limit(self, sock: socket.socket) -> None:
        """Let the next read from a socket, or write to it, take only as long as the call has left.

        :raises TimeoutError: if there is no time left.
        """
        sock.settimeout(self.seconds_left())

    def seconds_left(self) -> float:
        """Return how many seconds the next read or write may take.

        :raises TimeoutError: if there is no time left, or if nobody waits for the call any longer.
        """
        now = time.monotonic()
        if self._is_given_up:
            raise TimeoutError
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


class Origin(NamedTuple):
    """What a connection leads to. ``host`` has no brackets, even if it is an IPv6 address."""

    is_tls: bool
    host: str
    port: int


class Request(NamedTuple):
    """An HTTP request. ``target`` is the path with the query."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes | None


class Connection(http.client.HTTPConnection):
    """A connection to the server. It has one call at a time, which ends at its deadline.

    It is closed once nobody refers to it.
    """

    auto_open = 0
    # An application that debugs its own connections would print what is sent on ours.
    debuglevel = 0

    def __init__(self, origin: Origin) -> None:
        # A dot at the end is only for the resolver.
        super().__init__(origin.host.removesuffix("."), origin.port)
        self.origin = origin
        self.default_port = http.client.HTTPS_PORT if origin.is_tls else http.client.HTTP_PORT
        self._idle_since = 0.0
        self._call: Call | None = None

    def open(self, call: Call, tls: ssl.SSLContext, server_name: str) -> None:
        """Open the connection. It is closed again if that fails.

        :param tls: the context to use if the origin needs TLS.
        :param server_name: the name or address that the certificate must have.
        :raises socket.gaierror: if the host's name is unknown.
        :raises CannotConnect: if no address of the host accepts a connection.
        :raises OSError: if the handshake fails, and ``TimeoutError`` if nobody waits any longer.
        """
        try:
            self._open(call, tls, server_name)
        except BaseException:
            self.close()
            raise

    def _open(self, call: Call, tls: ssl.SSLContext, server_name: str) -> None:
        call.use(self)
        addresses = resolve(self.origin.host, self.origin.port)
        try:
            self.sock = connect(addresses, call.seconds_left(), options=_NO_DELAY)
        except OSError as error:
            raise CannotConnect from error
        if self.origin.is_tls:
            # The handshake comes later, so that give_up finds the socket that it has to shut down.
            self.sock = tls.wrap_socket(
                self.sock, server_hostname=server_name, do_handshake_on_connect=False
            )
        call.use(self)
        if isinstance(self.sock, ssl.SSLSocket):
            call.limit(self.sock)
            self.sock.do_handshake()

    def exchange(self, call: Call, request: Request, *, most: int) -> tuple[StrictResponse, bytes]:
        """Send a request and read its response. The connection is closed if that fails.

        :param most: how many bytes of the body to read.
        :return: the response, and its body before decompression.
        :raises OSError, http.client.HTTPException: if the connection breaks, or if there is no time
            left.
        """
        self._call = call
        self.response_class = partial(StrictResponse, before_read=call.limit)  # type: ignore[assignment]
        content, is_cut = b"", False
        try:
            try:
                self.request(request.method, request.target, request.body, request.headers)
            except _CLOSED:
                # The server may have responded before that, for instance with the reason.
                is_cut = True
            response: StrictResponse = self.getresponse()  # type: ignore[assignment]
            with response:
                if response.status not in _WITHOUT_BODY:
                    content = response.read_all(most)
                # If the server sends more anyway, the next call must not read it.
                is_cut = is_cut or not response.isclosed()
        except BaseException:
            self.close()
            raise
        if is_cut:
            self.close()
        self._call, self._idle_since = None, time.monotonic()
        return response, content

    def send(self, data: Any) -> None:
        if self._call is not None and self.sock is not None:
            # The last moment: this process may have been paused since the call began.
            self._call.use(self)
            self._call.was_sent = True
            self._call.limit(self.sock)
        super().send(data)

    @property
    def is_open(self) -> bool:
        """Whether the connection is still open after a call."""
        return self.sock is not None

    def is_usable(self) -> bool:
        """Return whether another call may use the connection: the server has neither closed it nor
        sent what nobody asked for."""
        if self.sock is None or time.monotonic() - self._idle_since > MAX_IDLE:
            return False
        try:
            self.sock.settimeout(0)
            # SSLSocket.recv cannot peek.
            socket.socket.recv(self.sock, 1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False

    def __del__(self) -> None:
        self.close()
