"""HTTPS requests to the authentication server, each with one deadline for the whole call.

The caller sends the request over an open connection. If there is none, a thread of a small pool
opens one, and the caller waits no longer than the deadline, because nothing limits the lookup of a
host's name. Each interface has its own threads and its own bulkhead, so that one that hangs does
not keep callers from another.
"""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Final, NamedTuple

from ..bulkhead import Bulkhead, Pace, Place
from ..errors import ServerError, ServerUnavailable
from ..per_process import PerProcess, no_fork
from .connecting import LATE
from .connections import Call
from .contract import RawResponse
from .http_call import Connections
from .trust import Trust

MAX_CALLS: Final = 16
"""Maximum number of calls to one interface in progress in one process. Further calls wait."""

CALLS_PER_SECOND: Final = 32
"""How many calls a process can make to one interface in each second before they have to wait. If
responses take longer than half a second, it is fewer."""

PAUSE: Final = 5.0
"""Seconds until a process calls an interface again that did not respond several times."""


class _Interface(NamedTuple):
    threads: ThreadPoolExecutor
    bulkhead: Bulkhead


class _Process(NamedTuple):
    connections: Connections
    pace: Pace
    interfaces: dict[str, _Interface]


class Transport:
    """Sends requests to the authentication server, over a pool of connections in each process.

    It ignores proxies in the environment and ``.netrc``, and follows no redirect.

    :param trust: which certificates are accepted.
    :param timeout: seconds for one whole call, from the resolver to the last byte.
    """

    def __init__(self, *, trust: Trust, timeout: float) -> None:
        self._timeout = timeout
        # Not a method: in a cycle, connections would stay open until it is collected.
        self._process = PerProcess(partial(_create_process, trust))

    def post(
        self,
        url: str,
        body: bytes,
        *,
        headers: Mapping[str, str] | None = None,
        repeatable: bool = False,
        background: bool = False,
        place: Place | None = None,
        deadline: float = math.inf,
    ) -> RawResponse:
        """Send a JSON body and return the response, whatever its status.

        :param headers: what to send as well as, or instead of, the usual headers.
        :param repeatable: whether to send the request once more if the connection was idle before,
            and breaks before the response is complete. Do not set it for a request that uses
            something up, such as an authorization code.
        :param background: whether nobody is waiting for the response, so that other calls go first.
        :param place: what :meth:`reserve` returned, if it was called.
        :param deadline: when the call has to end, as ``time.monotonic`` counts, if it is earlier
            than the timeout. Nothing is sent after it.
        :raises ServerUnavailable: if there is no complete response within the deadline, or if the
            interface does not respond to earlier calls.
        :raises ServerError: if the response is larger than 1 MiB.
        """
        if place is not None:
            return self._send(place, url, body, headers=headers, repeatable=repeatable)
        bulkhead = self._interface(url).bulkhead
        wait = deadline - time.monotonic()
        with bulkhead.enter(background=background, wait=wait) as place:
            place.deadline = min(place.deadline, deadline)
            return self._send(place, url, body, headers=headers, repeatable=repeatable)

    def get(self, url: str, *, headers: Mapping[str, str] | None = None) -> RawResponse:
        """Request a page as a browser without cookies does.

        :param headers: as for :meth:`post`.
        :raises ServerError, ServerUnavailable: as :meth:`post`.
        """
        with self._interface(url).bulkhead.enter() as place:
            return self._send(place, url, None, headers=headers, repeatable=True)

    def reserve(self, url: str) -> Place:
        """Take a place for a call before something is used up for it, and pass it to :meth:`post`.

        The call's deadline begins now, but waiting for the place takes at most half of the time.

        :return: a context manager, which gives the place back.
        :raises ServerUnavailable: if the interface does not respond to earlier calls, or if there
            are too many of them.
        """
        place = self._interface(url).bulkhead.enter(wait=self._timeout / 2)
        place.answered = None
        return place

    def check(self, *urls: str) -> None:
        """Return unless one of these interfaces does not respond to earlier calls.

        :raises ServerUnavailable: if so.
        """
        for url in urls:
            self._interface(url).bulkhead.check()

    def _send(
        self,
        place: Place,
        url: str,
        body: bytes | None,
        *,
        headers: Mapping[str, str] | None,
        repeatable: bool,
    ) -> RawResponse:
        connections = self._process.get().connections
        call = Call(place.deadline, may_connect=False)
        # What was done since the place was reserved says nothing about the server.
        place.started = time.monotonic()
        if place.started >= place.deadline:
            raise ServerUnavailable("No time is left for the call to the server.")
        was_answered, place.answered = place.answered, False
        try:
            response = None
            if not _is_patched():
                response = connections.send(call, url, body, headers=headers, repeatable=repeatable)
            if response is None:
                place.answered = was_answered
                is_first = not call.was_sent
                response = self._send_in_thread(
                    place, url, body, headers=headers, repeatable=repeatable and is_first
                )
        except ServerError:
            place.answered = True
            raise
        except ServerUnavailable:
            if time.monotonic() >= place.deadline:
                raise self._too_late() from None
            raise
        place.answered = True
        return response

    def _send_in_thread(
        self,
        place: Place,
        url: str,
        body: bytes | None,
        *,
        headers: Mapping[str, str] | None,
        repeatable: bool,
    ) -> RawResponse:
        connections = self._process.get().connections
        call = Call(place.deadline, may_connect=True)
        try:
            future = self._interface(url).threads.submit(
                connections.send, call, url, body, headers=headers, repeatable=repeatable
            )
            place.answered = False
            response = _result(future, place.deadline)
        except RuntimeError:
            # The pool may have queued the call all the same.
            call.give_up()
            raise ServerUnavailable(
                "No thread can be started for the call, or this process is shutting down."
            ) from None
        except TimeoutError:
            call.give_up()
            raise self._too_late() from None
        except BaseException:
            # Something like a timeout of gevent may have interrupted this thread, and nobody would
            # end the call at its deadline.
            call.give_up()
            raise
        assert response is not None  # noqa: S101 - this call may open a connection
        return response

    def _too_late(self) -> ServerUnavailable:
        return ServerUnavailable(
            f"The server did not respond completely within {self._timeout:g} seconds."
        )

    def _interface(self, url: str) -> _Interface:
        interfaces, name = self._process.get().interfaces, url.partition("?")[0]
        try:
            return interfaces[name]
        except KeyError:
            return interfaces.setdefault(name, self._create_interface())

    def _create_interface(self) -> _Interface:
        return _Interface(
            ThreadPoolExecutor(MAX_CALLS, thread_name_prefix="devkit-sso"),
            Bulkhead(
                ServerUnavailable,
                "the server",
                self._process.get().pace,
                timeout=self._timeout,
                most=MAX_CALLS,
                rate=CALLS_PER_SECOND,
                pause=PAUSE,
            ),
        )


def _create_process(trust: Trust) -> _Process:
    # No deadline has begun yet.
    try:
        with no_fork:
            # The file was readable when the application started, but this is the first call.
            connections = Connections(trust, MAX_CALLS)
    except OSError as error:
        is_file = trust.ca_bundle is not None
        name = "DEVKIT_SSO_CA_BUNDLE" if is_file else "The system's CA certificates"
        raise ServerUnavailable(
            f"{name} cannot be read ({type(error).__name__}). The next call tries again."
        ) from None
    return _Process(connections, Pace(), {})


def _is_patched() -> bool:
    """Return whether gevent has replaced sockets. Each packet with a part of a TLS record prolongs
    its timeouts, so another thread has to end the call."""
    return socket.socket.__module__ != "socket"


def _result(future: Future[RawResponse | None], deadline: float) -> RawResponse | None:
    """Wait for a call until its deadline, or longer if the process was paused."""
    with suppress(TimeoutError):
        return future.result(deadline - time.monotonic())
    was_paused = time.monotonic() - deadline > LATE
    return future.result(LATE if was_paused else 0)
