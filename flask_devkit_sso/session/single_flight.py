"""Single flight: of all requests on all workers and hosts, only one does the work."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

from ..errors import ServerError, ServerUnavailable
from ..store.base import Store
from ..store.claim import POLL, Claim

log: Final = logging.getLogger("flask_devkit_sso")


def single_flight(
    store: Store,
    key: str,
    work: Callable[[], None],
    *,
    is_done: Callable[[], bool],
    claim_seconds: float,
    wait_seconds: float,
) -> None:
    """Do some work unless another worker has done it or is doing it.

    :param key: the key of the claim in the store.
    :param is_done: returns whether another worker has done the work.
    :param claim_seconds: how long the work may take. After that, another worker may do it.
    :param wait_seconds: how long to wait while another worker is doing it; 0 for not at all.
    :raises ServerError, ServerUnavailable: if ``work`` raises it, if the work failed a moment ago,
        or if another worker is still doing it after ``wait_seconds``.
    """
    claim = Claim(store, key, claim_seconds)
    deadline = time.monotonic() + wait_seconds
    while True:
        is_mine = claim.take()
        try:
            if is_done():
                return
            if is_mine:
                work()
                return
        except (ServerError, ServerUnavailable) as error:
            if is_mine:
                claim.fail()
                is_mine = False
                log.log(
                    logging.ERROR if isinstance(error, ServerError) else logging.WARNING,
                    "a session could not be kept up to date: %s See docs/failures.md#%s",
                    error.description,
                    error.reason,
                )
            raise
        finally:
            if is_mine:
                claim.release()
        if not wait_seconds:
            return
        if time.monotonic() > deadline:
            raise ServerUnavailable("Another worker is still asking the server.")
        time.sleep(POLL)
