"""Single flight: of all requests on all workers and hosts, only one does the work."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

from ..errors import ServerError, ServerUnavailable, StoreUnavailable
from ..store.claim import POLL, Claim

log: Final = logging.getLogger("flask_devkit_sso")


def single_flight(
    claim: Claim,
    work: Callable[[], None],
    *,
    is_done: Callable[[], bool],
    is_awaited: Callable[[], bool],
    wait_seconds: float,
    min_seconds_left: float = 0,
) -> None:
    """Do some work unless another worker has done it or is doing it.

    :param is_done: returns whether another worker has done the work.
    :param is_awaited: returns whether anybody is waiting for the result.
    :param wait_seconds: how long to wait while another worker is doing it; 0 for not at all. To
        take over from a worker that was killed, it has to be longer than the claim's life.
    :param min_seconds_left: do not start the work if the claim may be somebody else's before this
        many seconds have passed, because this worker was paused after it took the claim.
    :raises ServerError, ServerUnavailable: if ``work`` raises it, if the work failed a moment ago,
        or if another worker is still doing it after ``wait_seconds``. Whatever ``work`` raises,
        unless it is StoreUnavailable, nobody tries again for a few seconds.
    """
    deadline = time.monotonic() + wait_seconds
    while True:
        is_mine = claim.take(background=not is_awaited())
        try:
            if is_done():
                return
            if is_mine and claim.seconds_left() >= min_seconds_left:
                with claim.renewed():
                    work()
                return
        except (ServerError, ServerUnavailable) as error:
            if is_mine:
                is_answer = isinstance(error, ServerError)
                # The server would send the same answer to somebody who waits.
                claim.fail(background=not (is_answer or is_awaited()))
                is_mine = False
                log.log(
                    logging.ERROR if is_answer else logging.WARNING,
                    "a session could not be kept up to date: %s See docs/failures.md#%s",
                    error.description,
                    error.reason,
                )
            raise
        except StoreUnavailable:
            raise
        except Exception:
            if is_mine:
                claim.fail(background=not is_awaited())
                is_mine = False
            raise
        finally:
            if is_mine:
                claim.release()
        if not wait_seconds:
            return
        if time.monotonic() > deadline:
            raise ServerUnavailable("Another worker is still asking the server.")
        time.sleep(POLL)
