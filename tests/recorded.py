"""What an error tracker records about an exception: the local variables of every frame.

Like Sentry's SDK, it takes strings as they are, walks through containers, and calls ``repr`` on
everything else.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any

PACKAGE = "flask_devkit_sso"


def recorded(error: BaseException) -> Iterator[tuple[bool, str]]:
    """Yield each recorded text, and whether it is from a frame outside the package.

    The WSGI environment, with the cookies, is a local variable in frames of Flask.
    """
    errors, seen = [error], set()
    while errors:
        current = errors.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        yield False, f"{current} {current!r} {current.args!r}"
        summary = traceback.TracebackException.from_exception(current, capture_locals=True)
        for frame in summary.stack:
            yield PACKAGE not in frame.filename, repr(frame.locals)
        for is_foreign, values in _frames(current.__traceback__):
            yield from ((is_foreign, text) for text in _walk(values))
        errors += filter(None, (current.__cause__, current.__context__))


def _frames(tb: TracebackType | None) -> Iterator[tuple[bool, dict[str, Any]]]:
    for frame, _ in traceback.walk_tb(tb):
        yield PACKAGE not in frame.f_code.co_filename, dict(frame.f_locals)


def _walk(value: Any, depth: int = 0) -> Iterator[str]:
    if depth > 5:
        return
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from (*_walk(name, depth + 1), *_walk(item, depth + 1))
    elif isinstance(value, list | tuple | set | frozenset):
        for item in value:
            yield from _walk(item, depth + 1)
    else:
        yield repr(value)
        if type(value).__module__.startswith(PACKAGE) and hasattr(value, "__dict__"):
            # It may contain a secret that its repr hides, but no other object in it may show one.
            plain = str, bytes, list
            yield from (repr(item) for item in vars(value).values() if not isinstance(item, plain))
