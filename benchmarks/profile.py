"""Where the time of a guarded request and of a login goes.

A timer interrupts the process several thousand times a second, and each time the function that runs
is noted. Unlike a profiler that measures every call, this hardly slows the request down.
"""

from __future__ import annotations

import random
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Final

from flask import Flask

import flask_devkit_sso

from .apps import PAGE, Site, devkit_sso
from .browser import Browser
from .report import Report, Table

INTERVAL: Final = 0.0002
"""Seconds between two interruptions."""

GUARDED: Final = {
    "web/flask_session": "looking whether Flask's session belongs to the user",
    "store": "reading the record from the store",
    "bulkhead": "reading the record from the store",
    "session/keys": "verifying our cookie's signature",
    "session": "parsing the record, and checking how old it is",
    "web/headers": "marking the response, so that no cache keeps it",
    "web/request_user": "the guard and `current_user`",
    "web/guard": "the guard and `current_user`",
    "extension": "looking for an authorization response before each request",
}
"""What the modules and folders of the package do. If several of them are on the stack, the first
one here counts."""

LOGIN: Final = {
    "protocol/http_call": "sending the two calls and reading their responses",
    "protocol/transport": "sending the two calls and reading their responses",
    "protocol/connections": "sending the two calls and reading their responses",
    "protocol/framing": "sending the two calls and reading their responses",
    "protocol/code_exchange": "Authlib's OAuth2 client, which exchanges the code",
    "protocol": "validating the two responses",
    "store": "writing that the login was used, and the session",
    "bulkhead": "writing that the login was used, and the session",
    "session/sealing": "encrypting the tokens and the page to return to",
    "session/keys": "verifying and creating signatures",
    "audit": "logging",
    "session": "finding the login, and creating the session's record",
    "web/headers": "marking the response, so that no cache keeps it",
    "web": "the callback's view: cookies, `next`, hooks and signals",
    "extension": "the callback's view: cookies, `next`, hooks and signals",
}
"""The same for the last step of a login."""

WAITING: Final = "waiting for the server's two responses"
COOKIE: Final = "Flask's session, which is empty here"
OTHER: Final = "the rest of the extension"
FLASK: Final = "Flask, Werkzeug and the view"

_AROUND_FLASK = ("full_dispatch_request", "preprocess_request", "process_response")
"""Functions of the package that call Flask's own, which they extend."""

_PACKAGE = str(Path(flask_devkit_sso.__file__).parent) + "/"


def measure(site: Site, seconds: float) -> Report:
    """Return the parts of a guarded request and of a login in microseconds, with each store."""
    stores = {"SQLite": devkit_sso.on_sqlite(site), "Redis": devkit_sso.on_redis(site)}
    pages = {name: _page(app) for name, app in stores.items()}
    logins = {name: partial(start_login, app) for name, app in stores.items()}
    return Report(
        [
            _table("profile", "Where the time of a guarded request goes", GUARDED, pages, seconds),
            _table("profile_login", "Where the time of a login goes", LOGIN, logins, seconds),
        ]
    )


def _page(app: Flask) -> Callable[[], Callable[[], object]]:
    """Return a function that returns a request to the guarded page."""
    browser = Browser(app)
    browser.sign_in()
    request = browser.request(PAGE)
    return lambda: request


def start_login(app: Flask) -> Callable[[], object]:
    """Start a login in a new browser, and return the request that completes it."""
    complete = Browser(app).start_login("ada")
    assert complete is not None
    return complete


def _table(
    name: str,
    title: str,
    parts: Mapping[str, str],
    stores: Mapping[str, Callable[[], Callable[[], object]]],
    seconds: float,
) -> Table:
    found = {store: _profile(prepare, parts, seconds) for store, prepare in stores.items()}
    rows = [
        [part, *(f"{found[store][part]:.0f}" for store in stores)]
        for part in [FLASK, COOKIE, WAITING, *dict.fromkeys(parts.values()), OTHER]
        if any(found[store][part] >= 0.5 for store in stores)
    ]
    total = ["**together**", *(f"**{sum(found[store].values()):.0f}**" for store in stores)]
    return Table(name, title, ["", *(f"µs, {store}" for store in stores)], [*rows, total])


def _profile(
    prepare: Callable[[], Callable[[], object]], parts: Mapping[str, str], seconds: float
) -> Counter[str]:
    """Return what each part of a request takes, in microseconds.

    :param prepare: returns a request, and is not measured.
    :param parts: what the modules and folders of the package do.
    """
    samples: Counter[str] = Counter()

    def note(_: int, frame: FrameType | None) -> None:
        samples[_part(frame, parts)] += 1

    whole = _run(prepare, seconds, nullcontext) * 1e6
    _run(prepare, seconds, lambda: _interrupted(note))
    count = sum(samples.values())
    return Counter({part: number / count * whole for part, number in samples.items()})


def _run(
    prepare: Callable[[], Callable[[], object]],
    seconds: float,
    around: Callable[[], AbstractContextManager[None]],
) -> float:
    """Make requests for some seconds, and return how many seconds each took on average."""
    took, count = 0.0, 0
    while took < seconds:
        request = prepare()
        with around():
            started = time.perf_counter()
            request()
            took += time.perf_counter() - started
        count += 1
    return took / count


@contextmanager
def _interrupted(note: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    is_over = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        note(number, frame)
        # Only now, so that a busy machine does not interrupt this function. Python may call it
        # after the timer has been stopped.
        if not is_over:
            signal.setitimer(signal.ITIMER_REAL, INTERVAL)

    before = signal.signal(signal.SIGALRM, interrupt)
    # Not always at the same point of a request.
    signal.setitimer(signal.ITIMER_REAL, INTERVAL * (1 - random.random()))  # noqa: S311
    try:
        yield
    finally:
        is_over = True
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _part(frame: FrameType | None, parts: Mapping[str, str]) -> str:
    """Return the part of the request that a stack belongs to."""
    modules = set()
    if frame is not None and frame.f_code.co_filename == socket.__file__:
        return WAITING
    while frame is not None:
        code = frame.f_code
        if code.co_name in ("_open_session", "open_session", "save_session"):
            return COOKIE
        if code.co_filename.startswith(_PACKAGE) and code.co_name not in _AROUND_FLASK:
            modules.add(code.co_filename.removeprefix(_PACKAGE).removesuffix(".py"))
        frame = frame.f_back
    for name, part in parts.items():
        if any(f"{module}/".startswith(f"{name}/") for module in modules):
            return part
    return OTHER if modules else FLASK
