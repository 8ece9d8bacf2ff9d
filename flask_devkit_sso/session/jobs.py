"""Jobs that keep sessions up to date, in a few threads of each process."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

from ..errors import ServerError, ServerUnavailable, StoreUnavailable
from ..per_process import PerProcess

log: Final = logging.getLogger("flask_devkit_sso")

MAX_JOBS: Final = 16
"""Maximum number of jobs that one process runs at the same time. Further jobs wait for a thread for
as long as a request waits for them."""

MAX_BACKGROUND: Final = 4
"""A job that no request waits for starts only while fewer than this many such jobs are running. The
other threads are left to people who are waiting."""

Work = Callable[[Callable[[], bool]], None]
"""What a job does. Its argument is a function that returns whether a request is waiting for the job
at that moment."""


class _Job:
    def __init__(self, work: Work) -> None:
        self.work = work
        self.waiting = 0
        self.is_running = False
        self.done: Future[None] = Future()


class _Process:
    """The jobs of one process by key, the oldest first. Change them only with the lock."""

    def __init__(self) -> None:
        self.threads = ThreadPoolExecutor(MAX_JOBS, thread_name_prefix="devkit-sso-session")
        self.jobs: dict[str, _Job] = {}
        self.lock = threading.Lock()


class Jobs:
    """Runs at most one job for each key in each process.

    Jobs start in the order in which they were requested. A job that has not started is dropped as
    soon as no request waits for it, so there are never more jobs in the queue than waiting
    requests.
    """

    def __init__(self) -> None:
        self._process = PerProcess(_Process)

    def start(self, key: str, work: Work) -> None:
        """Run a job in the background, unless one with this key exists or no thread is free for it.

        If it does not run, the next request of the session tries again.
        """
        process = self._process.get()
        with process.lock:
            running = [job for job in process.jobs.values() if job.is_running]
            in_background = sum(not job.waiting for job in running)
            if (
                key not in process.jobs
                and len(running) < MAX_JOBS
                and in_background < MAX_BACKGROUND
            ):
                process.jobs[key] = _Job(work)
                _start_jobs(process)

    def run(self, key: str, work: Work, seconds: float) -> None:
        """Wait for the job with this key to end. If there is none, add it.

        :param seconds: how long to wait, both for a thread and for the job.
        :raises ServerError, ServerUnavailable, StoreUnavailable: as the job does.
        :raises ServerUnavailable: if the job has not ended in time, or if it raised any other
            exception, which is logged.
        """
        process = self._process.get()
        with process.lock:
            job = process.jobs.setdefault(key, _Job(work))
            job.waiting += 1
            _start_jobs(process)
        try:
            job.done.result(seconds)
        except TimeoutError:
            raise ServerUnavailable(
                "The server has not answered in time whether the session is still valid."
            ) from None
        finally:
            with process.lock:
                job.waiting -= 1
                if not job.waiting and not job.is_running and process.jobs.get(key) is job:
                    del process.jobs[key]


def _start_jobs(process: _Process) -> None:
    """Start as many jobs as there are free threads. The caller has the lock."""
    free = MAX_JOBS - sum(job.is_running for job in process.jobs.values())
    waiting = [(key, job) for key, job in process.jobs.items() if not job.is_running]
    for key, job in waiting[:free]:
        job.is_running = True
        try:
            process.threads.submit(_run, process, key, job)
        except RuntimeError:
            # The interpreter is shutting down, or the system has no thread left.
            del process.jobs[key]
            job.done.set_exception(ServerUnavailable("This process cannot start another thread."))


def _run(process: _Process, key: str, job: _Job) -> None:
    if job.done.done():
        # The executor had queued it, although it could not start a thread for it.
        return
    failure: Exception | None = None
    try:
        job.work(lambda: job.waiting > 0)
    except BaseException as error:  # noqa: BLE001 - nobody else would hear of it
        failure = _failure(error)
    with process.lock:
        del process.jobs[key]
        _start_jobs(process)
    if failure is None:
        job.done.set_result(None)
    else:
        job.done.set_exception(failure)


def _failure(error: BaseException) -> Exception:
    """Return the exception that waiting requests raise for an error of a job.

    The error is logged here, because perhaps no request is waiting.
    """
    if isinstance(error, ServerError | ServerUnavailable):
        # single_flight has already logged it.
        return error
    if isinstance(error, StoreUnavailable):
        log.warning("a session could not be kept up to date: %s", error)
        return error
    log.error("a session could not be kept up to date", exc_info=error)
    return ServerUnavailable("The session could not be kept up to date; the log says why.")
