"""Flask's ``SECRET_KEY`` and ``SECRET_KEY_FALLBACKS``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from ..errors import ConfigError

MIN_LENGTH: Final = 16
"""Minimum length of a key, in bytes."""

CREATE_KEY: Final = "Create one with python -c 'import secrets; print(secrets.token_hex())'"

_PLACEHOLDER: Final = re.compile(
    r"change.?me|replace.?me|your.?secret|secret.?key|placeholder|not.?secret|example|insecure",
    re.IGNORECASE,
)
"""What a key copied from a tutorial often contains."""


def read_secret_keys(config: Mapping[str, Any]) -> list[bytes]:
    """Return ``SECRET_KEY`` followed by ``SECRET_KEY_FALLBACKS``, or nothing without a key.

    :raises ConfigError: if a key is neither str nor bytes, or if the fallbacks are not a list (each
        character of a string would become a key).
    """
    key, fallbacks = config.get("SECRET_KEY"), config.get("SECRET_KEY_FALLBACKS") or []
    if not isinstance(fallbacks, list | tuple):
        raise ConfigError(
            "SECRET_KEY_FALLBACKS must be a list of keys: in the environment as JSON, "
            """FLASK_SECRET_KEY_FALLBACKS='["…"]'"""
        )
    if not key:
        return []
    keys = [key, *fallbacks]
    if not all(isinstance(item, str | bytes) and item for item in keys):
        raise ConfigError("SECRET_KEY and SECRET_KEY_FALLBACKS must be strings or bytes")
    return [item.encode() if isinstance(item, str) else item for item in keys]


def is_weak(secret_key: bytes) -> bool:
    """Return whether a key is too short, or a placeholder from a tutorial."""
    if len(secret_key) < MIN_LENGTH or len(set(secret_key)) < 5:
        return True
    return bool(_PLACEHOLDER.search(secret_key.decode(errors="replace")))
