"""Opens the store that a ``DEVKIT_SSO_STORE_URL`` names."""

from __future__ import annotations

from pathlib import Path

from ..config.values import MEMORY
from ..errors import ConfigError
from .base import Store


def open_store(url: str, folder: str) -> Store:
    """Return the store for a valid URL. It opens files and connections when it is first used.

    :param folder: the folder at which a relative path starts.
    :raises ConfigError: for a Redis URL, if redis-py is not installed or rejects the URL.
    """
    # Import only the module of the store that is used.
    if url == MEMORY:
        from .sqlite import MemoryStore

        return MemoryStore()
    if url.startswith("sqlite:"):
        from .sqlite import SQLiteStore

        return SQLiteStore(Path(folder, url.removeprefix("sqlite:///")))
    try:
        from .redis import RedisStore
    except ModuleNotFoundError as error:
        if error.name != "redis":
            raise
        raise ConfigError(
            "DEVKIT_SSO_STORE_URL needs redis-py: pip install 'flask-devkit-sso[redis]'"
        ) from None
    return RedisStore(url)
