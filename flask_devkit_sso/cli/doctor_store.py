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
from ..store.base import Store
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
    """Write, read and remove a record, and check who has access to a SQLite file."""
    if isinstance(store, MemoryStore):
        found.warning("store", "in memory, for tests only: it is lost when the process ends")
        return
    key = f"{settings.installation}:probe:{secrets.token_hex(8)}"
    try:
        store.add(key, "probe", expires=time.time() + 60)
        row = store.read(key)
        removed = store.remove(key)
    except StoreUnavailable as error:
        fix = f"Check {PREFIX}STORE_URL (host, password, number) and the log of that Redis"
        if isinstance(store, SQLiteStore):
            fix = (
                "Check the free space on the disk, the permissions of the file and its folder, and "
                "which user runs this command"
            )
        found.error("store", error.text.rstrip("."), error.fix or fix)
        return
    if row is None or (row.data, removed) != ("probe", "probe"):
        found.error("store", "does not return what was written", "Compare the clocks of all hosts")
        return
    if isinstance(store, SQLiteStore):
        found.ok("store", f"{store.path} is readable and writable")
        _check_mode(found, store.path, "change sessions", "read who is signed in")
        _check_mode(found, store.path.parent, "change sessions")
    else:
        found.ok("store", "Redis is readable and writable")


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
