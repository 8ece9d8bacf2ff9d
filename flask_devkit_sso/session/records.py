"""What modules that parse the store's records share.

A record that cannot be parsed counts as missing. During an upgrade, workers of two versions share
the records: each ignores the fields that only the other one knows, and keeps them when it writes
the record again.
"""

from __future__ import annotations

import json
import math
from dataclasses import fields
from typing import Any, Final

from ..protocol.contract import Tokens, UserInfo

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


def parse_tokens(data: Any) -> Tokens:
    """Return the tokens that a part of a record describes.

    :raises LookupError, TypeError: if it does not describe tokens.
    """
    return Tokens(**{field.name: data[field.name] for field in fields(Tokens)})


def serialize(values: dict[str, object], *, previous: str = "") -> str:
    """Return the text of a record.

    :param previous: the record that it replaces, whose other fields stay.
    """
    unknown: dict[str, object] = json.loads(previous) if previous else {}
    return json.dumps(unknown | values)


def parse_time(value: Any) -> float:
    """Return a time of a record, in Unix seconds.

    :raises TypeError, ValueError: if it is not a finite number. No comparison with NaN is true, so
        it would never expire.
    """
    if isinstance(value, str) or not math.isfinite(value):
        raise ValueError("not a time")
    return float(value)
