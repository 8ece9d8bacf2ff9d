"""The checks of ``doctor`` on the store, and on other users' access to files."""

from __future__ import annotations

import os
import re
import secrets
import stat
import time
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

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
    key = f"{settings.installation}:probe:{secrets.token_hex(8)}"
    if isinstance(store, SQLiteStore):
        _check_sqlite(found, store, key)
        return
    name = "Redis"
    if settings.store_url.startswith("postgresql:"):
        name = "PostgreSQL"
        _check_postgresql_tls(found, store)
    fix = f"Check {PREFIX}STORE_URL (host, password, number) and the log of that {name}"
    if _works(found, store, key, fix):
        found.ok("store", f"{name} is readable and writable")
        if name == "Redis":
            _check_eviction(found, store)


def _check_sqlite(found: Findings, store: SQLiteStore, key: str) -> None:
    """Try the store in its file or, if there is none yet, in a file that is removed again.

    Only the application creates its file: another user's file would be unusable for it.
    """
    fix = (
        "Check the free space on the disk, the permissions of the file and its folder, and which "
        "user runs this command"
    )
    file = Path(os.path.realpath(store.path))
    folder = next(folder for folder in file.parents if os.path.lexists(folder))
    # Unlike Path.exists, this raises nothing.
    exists = os.access(file, os.F_OK)
    if not os.access(folder, os.W_OK | os.X_OK):
        found.error(
            "store",
            f"this user may not write to the folder {folder}, so SQLite cannot "
            f"{'use' if exists else 'create'} {store.path}",
            "Run this command as the user that the application runs as. If it is that user, give "
            f"it the permission, or set {PREFIX}STORE_URL to a file in another folder",
        )
    elif exists or not folder.is_dir():
        if _works(found, store, key, fix):
            found.ok("store", f"{store.path} is readable and writable")
            _check_mode(found, store.path, "change sessions", "read who is signed in")
            _check_mode(found, store.path.parent, "change sessions")
    elif _can_create(found, store, folder, key, fix):
        found.ok("store", f"{store.path} does not exist yet, and can be created")
        if folder == file.parent:
            _check_mode(found, store.path.parent, "change sessions")


def _can_create(found: Findings, store: SQLiteStore, folder: Path, key: str, fix: str) -> bool:
    """Return whether a store works in a folder, and leave nothing behind. If not, print why."""
    try:
        temporary = TemporaryDirectory(
            prefix=".devkit-sso-doctor-", dir=folder, ignore_cleanup_errors=True
        )
    except OSError as error:
        found.error("store", f"nothing can be created in {folder}: {error.strerror}", fix)
        return False
    with temporary as path:
        return _works(found, SQLiteStore(Path(path, "probe.db")), key, fix, shown=store.path)


def _works(found: Findings, store: Store, key: str, fix: str, *, shown: Path | None = None) -> bool:
    """Return whether all operations of a store work. If not, print why.

    :param fix: how to fix a failure whose cause is unknown.
    :param shown: the path to print instead of the store's own.
    """
    try:
        is_right = _try_operations(store, key)
    except StoreUnavailable as error:
        text = error.text.rstrip(".")
        if shown is not None and isinstance(store, SQLiteStore):
            text = text.replace(str(store.path), str(shown))
        found.error("store", text, error.fix or fix)
        return False
    if not is_right:
        found.error("store", "does not return what was written", "Compare the clocks of all hosts")
    return is_right


def _check_eviction(found: Findings, store: Store) -> None:
    """Check whether Redis may delete valid records when its memory is full."""
    # redis-py is installed only if the store is Redis.
    from ..store.redis import RedisStore

    policy = store.eviction_policy() if isinstance(store, RedisStore) else None
    if policy == "noeviction":
        found.ok("maxmemory-policy", "noeviction, so Redis deletes no valid session")
    elif policy is None:
        found.note(
            "maxmemory-policy",
            "cannot tell, because Redis does not show it to this user (INFO). It has to be "
            "noeviction",
        )
    else:
        name = policy if re.fullmatch("(allkeys|volatile)-[a-z]{3,6}", policy) else "another"
        found.warning(
            "maxmemory-policy",
            f"{name}: if its memory is full, Redis deletes valid sessions, and `end_sessions` may "
            "miss some",
            "Set maxmemory-policy to noeviction",
        )


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
