"""Keeps what does not survive a fork: sockets, threads, locks and database connections, and imports
that another thread has begun."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Final, Generic, TypeVar

T = TypeVar("T")


def create_fork_lock() -> threading.RLock:
    """Return a lock for which a fork waits while another thread holds it.

    Libraries in C, such as SQLite, and Python's imports have locks of their own, which would stay
    locked for ever in a child if a thread had one of them at the moment of the fork.
    """
    lock = threading.RLock()
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(
            before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release
        )
    return lock


no_fork: Final = create_fork_lock()
"""While a thread holds it, a fork waits. Take it for an import after the start and for creating a
TLS context: a child would inherit the locks that Python and OpenSSL hold in the middle of it, and
wait for ever at its own first login."""


_of_parents: Final[list[object]] = []
"""Values of parent processes whose owner was dropped in this process."""


class PerProcess(Generic[T]):
    """A value that each process creates for itself at its first use.

    A parent's value stays referenced in a forked child, even if the owner is dropped there, so that
    nothing closes its sockets and files in the child.

    :param create: called once in each process. If two threads need the first value at the same
        time, both call it, and one of the results is dropped. It must not refer to the owner of
        this object: the value of a dropped owner is to be closed at once.
    """

    def __init__(self, create: Callable[[], T]) -> None:
        self._create = create
        self._by_pid: dict[int, T] = {}

    def get(self) -> T:
        """Return the current process's value."""
        pid = os.getpid()
        try:
            return self._by_pid[pid]
        except KeyError:
            # setdefault needs no lock, which a fork could leave locked for ever.
            return self._by_pid.setdefault(pid, self._create())

    def __del__(self) -> None:
        by_pid = self._by_pid
        by_pid.pop(os.getpid(), None)
        _of_parents.extend(by_pid.values())
