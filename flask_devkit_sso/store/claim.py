"""Claims: the right of one worker, among all workers and hosts, to do something."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from ..errors import RETRY_AFTER, ServerUnavailable, StoreUnavailable
from .base import SKEW, Store

POLL: Final = 0.05
"""Seconds between two checks of what another worker is doing."""

_FAILED: Final = "failed"
_FAILED_IN_BACKGROUND: Final = "failed in the background"


class Claim:
    """The exclusive right to do one thing. It ends soon after its holder has been killed.

    The holder renews its claim, which changes the record. Another worker takes the claim over after
    the record has stayed the same for ``life`` seconds by that worker's own monotonic clock, so the
    clocks of different hosts do not matter. The record also expires, which matters to workers that
    have not watched it.

    :param life: seconds without a renewal after which others may take the claim over.
    :param expires_in: seconds after which the record expires, by the wall clock of whoever reads
        it.
    """

    def __init__(self, store: Store, key: str, *, life: float, expires_in: float) -> None:
        self._store = store
        self._key = key
        self._life = life
        self._expires_in = expires_in
        self._lock = threading.Lock()
        self._mark: str | None = None
        """The data of the record while the claim is ours."""
        self._seen: tuple[str, float] | None = None
        """The data of somebody else's record, and since when it has been the same."""
        self._taken_at = 0.0, 0.0

    def take(self, *, background: bool = False) -> bool:
        """Take the claim if it is free, and return whether that succeeded.

        :param background: whether nobody waits for the work.
        :raises ServerUnavailable: if the last holder failed a moment ago. A failure in the
            background does not count if somebody waits now: such a call may have failed only
            because calls that people wait for come first.
        """
        row = self._store.read(self._key)
        if row is not None and row.data in (_FAILED, _FAILED_IN_BACKGROUND):
            # If the clock has been set back since, the mark would stay for longer by as much.
            is_recent = row.used - time.time() <= SKEW
            if is_recent and (background or row.data == _FAILED):
                raise ServerUnavailable("The last attempt failed a moment ago.")
            self._store.remove(self._key, data=row.data)
        elif row is not None:
            if not self._is_abandoned(row.data):
                return False
            self._store.remove(self._key, data=row.data)
        mark = secrets.token_hex(8)
        # Others can see the record before add returns, so read the clocks before that.
        self._taken_at = time.monotonic(), time.time()
        if not self._store.add(self._key, mark, expires=self._taken_at[1] + self._expires_in):
            return False
        self._mark = mark
        return True

    def seconds_left(self) -> float:
        """Return for how many seconds nobody else can take the claim over, even if it is not
        renewed."""
        monotonic, wall = self._taken_at
        # Only the wall clock counts the time for which a virtual machine was suspended.
        return self._life - max(time.monotonic() - monotonic, time.time() - wall)

    @contextmanager
    def renewed(self) -> Iterator[None]:
        """Renew the claim in another thread until the ``with`` block ends."""
        has_ended = threading.Event()

        def renew() -> None:
            while not has_ended.wait(self._life / 4):
                with suppress(StoreUnavailable):
                    if not self._renew():
                        return

        # If no thread can be started, another worker may take the claim over too early.
        with suppress(RuntimeError):
            threading.Thread(target=renew, name="devkit-sso-claim", daemon=True).start()
        try:
            yield
        finally:
            has_ended.set()

    def release(self) -> None:
        """Release the claim, unless somebody else has taken it over."""
        self._give_back()

    def fail(self, *, background: bool = False) -> None:
        """Release the claim, and keep others from trying again for a few seconds.

        :param background: as in :meth:`take`.
        """
        if self._give_back():
            mark = _FAILED_IN_BACKGROUND if background else _FAILED
            # If the store fails here, the work has failed anyway.
            with suppress(StoreUnavailable):
                self._store.add(self._key, mark, expires=time.time() + RETRY_AFTER)

    def _is_abandoned(self, data: str) -> bool:
        now = time.monotonic()
        if self._seen is None or self._seen[0] != data:
            self._seen = data, now
        return now - self._seen[1] > self._life

    def _renew(self) -> bool:
        """Change the record, and return whether the claim is still ours."""
        with self._lock:
            if self._mark is None:
                return False
            new = secrets.token_hex(8)
            if not self._store.update(self._key, new, expected=self._mark):
                # The store may have repeated the operation, and returns the second result.
                row = self._store.read(self._key)
                if row is None or row.data != new:
                    return False
            self._mark = new
            return True

    def _give_back(self) -> bool:
        """Remove the record, and return whether the claim was still ours."""
        with self._lock:
            mark, self._mark = self._mark, None
            # If the store fails here, the work is done all the same, and the claim ends by itself.
            with suppress(StoreUnavailable):
                return mark is not None and self._store.remove(self._key, data=mark) is not None
            return False


def is_claimed(store: Store, key: str) -> bool:
    """Return whether a worker has taken the claim with this key."""
    row = store.read(key)
    return row is not None and row.data not in (_FAILED, _FAILED_IN_BACKGROUND)
