"""Three real Sentinels with a primary and two replicas."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import redis

from .processes import free_port
from .redis_server import REDIS_SERVER, RedisServer

SERVICE = "sso"


class Sentinels:
    """Three Sentinels, which have a password of their own, and what they watch.

    :ivar url: of the store.
    """

    PASSWORD = "canary-sentinel-47c1"

    def __init__(self, folder: Path) -> None:
        # A Sentinel chooses the replica with the lowest priority above 0.
        persistence = {"appendonly": True}
        primary = RedisServer(folder / "0", **persistence)  # type: ignore[arg-type]
        self.servers = [primary]
        for number in (1, 2):
            self.servers.append(
                RedisServer(folder / str(number), primary=primary, **persistence)  # type: ignore[arg-type]
            )
        with primary.admin() as admin:
            admin.set("something", "new")
            assert admin.wait(2, 50_000) == 2
        self.ports = [free_port() for _ in range(3)]
        self._processes = [self._start(folder, port, primary) for port in self.ports]
        hosts = ",".join(f"127.0.0.1:{port}" for port in self.ports)
        self.url = (
            f"redis+sentinel://:{primary.password}@{hosts}/{SERVICE}/0"
            f"?sentinel_password={self.PASSWORD}"
        )
        try:
            self._wait()
        except BaseException:
            self.stop()
            raise

    def _start(self, folder: Path, port: int, primary: RedisServer) -> subprocess.Popen[bytes]:
        config = folder / f"sentinel-{port}.conf"
        config.write_text(
            f"bind 127.0.0.1\nport {port}\ndir {folder}\nrequirepass {self.PASSWORD}\n"
            f"sentinel monitor {SERVICE} 127.0.0.1 {primary.port} 2\n"
            f"sentinel auth-pass {SERVICE} {primary.password}\n"
            f"sentinel sentinel-pass {self.PASSWORD}\n"
            f"sentinel down-after-milliseconds {SERVICE} 1000\n"
            f"sentinel failover-timeout {SERVICE} 1500\n"
        )
        command = [REDIS_SERVER, str(config), "--sentinel"]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def _wait(self) -> None:
        """Wait until every Sentinel knows the others and both replicas."""
        until = time.monotonic() + 60
        for port in self.ports:
            while True:
                try:
                    found = self._ask(port, "SENTINEL", "MASTER", SERVICE)
                    if int(found["num-other-sentinels"]) == int(found["num-slaves"]) == 2:
                        break
                except redis.ConnectionError:
                    pass
                assert time.monotonic() < until, "the Sentinels do not find each other"
                time.sleep(0.05)

    def _ask(self, port: int, *command: str) -> dict[str, str]:
        with redis.Redis(port=port, password=self.PASSWORD, decode_responses=True) as sentinel:
            answer: dict[str, str] = sentinel.execute_command(*command)
            return answer

    def primary(self) -> RedisServer:
        """Return the primary that the first Sentinel names."""
        with redis.Redis(port=self.ports[0], password=self.PASSWORD) as sentinel:
            _, port = sentinel.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)
        return next(server for server in self.servers if server.port == int(port))

    def replicas(self) -> list[RedisServer]:
        primary = self.primary()
        return [server for server in self.servers if server is not primary]

    def fail_over(self, how: signal.Signals | None = None) -> RedisServer:
        """Let a replica become the primary, and wait for it. Return the old primary.

        :param how: the signal that ends the old primary; None lets it become a replica.
        """
        old = self.primary()
        if how is None:
            with redis.Redis(port=self.ports[0], password=self.PASSWORD) as sentinel:
                sentinel.execute_command("SENTINEL", "FAILOVER", SERVICE)
        else:
            old.stop(how)
        until = time.monotonic() + 120
        while self.primary() is old:
            assert time.monotonic() < until, "there was no failover"
            time.sleep(0.05)
        return old

    def stop(self) -> None:
        for process in self._processes:
            process.terminate()
            process.wait(60)
        for server in self.servers:
            server.stop(signal.SIGKILL)
