"""The table of a PostgreSQL store, and what PostgreSQL's errors mean."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any, Final

import psycopg
from psycopg import errors

_SCHEMA: Final = """
CREATE TABLE devkit_sso_record (
    key text COLLATE "C" PRIMARY KEY,
    owner text COLLATE "C",
    data text NOT NULL,
    used double precision NOT NULL,
    expires double precision NOT NULL,
    call text NOT NULL
);
CREATE INDEX devkit_sso_record_owner ON devkit_sso_record (owner, key) WHERE owner IS NOT NULL;
CREATE INDEX devkit_sso_record_expires ON devkit_sso_record (expires);
"""

_GRANT: Final = (
    "Its user needs SELECT, INSERT, UPDATE and DELETE on the table devkit_sso_record, and CREATE "
    "on the schema unless somebody else has created the table"
)
_PERCENT_ENCODE: Final = (
    "Check DEVKIT_SSO_STORE_URL, in which special characters must be percent-encoded"
)
_MORE_CONNECTIONS: Final = "Raise max_connections, or put PgBouncer in between"

_NAME_CA: Final = (
    "In DEVKIT_SSO_STORE_URL, name the host as its certificate does, and the certificate's CA: "
    "?sslmode=verify-full&sslrootcert=/path/of/ca.pem"
)

_BY_STATE: Final = (
    ("22P05", "cannot store every character", "Use a database with ENCODING 'UTF8'"),
    ("25006", "is a read-only replica", ""),
    ("3F000|42501", "does not let its user do this", _GRANT),
    ("42", "has a table devkit_sso_record of another program or version", "Rename that table"),
    ("53100", "has no space left on its disk", ""),
    ("53300", "has no connection left", _MORE_CONNECTIONS),
    ("57014", "did not respond in time", ""),
    ("57P", "is starting or stopping", ""),
)
"""What a reply means whose SQLSTATE begins like this."""

_BY_MESSAGE: Final = (
    (r"pg_hba\.conf", "refuses this host, user and database", "Add a line to its pg_hba.conf"),
    (
        r"authentication failed|password supplied|role .* does not exist|SCRAM",
        "refuses the user or password",
        _PERCENT_ENCODE,
    ),
    (r"database .* does not exist", "has no such database", _PERCENT_ENCODE),
    (r"connection slots|too many|no more connections", "has no connection left", _MORE_CONNECTIONS),
    (r"starting up|shutting down|recovery", "is starting or stopping", ""),
    (r"read-only|hot standby", "is a read-only replica", ""),
    (
        r"not support SSL",
        "does not support TLS, which sslmode requires",
        "Switch TLS on (ssl = on in postgresql.conf)",
    ),
    (r"certificate", "cannot be reached: its certificate cannot be verified", _NAME_CA),
    (r"SSL|TLS", "cannot be reached: the TLS handshake failed", _NAME_CA),
    (
        r"resolve|translate host name|Errno -[235]\b",
        "cannot be reached: its host name has no address",
        "Check DEVKIT_SSO_STORE_URL",
    ),
    (r"timeout expired|timed out", "did not respond in time", ""),
)
"""What a failure to connect means, whose only description is a message. PostgreSQL may translate
it."""


def create_schema(connection: psycopg.Connection[Any]) -> None:
    """Create the table, unless another process is faster."""
    with suppress(errors.UniqueViolation, errors.DuplicateTable):
        # Without parameters, this is one message and so one transaction.
        connection.execute(_SCHEMA)


def explain(error: Exception) -> tuple[str, str]:
    """Return why PostgreSQL cannot be used and, if that is known, how an operator can fix it.

    The driver's messages are not quoted: they contain the password of a URL that is not valid.
    """
    if not isinstance(error, psycopg.Error):
        return f"cannot be used ({type(error).__name__})", ""
    if error.sqlstate:
        for state, text, fix in _BY_STATE:
            if re.match(state, error.sqlstate):
                return text, fix
        return f"refuses a statement (SQLSTATE {error.sqlstate})", ""
    for pattern, text, fix in _BY_MESSAGE:
        if re.search(pattern, str(error)):
            return text, fix
    if isinstance(error, psycopg.OperationalError):
        return (
            "cannot be reached",
            "Check DEVKIT_SSO_STORE_URL, whether PostgreSQL is running there, and its log",
        )
    return f"cannot be used ({type(error).__name__})", ""
