"""The checks of ``doctor`` on the store, and on other users' access to files."""

from __future__ import annotations

import os
import secrets
import stat
import time
from contextlib import suppress
from pathlib import Path

from flask import Flask

from ..config.credentials import is_read_only
from ..config.loading import LoadedSettings
from ..config.settings import PREFIX, Settings
from ..errors import ConfigError, StoreUnavailable
from ..store.base import Row, Store
from ..store.open import open_store
from ..store.sqlite import MemoryStore, SQLiteStore
from .findings import Findings


def find_store(app: Flask, loaded: LoadedSettings) -> Store | None:
    """Return the application's store, or None if the settings do not say which it is.

    It needs no SECRET_KEY.
    """
    # check_settings has reported the error. Do not create the default store instead.
    if any(f"{PREFIX}STORE_URL" in problem.text for problem in loaded.errors):
        return None
    with suppress(ConfigError):
        return open_store(loaded.settings.store_url, app.instance_path)
    return None


def check_store(found: Findings, store: Store, settings: Settings) -> None:
    """Try every operation of the store, and check who has access to it or to what it sends."""
    if isinstance(store, MemoryStore):
        found.warning("store", "in memory, for tests only: it is lost when the process ends")
        return
    name = "Redis"
    if settings.store_url.startswith("postgresql:"):
        name = "PostgreSQL"
        _check_postgresql_tls(found, store)
    try:
        is_right = _try_operations(store, f"{settings.installation}:probe:{secrets.token_hex(8)}")
    except StoreUnavailable as error:
        fix = f"Check {PREFIX}STORE_URL (host, password, number) and the log of that {name}"
        if isinstance(store, SQLiteStore):
            fix = (
                "Check the free space on the disk, the permissions of the file and its folder, and "
                "which user runs this command"
            )
        found.error("store", error.text.rstrip("."), error.fix or fix)
        return
    if not is_right:
        found.error("store", "does not return what was written", "Compare the clocks of all hosts")
    elif isinstance(store, SQLiteStore):
        found.ok("store", f"{store.path} is readable and writable")
        _check_mode(found, store.path, "change sessions", "read who is signed in")
        _check_mode(found, store.path.parent, "change sessions")
    else:
        found.ok("store", f"{name} is readable and writable")


def _try_operations(store: Store, key: str) -> bool:
    """Do what logins, requests, logouts and commands do, and return whether the results are
    right."""
    owner, now = f"{key}:owner", time.time()
    store.add(key, "probe", expires=now + 60, owner=owner)
    store.touch(key, used=now + 1, expires=now + 61)
    results: list[object] = [
        store.update(key, "changed", expected="probe"),
        store.read(key),
        store.of_owner(owner),
        store.below(key),
        store.remove(key, data="changed", lasting=True),
        store.add(key, "probe", expires=now + 60, owner=owner),
        store.remove_owner(owner),
    ]
    row = Row("changed", now + 1)
    return results == [True, row, {key: row}, {key: row}, "changed", True, ["probe"]]


def _check_postgresql_tls(found: Findings, store: Store) -> None:
    """Check whether PostgreSQL on another host has to prove who it is."""
    # psycopg is installed only if the store is PostgreSQL.
    from ..store.postgresql import PostgreSQLStore

    if isinstance(store, PostgreSQLStore) and (hosts := store.connections.unverified_hosts()):
        found.error(
            "store",
            f"anybody in between can pretend to be {' or '.join(hosts)} and read the password",
            f"Add ?sslmode=verify-full&sslrootcert=/path/of/ca.pem to {PREFIX}STORE_URL",
        )


def check_credentials_folder(found: Findings, loaded: LoadedSettings, store: Store | None) -> None:
    """Check who can replace the credentials file or the one with the client secret."""
    checked = store.path.parent if isinstance(store, SQLiteStore) else None
    for name, path in find_credentials_files(loaded).items():
        if path.parent != checked:
            _check_mode(found, path.parent, f"replace the {name}")
            checked = path.parent


def find_credentials_files(loaded: LoadedSettings) -> dict[str, Path]:
    """Return the paths of the credentials file and of the one with the client secret, by their
    names here. Those that do not exist are left out, and all if the settings have errors, which may
    be about a file."""
    paths = {"credentials file": loaded.credentials_path, "client secret file": loaded.secret_path}
    is_valid = not loaded.errors
    return {name: path for name, path in paths.items() if is_valid and path and path.is_file()}


def format_mode(mode: int) -> str:
    return f"{stat.S_IMODE(mode):04o}"


def _check_mode(found: Findings, path: Path, writers: str, readers: str = "") -> None:
    """Check which other users may write to a path or read it.

    :param writers: what users who may write to it can do.
    :param readers: what users who may read it can do, or "" if reading it is harmless.
    """
    # Windows has no permission bits for the group and others.
    if os.name != "posix":
        return
    subject, mode = f"mode of {path}", path.stat().st_mode
    # On a read-only mount, nobody can write to it, and the mode cannot be changed.
    writable = 0 if is_read_only(path) else mode & (stat.S_IWGRP | stat.S_IWOTH)
    if writable & stat.S_IWOTH and not mode & stat.S_ISVTX:
        found.error(
            subject,
            f"{format_mode(mode)}: every user can {writers}",
            "Remove that permission (chmod o-w)",
        )
    elif writable:
        found.warning(
            subject,
            f"{format_mode(mode)}: other users can {writers}",
            "Remove that permission (chmod go-w)",
        )
    elif readers and mode & (stat.S_IRGRP | stat.S_IROTH):
        found.warning(
            subject,
            f"{format_mode(mode)}: other users can {readers}",
            "Remove that permission (chmod go-r)",
        )
    else:
        found.ok(subject, format_mode(mode))
