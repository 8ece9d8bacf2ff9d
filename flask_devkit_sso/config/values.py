"""Parsers for the values of single settings.

Each takes a value from ``app.config`` or the credentials file and returns it as the package uses
it, or None for an empty value. It raises :class:`InvalidValue` for anything else.
"""

from __future__ import annotations

import re
import ssl
from datetime import timedelta
from typing import Final
from urllib.parse import urlsplit

MEMORY: Final = "memory://"
"""The URL of a store in memory, which only debug and testing accept."""


class InvalidValue(ValueError):
    """A value that a parser rejects.

    The text continues a sentence that begins with the setting's name. It never contains a value
    that may be secret.
    """


def text(value: object) -> str | None:
    """Accept a string, or an int as its decimal text (``from_prefixed_env`` parses digits)."""
    if isinstance(value, int) and not isinstance(value, bool):
        # Python refuses to convert an int of some thousand digits to text.
        if abs(value) >= 10**100:
            raise InvalidValue("has more than a hundred digits: quote it")
        value = str(value)
    if not isinstance(value, str):
        raise InvalidValue(
            f"must be a string, not {_type_name(value)}: quote it (in the environment as '\"…\"')"
        )
    if value != value.strip() or not value.isprintable():
        raise InvalidValue(
            "begins or ends with a space, or contains an invisible character: remove it"
        )
    return value or None


def token(value: object) -> str | None:
    found = text(value)
    if found and not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", found):
        raise InvalidValue("may contain only letters, digits, - and _, at most 64 of them")
    return found


def url(
    value: object,
    *,
    fragment: bool = False,
    query: bool = True,
    example: str = "https://auth.example.com",
) -> str | None:
    found = text(value)
    if found is None:
        return None
    if not re.fullmatch(r"[!-~]+", found):
        raise InvalidValue(
            "must be ASCII without spaces: write an international host name in its xn-- form"
        )
    try:
        parts = urlsplit(found)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise InvalidValue("is not a valid URL") from None
    if parts.scheme not in ("http", "https") or not host:
        raise InvalidValue(f"must be an absolute URL, like {example}")
    labels = host.removesuffix(".").split(".")
    if len(host) > 253 or not all(0 < len(label) <= 63 for label in labels):
        raise InvalidValue(
            "contains a host name that cannot exist: between its dots are 1 to 63 characters, "
            "together at most 253"
        )
    if parts.username is not None or "\\" in found:
        raise InvalidValue("must not contain a user name or a backslash")
    if "*" in found:
        raise InvalidValue("must not contain a wildcard (*): write the address in full")
    if "#" in found and not fragment:
        raise InvalidValue("must not have a fragment (#…)")
    if parts.query and not query:
        raise InvalidValue("must not have a query (?…)")
    return found


def server_url(value: object) -> str | None:
    found = url(value, query=False)
    return found.rstrip("/") if found else None


def redirect_uri(value: object) -> str | None:
    # Validate it but never change it: it is sent byte for byte (docs/protocol.md, "About the
    # vendor's product").
    return url(value, fragment=True, example="https://app.example.com/#/login")


def path(value: object) -> str | None:
    found = text(value)
    if found and not re.fullmatch(r"/(?![/\\])[!-\[\]-~]*", found):
        raise InvalidValue("must be a path on this site, with one slash at its beginning")
    return found


def path_or_url(value: object) -> str | None:
    found = text(value)
    return path(value) if found is None or found.startswith("/") else url(found)


def prefix(value: object) -> str:
    found = text(value)
    if not found or not re.fullmatch(r"(/[A-Za-z0-9._~-]+)+", found):
        raise InvalidValue("must be a path like /sso, without a slash at its end")
    return found


def seconds(value: object) -> float:
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidValue(f"must be a number of seconds or a timedelta, not {_type_name(value)}")
    if not 0 < value <= 10 * 365 * 86400:
        raise InvalidValue("must be greater than zero and at most ten years")
    return float(value)


def flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise InvalidValue(
            f"must be True or False, not {_type_name(value)} (in the environment true or false, in "
            "lower case)"
        )
    return value


def binding(value: object) -> str:
    if value not in ("state", "redirect_uri", "confirm"):
        raise InvalidValue('must be "state", "redirect_uri" or "confirm"')
    return str(value)


def validity_key(value: object) -> str:
    if value not in ("uid", "username"):
        raise InvalidValue('must be "uid" or "username"')
    return str(value)


def store_url(value: object) -> str | None:
    found = text(value)
    if found is None:
        return None
    # redis-py silently ignores parts of a URL that it does not understand, so they are rejected.
    redis = r"rediss?(://[^/?#]+|[+]sentinel://[^/?#]+/[^/?#]+)(/[0-9]*)?([?][^#]*)?"
    postgresql = r"postgresql://[^/?#]*(/[^/?#]*)?([?][^#]*)?"
    if found != MEMORY and not re.fullmatch(rf"sqlite:///[^?#]*[^/?#]|{redis}|{postgresql}", found):
        if like := re.match(r"(redis|postgresql)s?([+]sentinel)?://.*@", found):
            example = "host:6379/0" if like[1] == "redis" else "host:5432/database"
            raise InvalidValue(
                f"must be like {like[1]}://user:password@{example}, with special characters in the "
                "password percent-encoded: %2F for /, %3F for ?, %23 for #, %25 for %, %40 for @"
            )
        raise InvalidValue(
            "must be sqlite:///file, sqlite:////absolute/path/of/file, redis://host:6379/0, "
            "rediss://host:6379/0, redis+sentinel://host:26379,host:26379/service/0, "
            "postgresql://host:5432/database or memory://"
        )
    return found


def pem_file(value: object) -> str | None:
    found = text(value)
    if found is not None:
        try:
            ssl.create_default_context(cafile=found)
        except OSError as error:
            raise InvalidValue(
                f"is not a readable PEM file of certificates: {found} ({type(error).__name__})"
            ) from None
    return found


def host_name(value: object) -> str | None:
    found = text(value)
    if found is None:
        return None
    if "*" in found:
        raise InvalidValue("must not contain a wildcard (*): write the name in full")
    label = "[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
    is_address = re.fullmatch(r"[0-9.]+", found)
    if is_address or len(found) > 253 or not re.fullmatch(rf"{label}(\.{label})*", found):
        raise InvalidValue("must be one host name, like auth.example.com, and nothing else")
    return found.lower()


def _type_name(value: object) -> str:
    return "null" if value is None else type(value).__name__
