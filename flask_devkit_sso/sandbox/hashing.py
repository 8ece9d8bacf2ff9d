"""What the sandbox keeps of secrets: hashes, from which nobody can recover them.

A client secret, code, token or cookie consists of at least 128 random bits, which nobody can try
out, so a plain SHA-256 is enough. People choose passwords themselves, so those need a slow hash
with a salt.
"""

from __future__ import annotations

import hashlib
import hmac
import re

from werkzeug.security import check_password_hash, generate_password_hash


def hashed(secret: str) -> str:
    """Return the hash under which a random secret is kept."""
    # JSON may contain lone surrogates, which strict UTF-8 refuses.
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def constant_time_equal(one: str, other: str) -> bool:
    """Compare two strings in a time that does not depend on where they differ."""
    return hmac.compare_digest(
        one.encode("utf-8", "surrogatepass"), other.encode("utf-8", "surrogatepass")
    )


def hashed_password(password: str) -> str:
    """Return a salted scrypt hash of a password."""
    return generate_password_hash(password)


def is_password_hash(text: str) -> bool:
    """Return whether a text is what :func:`hashed_password` returns."""
    return re.fullmatch(r"scrypt:\d+:\d+:\d+\$\w+\$[0-9a-f]{128}", text, re.ASCII) is not None


def is_password(password: str, password_hash: str) -> bool:
    """Return whether a password has this hash."""
    return check_password_hash(password_hash, password)
