"""Work of a store that no request waits for, such as the deletion of expired records."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final

from ..per_process import create_fork_lock

log: Final = logging.getLogger("flask_devkit_sso")

_step: Final = create_fork_lock()
"""Held during each step."""


class Upkeep:
    """Does the work of one store in one process, in a thread that ends when the work is done.

    :param failures: the exceptions that a store that cannot be used raises.
    """

    def __init__(self, failures: tuple[type[Exception], ...]) -> None:
        self._failures = failures
        self._running = threading.Lock()

    def start(self, work: Callable[[], Iterator[float]]) -> None:
        """Start the work, unless it is in progress.

        :param work: does it in steps. Between two of them, it yields for how many seconds to pause.
        """
        if not self._running.acquire(blocking=False):
            return
        # A daemon, so that it does not delay the end of the process. A step that is cut off is a
        # transaction that has not happened.
        thread = threading.Thread(
            target=self._run, args=(work,), name="devkit-sso-upkeep", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:
            # The system has no thread left, or the interpreter is shutting down. A request must not
            # fail because of that.
            self._running.release()

    def _run(self, work: Callable[[], Iterator[float]]) -> None:
        try:
            steps = work()
            while True:
                with _step:
                    pause = next(steps, None)
                if pause is None:
                    return
                time.sleep(pause)
        except self._failures as error:
            # Requests notice it as well, and the next round tries again.
            log.info("expired records cannot be deleted: %s", error)
        except Exception:
            log.exception("expired records cannot be deleted")
        finally:
            self._running.release()
