"""A real redis-server that a test can stop, kill and restart."""

from __future__ import annotations

import secrets
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from .processes import free_port

REDIS_SERVER = "/usr/bin/redis-server"


class RedisServer:
    """One redis-server on loopback.

    :param primary: the server whose replica this one is. Both have the same password.
    :param options: lines of its configuration file.
    """

    def __init__(
        self,
        folder: Path,
        *,
        appendonly: bool = False,
        program: str = REDIS_SERVER,
        primary: RedisServer | None = None,
        **options: str,
    ) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.port = free_port()
        self._program = program
        self.password = f"canary-redis-{secrets.token_hex(8)}"
        if primary is not None:
            self.password = primary.password
            options |= {"replicaof": f"127.0.0.1 {primary.port}"}
        self.url = f"redis://:{self.password}@127.0.0.1:{self.port}/0"
        self._options = (
            {
                "bind": "127.0.0.1",
                "port": str(self.port),
                "dir": str(folder),
                "requirepass": self.password,
                "masterauth": self.password,
                "repl-diskless-sync-delay": "0",
                "save": "",
                "appendonly": "yes" if appendonly else "no",
                # With the default, Redis loses its last second when it is killed.
                "appendfsync": "always",
            }
            | ({"enable-debug-command": "yes"} if program == REDIS_SERVER else {})
            | {name.replace("_", "-"): value for name, value in options.items()}
        )
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self, *, wait: bool = True, **more: str) -> None:
        options = self._options | {name.replace("_", "-"): value for name, value in more.items()}
        arguments = [
            text for name, value in options.items() for text in (f"--{name}", *value.split(" "))
        ]
        self.process = subprocess.Popen(
            [self._program, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        if wait:
            self.wait()

    def wait(self) -> None:
        """Wait until the server responds."""
        until = time.monotonic() + 60
        with self.admin() as admin:
            while True:
                try:
                    admin.ping()
                    return
                except redis.exceptions.ConnectionError:
                    assert self.process is not None
                    assert self.process.poll() is None, "redis-server ended"
                    assert time.monotonic() < until, "redis-server does not respond"
                    time.sleep(0.02)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(60)
            self.process = None

    def send_signal(self, what: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(what)

    def restart(self, how: signal.Signals = signal.SIGTERM) -> None:
        self.stop(how)
        self.start()

    def admin(self) -> redis.Redis:
        """Return a client for the test, which must close it."""
        return redis.Redis(
            port=self.port,
            password=self.password,
            decode_responses=True,
            retry=Retry(NoBackoff(), 0),
        )

    def config(self, **values: str) -> None:
        with self.admin() as admin:
            for name, value in values.items():
                admin.config_set(name.replace("_", "-"), value)

    def wait_for_replica(self) -> None:
        """Wait until a replica has everything."""
        with self.admin() as admin:
            admin.set("something", "new")
            assert admin.wait(1, 50_000) >= 1

    def all_keys(self) -> list[str]:
        with self.admin() as admin:
            return sorted(admin.keys())


class Server(Protocol):
    """A server at a port of loopback, and the URL of a store there."""

    port: int
    url: str


class Proxy:
    """A proxy between a store and its server, which can lose a response with its connection.

    It calls ``on_request`` with each request before it passes the request on.
    """

    def __init__(self, server: Server) -> None:
        self._target = server.port
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self.url = server.url.replace(f":{server.port}/", f":{self.port}/")
        self.lose = threading.Event()
        self.lost = 0
        self.on_request: Callable[[bytes], None] = lambda request: None
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._target))
            threading.Thread(target=self._pump, args=(near, far, False), daemon=True).start()
            threading.Thread(target=self._pump, args=(far, near, True), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, answers: bool) -> None:
        with suppress(OSError):
            while chunk := source.recv(65536):
                if answers and self.lose.is_set():
                    self.lose.clear()
                    self.lost += 1
                    break
                if not answers:
                    self.on_request(chunk)
                sink.sendall(chunk)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        # The other thread closes the other socket.
        source.close()

    def switch(self, server: Server) -> None:
        """Let new connections lead to another server. The present ones remain."""
        self._target = server.port

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
