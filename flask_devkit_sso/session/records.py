"""What modules that parse the store's records share. A record that cannot be parsed counts as
missing."""

from __future__ import annotations

import math
from typing import Any, Final

from ..protocol.contract import UserInfo

UNREADABLE: Final = (ValueError, LookupError, TypeError, OverflowError, RecursionError)
"""What parsing a record may raise if another version wrote it, or if it is damaged."""


def parse_user(data: Any) -> UserInfo:
    """Return the user that a part of a record describes.

    :raises LookupError, TypeError: if it does not describe a user.
    """
    user = UserInfo(data["uid"], data["username"], data["role"])
    texts = (user.uid, user.username)
    if not all(isinstance(text, str) for text in texts) or not isinstance(user.role, str | None):
        raise TypeError("not a user")
    return user


def parse_time(value: Any) -> float:
    """Return a time of a record, in Unix seconds.

    :raises TypeError, ValueError: if it is not a finite number. No comparison with NaN is true, so
        it would never expire.
    """
    if isinstance(value, str) or not math.isfinite(value):
        raise ValueError("not a time")
    return float(value)
