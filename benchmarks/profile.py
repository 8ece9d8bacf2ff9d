"""Where the time of a guarded request goes.

A timer interrupts the process several thousand times a second, and each time the function that runs
is noted. Unlike a profiler that measures every call, this hardly slows the request down.
"""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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

PARTS: Final = {
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

COOKIE: Final = "Flask's session, which is empty here"
OTHER: Final = "the rest of the extension"
FLASK: Final = "Flask, Werkzeug and the view"

_PACKAGE = str(Path(flask_devkit_sso.__file__).parent) + "/"


def measure(site: Site, seconds: float) -> Report:
    """Return the parts of a guarded request in microseconds, with each store."""
    stores = {"SQLite": devkit_sso.on_sqlite(site), "Redis": devkit_sso.on_redis(site)}
    found = {name: _profile(app, seconds) for name, app in stores.items()}
    parts = [FLASK, COOKIE, *dict.fromkeys(PARTS.values()), OTHER]
    rows = [
        [part, *(f"{found[name][part]:.0f}" for name in stores)]
        for part in parts
        if any(found[name][part] >= 0.5 for name in stores)
    ]
    total = ["**together**", *(f"**{sum(found[name].values()):.0f}**" for name in stores)]
    return Report(
        [
            Table(
                "profile",
                "Where the time of a guarded request goes",
                ["", *(f"µs, {name}" for name in stores)],
                [*rows, total],
            )
        ]
    )


def _profile(app: Flask, seconds: float) -> Counter[str]:
    """Return what each part of a guarded request takes, in microseconds."""
    browser = Browser(app)
    browser.sign_in()
    request = browser.request(PAGE)
    samples: Counter[str] = Counter()

    def note(_: int, frame: FrameType | None) -> None:
        samples[_part(frame)] += 1

    requests = _run(request, seconds)
    whole = seconds / requests * 1e6
    with _interrupted(note):
        _run(request, seconds)
    count = sum(samples.values())
    return Counter({part: number / count * whole for part, number in samples.items()})


def _run(request: Callable[[], object], seconds: float) -> int:
    """Repeat a request for some seconds, and return how often."""
    until, count = time.perf_counter() + seconds, 0
    while time.perf_counter() < until:
        request()
        count += 1
    return count


@contextmanager
def _interrupted(note: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    def interrupt(number: int, frame: FrameType | None) -> None:
        note(number, frame)
        # Only now, so that a busy machine does not interrupt this function.
        signal.setitimer(signal.ITIMER_REAL, INTERVAL)

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, INTERVAL)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _part(frame: FrameType | None) -> str:
    """Return the part of the request that a stack belongs to."""
    modules = set()
    while frame is not None:
        code = frame.f_code
        if code.co_name in ("open_session", "save_session"):
            return COOKIE
        # That of web/verify is around Flask's own.
        if code.co_filename.startswith(_PACKAGE) and code.co_name != "full_dispatch_request":
            modules.add(code.co_filename.removeprefix(_PACKAGE).removesuffix(".py"))
        frame = frame.f_back
    for name, part in PARTS.items():
        if any(f"{module}/".startswith(f"{name}/") for module in modules):
            return part
    return OTHER if modules else FLASK
