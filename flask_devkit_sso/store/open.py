"""Opens the store that a ``DEVKIT_SSO_STORE_URL`` names."""

from __future__ import annotations

from pathlib import Path

from ..config.values import MEMORY
from ..errors import ConfigError
from .base import Store


def open_store(url: str, folder: str) -> Store:
    """Return the store for a valid URL. It opens files and connections when it is first used.

    :param folder: the folder at which a relative path starts.
    :raises ConfigError: if the library for this kind of store is not installed or rejects the URL.
    """
    # Import only the module of the store that is used.
    if url == MEMORY:
        from .sqlite import MemoryStore

        return MemoryStore()
    if url.startswith("sqlite:"):
        from .sqlite import SQLiteStore

        return SQLiteStore(Path(folder, url.removeprefix("sqlite:///")))
    is_postgresql = url.startswith("postgresql:")
    try:
        # Each needs a library that is installed only for it.
        if is_postgresql:
            from .postgresql import PostgreSQLStore

            return PostgreSQLStore(url)
        from .redis import RedisStore

        return RedisStore(url)
    except ImportError as error:
        # psycopg raises ImportError if it finds no libpq.
        library, extra = ("psycopg", "postgresql") if is_postgresql else ("redis-py", "redis")
        if error.name not in ("psycopg", "redis", None):
            raise
        raise ConfigError(
            f"DEVKIT_SSO_STORE_URL needs {library}: pip install 'flask-devkit-sso[{extra}]'"
        ) from None
