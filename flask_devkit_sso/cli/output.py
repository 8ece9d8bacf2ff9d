"""Prints text so that nothing in it controls the terminal, and describes exceptions."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Final

import click

PACKAGE: Final = str(Path(__file__).parent.parent)
"""The folder of this package."""


def echo(text: str = "", *, error: bool = False) -> None:
    """Print a line to standard output or, if ``error``, to standard error.

    :raises OSError: if it cannot be written.
    """
    encoding = (sys.stderr if error else sys.stdout).encoding or "utf-8"
    # To a stream in ASCII, click would write UTF-8.
    click.echo(printable(text).encode(encoding, "replace").decode(encoding), err=error)


def printable(text: str) -> str:
    """Replace characters that are invisible or could control the terminal, except line breaks."""
    return "".join(char if char.isprintable() or char == "\n" else "\ufffd" for char in text)


@cache
def libraries() -> tuple[str, ...]:
    """Return the beginnings of the paths of Python's own files and of installed packages, which may
    include this package."""
    # Only an unexpected failure needs the paths, and sysconfig takes long to import.
    import sysconfig

    return (*map(sysconfig.get_path, ("stdlib", "purelib", "platlib")), "<")


def describe(error: BaseException, is_relevant: Callable[[str], bool]) -> str:
    """Return the type and place of an exception, but not its text, which may contain a secret.

    :param is_relevant: returns whether a file may be named as the place. If none may, the place is
        where the exception was raised.
    """
    frames = traceback.extract_tb(error.__traceback__)
    relevant = [frame for frame in frames if is_relevant(frame.filename)]
    frame = (relevant or frames)[-1]
    kind = type(error).__name__
    if isinstance(error, ImportError) and error.name:
        kind += f" ({error.name})"
    return f"{kind} in {frame.filename}, line {frame.lineno}, in {frame.name}"
