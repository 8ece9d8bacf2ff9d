"""The boundary around every command: whatever happens, it ends with a message and an exit status.

docs/commands.md lists the statuses. A traceback would not help, and it could contain a secret.
"""

from __future__ import annotations

import io
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, NoReturn, TextIO

import click

from .output import PACKAGE, describe, echo, libraries

FAILED: Final = 1
INTERRUPTED: Final = 128 + signal.SIGINT
NO_READER: Final = 141
"""The status of a process that SIGPIPE ends, 128 + 13."""

_TIME_TO_END: Final = 0.25
"""Seconds after SIGINT until the process is ended from outside the main thread."""


class SafeGroup(click.Group):
    """A group of commands that never end in a traceback."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        # This prints --help.
        with _boundary():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        is_watching = False
        try:
            with _boundary():
                is_watching = _watch_interrupts()
                return super().invoke(ctx)
        finally:
            if is_watching:
                # Python's own handler would print a traceback while the interpreter ends.
                signal.signal(signal.SIGINT, lambda *_: None)


@contextmanager
def _boundary() -> Iterator[None]:
    _open_streams()
    try:
        try:
            yield
        except click.exceptions.Exit:
            sys.stdout.flush()
            raise
        sys.stdout.flush()
    except click.exceptions.Exit:
        raise
    except (KeyboardInterrupt, click.Abort) as error:
        # At a prompt, click raises Abort for Ctrl-C and for the end of the input.
        interrupted = KeyboardInterrupt in (type(error), type(error.__context__))
        _end(INTERRUPTED if interrupted else FAILED, "\nAborted!")
    except click.ClickException as error:
        text = io.StringIO()
        error.show(text)
        _end(error.exit_code, text.getvalue().rstrip("\n"))
    except BrokenPipeError:
        _end(NO_READER, "")
    except OSError as error:
        reason = error.strerror or type(error).__name__
        if error.filename is None:
            # Almost always, this is standard output.
            _end(FAILED, f"Error: The command could not write its output, or read: {reason}.")
        _end(FAILED, f"Error: {reason}: {error.filename} ({_describe(error)}).")
    except Exception as error:  # noqa: BLE001
        # Its text may contain a secret.
        _end(FAILED, f"Error: The command failed unexpectedly: {_describe(error)}.")


def _describe(error: Exception) -> str:
    return describe(
        error, lambda file: file.startswith(PACKAGE) or not file.startswith(libraries())
    )


def _open_streams() -> None:
    """Make sure that the standard streams can be used, whoever started the process."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        # It was closed. Opening something also keeps other files from getting its descriptor.
        if getattr(sys, name) is None:
            stream = open(os.devnull, mode, encoding="utf-8")  # noqa: PTH123, SIM115
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            with suppress(io.UnsupportedOperation):
                stream.reconfigure(errors="replace")


def _end(status: int, message: str) -> NoReturn:
    with suppress(OSError, ValueError):
        if message:
            echo(message, error=True)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            # Otherwise the interpreter would try to write the rest at its end, and fail.
            _discard(stream)
    raise click.exceptions.Exit(status)


def _discard(stream: TextIO) -> None:
    """Discard everything that is written to a stream from now on."""
    with suppress(OSError, ValueError):
        descriptor = os.open(os.devnull, os.O_WRONLY)
        os.dup2(descriptor, stream.fileno())
        os.close(descriptor)


def _watch_interrupts() -> bool:
    """Make SIGINT end the process soon, whatever it is waiting for.

    Python raises KeyboardInterrupt only when the main thread runs Python code. While SQLite waits
    for a lock, or while the process waits for its other threads at its end, another thread ends the
    process instead.

    :return: whether this was set up. It is not if the command is only a part of the process, or if
        SIGINT is ignored or has another handler.
    """
    # Test clients replace the stream.
    is_whole_process = sys.stdout is sys.__stdout__
    is_main_thread = threading.current_thread() is threading.main_thread()
    is_default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not (is_whole_process and is_main_thread and is_default):
        return False
    receiving, sending = socket.socketpair()
    sending.setblocking(False)
    signal.set_wakeup_fd(sending.fileno(), warn_on_full_buffer=False)
    sockets = (receiving, sending)
    threading.Thread(target=_end_after_interrupt, args=sockets, daemon=True).start()
    return True


def _end_after_interrupt(receiving: socket.socket, _sending: socket.socket) -> None:
    """Wait for SIGINT, and end the process if it continues to run after that."""
    while receiving.recv(1)[0] != signal.SIGINT:
        pass
    time.sleep(_TIME_TO_END)
    with suppress(OSError):
        os.write(2, b"\n")
    os._exit(INTERRUPTED)
