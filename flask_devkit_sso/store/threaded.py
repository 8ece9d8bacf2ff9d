"""Calls that may hang for longer than their deadline, such as the lookup of a host's name."""

from __future__ import annotations

import builtins
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from ..bulkhead import Place
from ..errors import StoreUnavailable
from .base import DEADLINE, MAX_CALLS, Bulkheads

T = TypeVar("T")


class ThreadedBulkheads(Bulkheads):
    """The bulkheads of a store on another host in one process, and threads for calls to it.

    The caller waits no longer than the deadline, because the timeouts of drivers cover neither name
    resolution nor every step of connecting.

    :param name: what the store is called in errors.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name
        self._threads = ThreadPoolExecutor(2 * MAX_CALLS, thread_name_prefix="devkit-sso-store")

    def in_background(self, call: Callable[[], object]) -> None:
        """Let a thread make a call whose result and failure do not matter.

        :raises RuntimeError: if the interpreter is shutting down.
        """
        self._threads.submit(call)

    def in_thread(
        self, place: Place, call: Callable[[], T], *, give_up: Callable[[], object] | None = None
    ) -> T:
        """Return what a call returns, or raise what it raises.

        :param give_up: run in a thread if the deadline passes, to end the call.
        :raises StoreUnavailable: if the call does not end before the deadline.
        """
        try:
            future = self._threads.submit(call)
        except RuntimeError:
            # The interpreter is shutting down, and a refresh in progress still has to store its
            # tokens.
            return call()
        try:
            return future.result(place.deadline - time.monotonic())
        except builtins.TimeoutError:
            if not future.cancel() and give_up is not None:
                self._threads.submit(give_up)
            raise StoreUnavailable(
                f"The session store in {self._name} did not respond within {DEADLINE:g} seconds."
            ) from None
