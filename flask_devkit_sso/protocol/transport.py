"""HTTPS requests to the authentication server, each with one deadline for the whole call.

urllib3 sends the request in a thread of a small pool, and the caller waits no longer than the
deadline, because socket timeouts cover neither name resolution nor a response that arrives byte by
byte. Each interface has its own threads and its own bulkhead, so that one that hangs does not keep
callers from another.
"""

from __future__ import annotations

import math
import ssl
import time
import traceback
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

import urllib3
from urllib3.exceptions import HTTPError

from ..bulkhead import Bulkhead, Pace, Place
from ..errors import ServerError, ServerUnavailable
from ..per_process import PerProcess
from .connections import Call, create_pool
from .contract import RawResponse
from .framing import InvalidFraming

MAX_BODY: Final = 1024 * 1024
"""Maximum size of a response's body after decompression, in bytes."""

MAX_CALLS: Final = 16
"""Maximum number of calls to one interface in progress in one process. Further calls wait."""

CALLS_PER_SECOND: Final = 32
"""How many calls a process can make to one interface in each second before they have to wait. If
responses take longer than half a second, it is fewer."""

PAUSE: Final = 5.0
"""Seconds until a process calls an interface again that did not respond several times."""

_LATE: Final = 0.5
"""A thread that wakes up more than this many seconds after its deadline was paused. It then waits
as long for the thread that reads the response."""

_USER_AGENT: Final = {"User-Agent": "flask-devkit-sso"}
_HEADERS: Final = {
    "Accept": "application/json",
    "Content-Type": "application/json",
    **_USER_AGENT,
}

_WITHOUT_BODY: Final = (101, 204, 205, 304)

_NAME_MISMATCH: Final = (62, 64)
"""OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH."""

_RETRY_ONCE: Final = urllib3.Retry(
    total=1, connect=0, redirect=0, status=0, allowed_methods=None, respect_retry_after_header=False
)


def tls_context(ca_bundle: str | None) -> ssl.SSLContext:
    """Return a TLS context that trusts the CAs in a PEM file, or those of the system for None.

    A certificate must name its host as a subjectAltName (RFC 9525 section 2).
    """
    context = ssl.create_default_context(cafile=ca_bundle)
    context.hostname_checks_common_name = False
    return context


class _Interface(NamedTuple):
    threads: ThreadPoolExecutor
    bulkhead: Bulkhead


class _Process(NamedTuple):
    pool: urllib3.PoolManager
    pace: Pace
    interfaces: dict[str, _Interface]


class Transport:
    """Sends requests to the authentication server, over a pool of connections in each process.

    It ignores proxies in the environment and ``.netrc``, and follows no redirect.

    :param ca_bundle: path of a PEM file that replaces the system's CAs, or None.
    :param timeout: seconds for one whole call, from the resolver to the last byte.
    """

    def __init__(self, *, ca_bundle: str | None, timeout: float) -> None:
        self._ca_bundle = ca_bundle
        self._timeout = timeout
        self._process = PerProcess(self._create_process)

    def post(
        self,
        url: str,
        body: bytes,
        *,
        repeatable: bool = False,
        background: bool = False,
        place: Place | None = None,
        deadline: float = math.inf,
    ) -> RawResponse:
        """Send a JSON body and return the response, whatever its status.

        :param repeatable: whether to send the request once more if the connection breaks without a
            response. Do not set it for a request that uses something up, such as an authorization
            code.
        :param background: whether nobody is waiting for the response, so that other calls go first.
        :param place: what :meth:`reserve` returned, if it was called.
        :param deadline: when the call has to end, as ``time.monotonic`` counts, if it is earlier
            than the timeout. Nothing is sent after it.
        :raises ServerUnavailable: if there is no complete response within the deadline, or if the
            interface does not respond to earlier calls.
        :raises ServerError: if the response is larger than 1 MiB.
        """
        if place is not None:
            return self._send(place, url, body, repeatable=repeatable)
        wait = deadline - time.monotonic()
        with self._interface(url).bulkhead.enter(background=background, wait=wait) as place:
            place.deadline = min(place.deadline, deadline)
            return self._send(place, url, body, repeatable=repeatable)

    def get(self, url: str) -> RawResponse:
        """Request a page as a browser without cookies does.

        :raises ServerError, ServerUnavailable: as :meth:`post`.
        """
        with self._interface(url).bulkhead.enter() as place:
            return self._send(place, url, None, repeatable=True)

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

    def _send(self, place: Place, url: str, body: bytes | None, *, repeatable: bool) -> RawResponse:
        pool = self._process.get().pool
        threads, _ = self._interface(url)
        call = Call(place.deadline)
        # What was done since the place was reserved says nothing about the server.
        place.started = time.monotonic()
        if place.started >= place.deadline:
            raise ServerUnavailable("No time is left for the call to the server.")
        try:
            future = threads.submit(_request, call, pool, url, body, repeatable=repeatable)
            place.answered = False
            response = _result(future, place.deadline)
        except ServerError:
            place.answered = True
            raise
        except RuntimeError:
            # The pool may have queued the call all the same.
            call.give_up()
            raise ServerUnavailable(
                "No thread can be started for the call, or this process is shutting down."
            ) from None
        except TimeoutError:
            call.give_up()
            raise ServerUnavailable(
                f"The server did not respond completely within {self._timeout:g} seconds."
            ) from None
        except BaseException:
            # Something like a timeout of gevent may have interrupted this thread, and nobody would
            # end the call at its deadline.
            call.give_up()
            raise
        place.answered = True
        return response

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

    def _create_process(self) -> _Process:
        try:
            # The file was readable when the application started, but this is the first call.
            context = tls_context(self._ca_bundle)
        except OSError as error:
            name = "DEVKIT_SSO_CA_BUNDLE" if self._ca_bundle else "The system's CA certificates"
            raise ServerUnavailable(
                f"{name} cannot be read ({type(error).__name__}). The next call tries again."
            ) from None
        return _Process(create_pool(context, MAX_CALLS), Pace(), {})


def _result(future: Future[RawResponse], deadline: float) -> RawResponse:
    """Wait for a call until its deadline.

    If this process was paused, as a virtual machine is when it moves, the response may have arrived
    by then, and what it contains can often not be requested again: new tokens, for instance.
    """
    with suppress(TimeoutError):
        return future.result(deadline - time.monotonic())
    was_paused = time.monotonic() - deadline > _LATE
    return future.result(_LATE if was_paused else 0)


def _request(
    call: Call, pool: urllib3.PoolManager, url: str, body: bytes | None, *, repeatable: bool
) -> RawResponse:
    """Send a POST, or a GET without a body, and read the response."""
    time_left = call.start()
    try:
        response = pool.request(
            "GET" if body is None else "POST",
            url,
            body=body,
            headers=_USER_AGENT if body is None else _HEADERS,
            timeout=urllib3.Timeout(total=time_left),
            retries=_RETRY_ONCE if repeatable else False,
            # Following a redirect could send a secret to another host.
            redirect=False,
            preload_content=False,
        )
        if response.status in _WITHOUT_BODY:
            # If the server sends a body anyway, the next call must not read it.
            response.close()
        content = _read(response)
        return RawResponse(response.status, content, response.headers, url.partition("?")[0])
    except HTTPError as error:
        # Do not chain the exception, because it may quote what the server sent.
        raise ServerUnavailable(_explain(error, url)) from None
    except (ServerError, ServerUnavailable):
        raise
    except Exception as error:  # noqa: BLE001 - reported by its type and place
        raise unexpected(error) from None
    finally:
        call.stop()


def _read(response: urllib3.BaseHTTPResponse) -> bytes:
    try:
        content = b""
        while chunk := response.read(MAX_BODY + 1 - len(content)):
            content += chunk
            if len(content) > MAX_BODY:
                raise ServerError("The server's response is larger than 1 MiB.")
    except BaseException:
        response.close()
        raise
    finally:
        response.release_conn()
    return content


def unexpected(error: Exception) -> ServerUnavailable:
    """Return what to raise for an error that nobody foresaw.

    It names the error's type and place, because the text may quote what the server sent.
    """
    frames = list(traceback.walk_tb(error.__traceback__))
    frame, line = frames[-1]
    place = f"{Path(frame.f_code.co_filename).name}, line {line}"
    return ServerUnavailable(
        f"A call to the server failed unexpectedly: {type(error).__name__} in {place}."
    )


def _explain(error: HTTPError, url: str) -> str:
    """Describe an error in our own words, because its text may quote what the server sent."""
    if isinstance(error, urllib3.exceptions.MaxRetryError) and isinstance(error.reason, HTTPError):
        error = error.reason
    if error.args and isinstance(error.args[-1], InvalidFraming):
        return f"The server's response has {error.args[-1]}, so it is not valid HTTP."
    match error:
        case urllib3.exceptions.NameResolutionError():
            return "The server's host name is unknown: check DEVKIT_SSO_SERVER_URL."
        case urllib3.exceptions.SSLError():
            cause = error.args[0] if error.args else None
            if isinstance(cause, ssl.SSLCertVerificationError):
                is_for_another = cause.verify_code in _NAME_MISMATCH
                return f"The server's certificate is not accepted ({cause.verify_message}): " + (
                    "its subjectAltName must contain the host of the URL. A common name is not "
                    "enough."
                    if is_for_another
                    else "for a private CA, set DEVKIT_SSO_CA_BUNDLE to its PEM file."
                )
            return "The TLS handshake with the server failed: does it use https on this port?"
        case urllib3.exceptions.NewConnectionError() | urllib3.exceptions.ConnectTimeoutError():
            return "Cannot connect to the server: check DEVKIT_SSO_SERVER_URL, port and firewall."
        case urllib3.exceptions.TimeoutError():
            return "The server did not respond in time."
        case urllib3.exceptions.DecodeError():
            return "The server's response cannot be decompressed."
        case _:
            # Some servers close the connection if the client uses the wrong scheme.
            scheme = url.partition(":")[0]
            return (
                f"The connection to the server broke ({type(error).__name__}): does it use "
                f"{scheme} on this port?"
            )
