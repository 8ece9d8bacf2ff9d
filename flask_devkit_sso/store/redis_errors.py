"""What the errors of redis-py mean. They are not quoted: Redis repeats what it did not
understand."""

from __future__ import annotations

import re
import ssl
from typing import Final

from redis.exceptions import (
    AskError,
    AuthenticationError,
    BusyLoadingError,
    ClusterCrossSlotError,
    ClusterDownError,
    ConnectionError,
    NoPermissionError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TimeoutError,
)
from redis.sentinel import MasterNotFoundError

PERMISSIONS: Final = (
    "~devkit_sso:* +del +eval +get +hget +hmget +hset +pexpire +pttl +role +scan +select +set "
    "+wait +zadd +zrange +zrangebyscore +zrem +zscan"
)
"""What an ACL has to allow (docs/sessions.md, "Redis and Valkey")."""


def is_read_only(error: RedisError) -> bool:
    """Return whether a server refuses a write because it is a replica, or because it has lost its
    replicas (``min-replicas-to-write``), one of which may be the primary by now."""
    # redis-py turns the first error into another one if there are Sentinels.
    return _code(error) in ("READONLY", "NOREPLICAS") or isinstance(
        error.__context__, ReadOnlyError
    )


def explain(error: RedisError) -> tuple[str, str]:
    """Return why Redis cannot be used and, if that is known, how an operator can fix it."""
    message = str(error)
    match error:
        case AskError() | ClusterDownError() | ClusterCrossSlotError():
            return _CLUSTER
        case ResponseError() if "cluster" in message:
            return _CLUSTER
        case NoPermissionError():
            return _missing_permission(message)
        case ResponseError() if "ACL failure" in message or "user executing the" in message:
            # In a script, Redis before version 7.2 names neither the command nor the key.
            return _missing_permission(message)
        case AuthenticationError():
            return (
                "refuses the user or password of DEVKIT_SSO_STORE_URL",
                "Percent-encode special characters in them",
            )
        case BusyLoadingError():
            return "is starting and loading its data", ""
        case MasterNotFoundError():
            return (
                "has no primary: no Sentinel can be reached, or none knows a primary of this name",
                "Check the hosts, ports, password and service in DEVKIT_SSO_STORE_URL",
            )
        case TimeoutError() | ConnectionError() if (tls := _tls_error(error)) is not None:
            return _explain_tls(tls)
        case TimeoutError():
            return "did not respond in time", ""
        case ConnectionError() if re.search("closed by server|reset by peer", message):
            return (
                "closes the connection",
                "If its port expects TLS, use rediss:// in DEVKIT_SSO_STORE_URL",
            )
        case ConnectionError():
            return (
                "cannot be reached: check DEVKIT_SSO_STORE_URL, and whether Redis is running there",
                "",
            )
        case ResponseError() if _code(error) == "NOREPLICAS":
            return "has too few replicas, as min-replicas-to-write demands", "Check the replicas"
        case ResponseError() if is_read_only(error):
            return "is a read-only replica", ""
        case ResponseError():
            return f"refuses a command ({_code(error) or type(error).__name__})", ""
        case _:
            return f"cannot be used ({type(error).__name__})", ""


_CLUSTER: Final = (
    "is a Redis Cluster, which is not supported",
    "Use one Redis with replicas, whose primary may be found through Sentinel",
)


def _code(error: RedisError) -> str:
    """Return the code with which Redis begins an error, such as READONLY."""
    if isinstance(error, ReadOnlyError):
        return "READONLY"  # redis-py removes it
    # Redis before version 7 puts the error of a command in a script at the end.
    found = re.match(r"[A-Z]{2,20}\b", str(error)) or re.search(
        r"(?<=: -)[A-Z]{2,20}\b", str(error)
    )
    return found[0] if found else ""


def _missing_permission(message: str) -> tuple[str, str]:
    command = re.search(r"'([a-z]{2,20})' command", message)
    missing = "a permission"
    if command:
        missing = f"the permission +{command[1]}"
    elif "key" in message:
        missing = "access to the keys ~devkit_sso:*"
    return f"does not give its user {missing}", f"Allow this in its ACL: {PERMISSIONS}"


def _tls_error(error: BaseException) -> ssl.SSLError | None:
    """Return the TLS error that caused another one, or None."""
    found: BaseException | None = error
    while found is not None and not isinstance(found, ssl.SSLError):
        found = found.__cause__ or found.__context__
    return found


def _explain_tls(error: ssl.SSLError) -> tuple[str, str]:
    if isinstance(error, ssl.SSLCertVerificationError):
        # These are X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH.
        if error.verify_code in (62, 64):
            return (
                "cannot be reached: its TLS certificate is for another host name",
                "Use a name of the certificate in DEVKIT_SSO_STORE_URL",
            )
        return (
            "cannot be reached: its TLS certificate cannot be verified",
            "Name its CA in DEVKIT_SSO_STORE_URL: ?ssl_ca_certs=/path/of/ca.pem",
        )
    return (
        "cannot be reached: the TLS handshake failed",
        "If its port does not expect TLS, use redis:// in DEVKIT_SSO_STORE_URL",
    )
