"""Background jobs of one process."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, NamedTuple

from ..errors import ServerError, ServerUnavailable, StoreUnavailable
from ..per_process import PerProcess

log: Final = logging.getLogger("flask_devkit_sso")

MAX_JOBS: Final = 8
"""Maximum number of jobs that one process runs at the same time."""


class _Process(NamedTuple):
    threads: ThreadPoolExecutor
    running: dict[str, Future[None]]
    lock: threading.Lock


def _create_process() -> _Process:
    threads = ThreadPoolExecutor(MAX_JOBS, thread_name_prefix="devkit-sso-session")
    return _Process(threads, {}, threading.Lock())


class Jobs:
    """Runs jobs in a few threads of each process, at most one for each key."""

    def __init__(self) -> None:
        self._process = PerProcess(_create_process)

    def start(self, key: str, function: Callable[[], None]) -> Future[None] | None:
        """Start a job and return its future.

        If a job with this key is running, its future is returned instead. If the process already
        runs :data:`MAX_JOBS` jobs, None is returned.
        """
        threads, running, lock = self._process.get()
        with lock:
            if key in running:
                return running[key]
            if len(running) >= MAX_JOBS:
                return None
            job = running[key] = threads.submit(function)

        def done(job: Future[None]) -> None:
            del running[key]
            error = job.exception()
            # Log errors here, because there may be no request that waits for the job. single_flight
            # has already logged errors of the server.
            if isinstance(error, StoreUnavailable):
                log.warning("a session could not be kept up to date: %s", error)
            elif error is not None and not isinstance(error, (ServerError, ServerUnavailable)):
                log.error("a session could not be kept up to date", exc_info=error)

        # Do this outside the lock, because the callback runs at once if the job has already ended.
        job.add_done_callback(done)
        return job
