"""A real PostgreSQL server from Debian's package that a test can stop, kill and restart."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psycopg
import trustme

from .processes import free_port


def _programs() -> Path:
    """Return the folder of the newest version that Debian has installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: path.parts)
    assert found, "Debian's package postgresql is not installed"
    return found[-1].parent


def unprivileged() -> list[str]:
    """Return a command prefix: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return []
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]


class PostgreSQLServer:
    """One server on loopback, which supports TLS.

    :param settings: lines of its configuration file.
    :ivar url: of a database whose owner is the user in it.
    :ivar authority: the path of its certificate's CA.
    """

    def __init__(self, **settings: str) -> None:
        # Another user cannot enter pytest's folders.
        self.folder = Path(tempfile.mkdtemp(prefix="devkit-sso-postgresql-"))
        self.data = self.folder / "data"
        self.port = free_port()
        self.password = f"canary-postgresql-{secrets.token_hex(8)}"
        self.url = f"postgresql://sso:{self.password}@127.0.0.1:{self.port}/sso"
        self.authority = self.folder / "ca.pem"
        self.process: subprocess.Popen[bytes] | None = None
        self._write_certificate()
        password_file = self.folder / "password"
        password_file.write_text(self.password)
        self._give_to_postgres()
        options = ["-U", "admin", "-A", "scram-sha-256", f"--pwfile={password_file}"]
        options += ["-E", "UTF8", "--locale=C", "--no-sync"]
        self._run("initdb", "-D", str(self.data), *options)
        self._settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(self.folder),
            "ssl": "on",
            "ssl_cert_file": str(self.folder / "cert.pem"),
            "ssl_key_file": str(self.folder / "key.pem"),
        } | settings
        self.start()
        self.admin(f"CREATE ROLE sso LOGIN PASSWORD '{self.password}'")
        self.admin("CREATE DATABASE sso OWNER sso")

    def _write_certificate(self) -> None:
        authority = trustme.CA()
        certificate = authority.issue_cert("localhost", "127.0.0.1")
        authority.cert_pem.write_to_path(str(self.authority))
        certificate.cert_chain_pems[0].write_to_path(str(self.folder / "cert.pem"))
        key = self.folder / "key.pem"
        certificate.private_key_pem.write_to_path(str(key))
        key.chmod(0o600)

    def _give_to_postgres(self) -> None:
        if os.geteuid() == 0:
            user = pwd.getpwnam("postgres")
            for path in (self.folder, *self.folder.iterdir()):
                os.chown(path, user.pw_uid, user.pw_gid)

    def _run(self, program: str, *arguments: str) -> None:
        command = [*unprivileged(), str(_programs() / program), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, cwd="/", check=False)
        assert done.returncode == 0, done.stderr

    def start(self, *, wait: bool = True, **more: str) -> None:
        options = [f"-c{name}={value}" for name, value in (self._settings | more).items()]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*unprivileged(), str(_programs() / "postgres"), "-D", str(self.data), *options],
                stdout=log,
                stderr=log,
                cwd="/",
            )
        if wait:
            self.wait()

    def wait(self) -> None:
        """Wait until the server accepts connections."""
        until = time.monotonic() + 60
        while True:
            try:
                self.admin("SELECT 1")
                return
            except psycopg.OperationalError:
                assert self.process is not None
                assert self.process.poll() is None, "postgres ended"
                assert time.monotonic() < until, "postgres does not respond"
                time.sleep(0.02)

    @property
    def process_id(self) -> int:
        assert self.process is not None
        return self.process.pid

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """End the server: SIGINT disconnects everybody, SIGQUIT is like a crash."""
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(60)
            self.process = None

    def restart(self, how: signal.Signals = signal.SIGINT) -> None:
        self.stop(how)
        self.start()

    def remove(self) -> None:
        """Stop the server and delete its data."""
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.folder, ignore_errors=True)

    def connect(self, database: str = "postgres") -> psycopg.Connection[Any]:
        """Return a superuser's connection, which the test must close."""
        url = f"postgresql://admin:{self.password}@127.0.0.1:{self.port}/{database}"
        return psycopg.connect(url, autocommit=True, connect_timeout=10)

    def admin(
        self, statement: str, values: Mapping[str, Any] | None = None, *, database: str = "postgres"
    ) -> list[Any]:
        """Carry out a statement as a superuser, and return its rows."""
        with self.connect(database) as connection:
            cursor = connection.execute(statement, values)
            return cursor.fetchall() if cursor.description else []

    def in_store(self, statement: str) -> list[Any]:
        """The same in the database of the store."""
        return self.admin(statement, database="sso")

    def disconnect(self) -> int:
        """End all connections of the store, and return how many there were."""
        rows = self.admin(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'sso'"
        )
        return len(rows)
