"""Python programs that start quickly, as forks of a process that has done the imports.

A new interpreter takes half a second to import Flask and the package, and the tests start hundreds.
Here each pytest worker starts one interpreter, which forks for every program. The program has its
own folder, environment, streams and exit status, like one that ``subprocess`` starts. It inherits
only what an interpreter reads at startup (``PYTHON…`` in the environment, options such as ``-W``).
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import runpy
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).parent.parent
PRELOADED = (
    "flask.cli",
    "flask_devkit_sso",
    "flask_devkit_sso.cli.check_server",
    "flask_devkit_sso.cli.doctor",
    "flask_devkit_sso.cli.group",
    "flask_devkit_sso.protocol.code_exchange",
    "flask_devkit_sso.protocol.http_call",
    "flask_devkit_sso.sandbox",
    "flask_devkit_sso.session.sealing",
    "gunicorn.app.wsgiapp",
    "gunicorn.workers.gthread",
    "redis",
)


class Program:
    """A running program, with the methods of ``subprocess.Popen`` that the tests use.

    :param arguments: Python's arguments: ``-m`` and a module, or ``-c`` and a program, and more.
    :param streams: file descriptors for standard input, output and errors.
    :param terminal: start a new session whose controlling terminal is standard input.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        streams: tuple[int, int, int],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        terminal: bool = False,
    ) -> None:
        request = {
            "arguments": list(arguments),
            "cwd": str(cwd or Path.cwd()),
            "env": dict(os.environ if env is None else env),
            "terminal": terminal,
        }
        self.returncode: int | None = None
        self._lock = threading.Lock()
        self._connection, theirs = socket.socketpair()
        with theirs:
            _send(_forker(), [*streams, theirs.fileno()])
        self._connection.sendall(json.dumps(request).encode() + b"\n")
        (self.pid,) = struct.unpack("!i", self._receive())

    def _receive(self) -> bytes:
        data = self._connection.recv(4, socket.MSG_WAITALL)
        assert len(data) == 4, "the forking process has ended"
        return data

    def wait(self, timeout: float | None = None) -> int:
        with self._lock:
            if self.returncode is None:
                self._connection.settimeout(timeout)
                (status,) = struct.unpack("!i", self._receive())
                self._connection.close()
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def is_running(self) -> bool:
        try:
            self.wait(0.001)
        except TimeoutError:
            return True
        return False

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def run(
    arguments: Sequence[str],
    *,
    stdin: bytes = b"",
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float = 300,
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, like ``subprocess.run`` with ``capture_output``."""
    with (
        tempfile.TemporaryFile() as given,
        tempfile.TemporaryFile() as stdout,
        tempfile.TemporaryFile() as stderr,
    ):
        given.write(stdin)
        given.seek(0)
        streams = (given.fileno(), stdout.fileno(), stderr.fileno())
        program = Program(arguments, streams, cwd=cwd, env=env)
        try:
            program.wait(timeout)
        finally:
            program.kill()
        texts = [_content(file) for file in (stdout, stderr)]
    assert program.returncode is not None
    return subprocess.CompletedProcess(list(arguments), program.returncode, *texts)


def _content(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode()


@contextmanager
def piped(
    arguments: Sequence[str],
    *,
    stderr: int | None = None,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> Iterator[tuple[Program, IO[str], IO[str]]]:
    """Run a program; yields it, a file for its input and a file with its output.

    :param stderr: the file descriptor for its errors; None sends them to its output.
    """
    their_input, our_output = os.pipe()
    our_input, their_output = os.pipe()
    with (
        os.fdopen(our_output, "w", encoding="utf-8") as write,
        os.fdopen(our_input, encoding="utf-8") as read,
    ):
        try:
            streams = (their_input, their_output, their_output if stderr is None else stderr)
            program = Program(arguments, streams, cwd=cwd, env=env)
        finally:
            os.close(their_input)
            os.close(their_output)
        try:
            yield program, write, read
        finally:
            program.kill()
            program.wait()


# One process that forks, for each process of pytest

_started: dict[int, socket.socket] = {}
_starting = threading.Lock()


def _forker() -> socket.socket:
    with _starting:
        pid = os.getpid()
        if pid not in _started:
            ours, theirs = socket.socketpair()
            with theirs:
                process = subprocess.Popen(
                    [sys.executable, "-m", __name__, str(theirs.fileno())],
                    cwd=ROOT,
                    pass_fds=[theirs.fileno()],
                )
            _started[pid] = ours
            atexit.register(_stop, pid, process)
        return _started[pid]


def _stop(pid: int, process: subprocess.Popen[bytes]) -> None:
    if pid == os.getpid():
        _started[pid].close()
        process.wait()


def _send(connection: socket.socket, descriptors: list[int]) -> None:
    with _starting:
        socket.send_fds(connection, [b"x"], descriptors)


def _serve(connection: socket.socket) -> dict[str, Any]:
    """Fork for each request; return only in the new process, with the program to run."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        data, descriptors, _, _ = socket.recv_fds(connection, 1, 4)
        if not data:
            os._exit(0)
        if os.fork() == 0:
            connection.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            return _watch(descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def _watch(descriptors: list[int]) -> dict[str, Any]:
    """Fork once more and report how that process ends; return only in that process."""
    *streams, report = descriptors
    with socket.socket(fileno=report) as connection, connection.makefile("rb") as requests:
        request: dict[str, Any] = json.loads(requests.readline())
        pid = os.fork()
        if pid != 0:
            for stream in streams:
                os.close(stream)
            connection.sendall(struct.pack("!i", pid))
            _, status = os.waitpid(pid, 0)
            connection.sendall(struct.pack("!i", status))
            os._exit(0)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    return request


def _become(request: dict[str, Any]) -> None:
    """Prepare a program as the interpreter does, and run it."""
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    if request["terminal"]:
        import fcntl
        import termios

        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    # A module that a test rewrites at once may have the same size and time as before.
    sys.dont_write_bytecode = True
    sys.stdin = sys.__stdin__ = os.fdopen(0, closefd=False)  # type: ignore[misc]
    sys.stdout = sys.__stdout__ = os.fdopen(1, "w", closefd=False)  # type: ignore[misc]
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    option, what, *others = request["arguments"]
    sys.argv = [what, *others]
    sys.path[0] = request["cwd"] if option == "-m" else ""
    if option == "-m":
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        sys.argv[0] = "-c"
        exec(what, {"__name__": "__main__"})


if __name__ == "__main__":
    for module in PRELOADED:
        __import__(module)
    assert threading.active_count() == 1
    # Otherwise each program scans all these objects again when it ends.
    gc.collect()
    gc.freeze()
    _become(_serve(socket.socket(fileno=int(sys.argv[1]))))
