"""Connections to PostgreSQL, and calls that survive a connection that breaks.

psycopg_pool is not used: it waits for a second if it finds two broken connections, as there are
after a restart, keeps an entry for every call that it refuses, and logs the driver's messages.
"""

from __future__ import annotations

import os
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, Generic, NamedTuple, TypeVar

import psycopg
from psycopg import conninfo, errors, pq

from ..config.redirect_uri import is_loopback
from ..errors import ConfigError, StoreUnavailable
from ..per_process import PerProcess
from .postgresql_hosts import responding_first
from .postgresql_schema import create_schema, explain

T = TypeVar("T")
U = TypeVar("U")

_MAX_IDLE: Final = 8
"""How many idle connections a process keeps open."""

_UNACKNOWLEDGED: Final = 700
"""Milliseconds after which a connection whose other end acknowledges nothing is broken, so that
there is time for a second attempt. Only Linux knows this limit."""

_CONNECT: Final = 2
"""Seconds after which an attempt to connect ends. psycopg has no shorter limit."""

_CANCEL: Final = 1.0
"""Seconds for the request that cancels a statement."""

_SSL_MODES: Final = ("", "disable", "allow", "prefer", "require", "verify-ca", "verify-full")

_BROKEN: Final = ("08", "57P")
"""How the SQLSTATE of an error begins with which PostgreSQL or PgBouncer ends a connection."""

_Selector: Final = getattr(selectors, "PollSelector", selectors.SelectSelector)


class Connection(psycopg.Connection[Any]):
    """A connection that nobody has to close before its process ends."""

    def __del__(self, *_: object) -> None:
        """Do not warn. libpq closes the connection, unless it belongs to a parent process."""


class Written(NamedTuple):
    """The number of records that a statement has changed or found, and the rows it returned."""

    changed: int
    rows: list[Any]


def execute(connection: Connection, statement: str, values: tuple[Any, ...]) -> Written:
    """Carry out a statement, which is one transaction."""
    cursor = connection.execute(statement, values)
    return Written(cursor.rowcount, cursor.fetchall() if cursor.description else [])


class Connections:
    """The connections to one database. Each process has its own.

    :param url: as libpq accepts it.
    :raises ConfigError: if libpq rejects the URL.
    """

    def __init__(self, url: str) -> None:
        try:
            self._parameters = conninfo.conninfo_to_dict(
                url,
                client_encoding="UTF8",
                connect_timeout=_CONNECT,
                target_session_attrs="read-write",
                tcp_user_timeout=_UNACKNOWLEDGED,
            )
        except psycopg.Error:
            self._parameters = {"sslmode": "invalid"}
        # libpq looks at these values only when it connects.
        ports = self._parameter("port").replace(",", "")
        if (ports and not ports.isdigit()) or self._parameter("sslmode") not in _SSL_MODES:
            # Outside the except block, because psycopg quotes the URL with its password.
            raise ConfigError(
                "libpq rejects DEVKIT_SSO_STORE_URL: it must be like "
                "postgresql://user:password@host:5432/database, with special characters in the "
                "password percent-encoded, and after a ? only parameters of libpq, such as "
                "sslmode=verify-full"
            )
        self._idle = PerProcess[deque[Connection]](deque)

    def unverified_hosts(self) -> list[str]:
        """Return the names of other hosts that need not prove who they are."""
        mode = self._parameter("sslmode") or os.environ.get("PGSSLMODE")
        if mode == "verify-full" or (not mode and self._parameter("sslrootcert") == "system"):
            return []
        hosts = self._parameter("hostaddr") or self._parameter("host") or os.environ.get("PGHOST")
        # The others are sockets in folders.
        names = [host for host in (hosts or "").split(",") if host and host[0] not in "/@"]
        return [name for name in names if not is_loopback(name)]

    def _parameter(self, name: str) -> str:
        return str(self._parameters.get(name) or "")

    def call(self, operation: Callable[[Connection], T], deadline: float) -> Call[T]:
        """Return a call that carries out an operation.

        :param deadline: after which it is not repeated, as ``time.monotonic`` counts.
        """
        return Call(self, operation, deadline)

    def take(self) -> Connection | None:
        """Return an idle connection that PostgreSQL has not closed, or None if there is none."""
        idle = self._idle.get()
        with suppress(IndexError):
            while True:
                connection = idle.pop()
                if not _is_readable(connection):
                    return connection
                # PostgreSQL sends something only to say that it ends the connection.
                connection.close()
        return None

    def give_back(self, connection: Connection) -> None:
        """Keep a connection for the next call."""
        idle = self._idle.get()
        is_idle = connection.info.transaction_status == pq.TransactionStatus.IDLE
        if is_idle and len(idle) < _MAX_IDLE:
            idle.append(connection)
        else:
            connection.close()

    def close_idle(self) -> None:
        """Close all connections that are not in use."""
        idle = self._idle.get()
        with suppress(IndexError):
            while True:
                idle.pop().close()

    def connect(self) -> Connection:
        """Return a new connection.

        :raises psycopg.Error: if it cannot be made.
        """
        parameters = responding_first(self._parameters)
        # PgBouncer does not support prepared statements in all of its modes.
        return Connection.connect(autocommit=True, prepare_threshold=None, **parameters)


class Call(Generic[T]):
    """One call, which may run in another thread than the one that waits for it."""

    def __init__(
        self, connections: Connections, operation: Callable[[Connection], T], deadline: float
    ) -> None:
        self._connections = connections
        self._operation = operation
        self._deadline = deadline
        self._lock = threading.Lock()
        self._connection: Connection | None = None

    def __call__(self) -> T:
        """Carry out the operation.

        :raises StoreUnavailable: if that fails.
        """
        try:
            return self._attempt()
        except (psycopg.Error, ValueError, OSError) as error:
            text, fix = explain(error)
        # Outside the except block, so that it does not lead to frames of psycopg, which contain the
        # password.
        raise StoreUnavailable(f"The session store in PostgreSQL {text}", fix)

    def give_up(self) -> None:
        """End the call, for which nobody waits any more.

        Otherwise its statement could wait for a lock for hours, and occupy a connection that others
        need.
        """
        with self._lock, suppress(psycopg.Error, OSError):
            if self._connection is None:
                return
            # Before version 17, libpq waits for PostgreSQL here without a limit, and nothing else
            # in the process runs until then.
            if psycopg.capabilities.has_cancel_safe():
                with suppress(psycopg.Error):
                    self._connection.cancel_safe(timeout=_CANCEL)
            # The thread that waits for the reply notices this, also if PostgreSQL hangs.
            with socket.socket(fileno=os.dup(self._connection.fileno())) as duplicate:
                duplicate.shutdown(socket.SHUT_RDWR)

    def _attempt(self) -> T:
        """Carry out the operation. Repeat it once if the connection breaks, if the server has
        become a replica, or if the table does not exist yet."""
        connection = self._connections.take() or self._connections.connect()
        try:
            return self._use(connection, self._operation)
        except errors.UndefinedTable:
            self._use(self._connections.connect(), create_schema)
        except errors.ReadOnlySqlTransaction:
            self._connections.close_idle()
        except psycopg.OperationalError as error:
            is_broken = connection.closed or (error.sqlstate or "").startswith(_BROKEN)
            if not is_broken or time.monotonic() > self._deadline:
                raise
            connection.close()
        return self._use(self._connections.connect(), self._operation)

    def _use(self, connection: Connection, operation: Callable[[Connection], U]) -> U:
        with self._lock:
            self._connection = connection
        try:
            if time.monotonic() > self._deadline:
                raise errors.ConnectionTimeout
            return operation(connection)
        finally:
            with self._lock:
                self._connection = None
            self._connections.give_back(connection)


def _is_readable(connection: Connection) -> bool:
    with _Selector() as selector:
        selector.register(connection.fileno(), selectors.EVENT_READ)
        return bool(selector.select(0))
