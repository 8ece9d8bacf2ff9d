"""The envelope's codes (docs/protocol.md, "Common to all")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

SUCCESS: Final = "2000"

PARAMETERS: Final = (
    "client_id",
    "authorization_code",
    "grant_type",
    "client_secret",
    "access_token",
    "refresh_token",
    "redirect_uri",
)
"""In the order of the protocol's table: the codes of the first parameter are 8101 and 8201."""


def missing(parameter: str) -> str:
    """Return the code for a missing parameter."""
    return f"81{PARAMETERS.index(parameter) + 1:02}"


def invalid(parameter: str) -> str:
    """Return the code for an invalid parameter."""
    return f"82{PARAMETERS.index(parameter) + 1:02}"


def is_about_parameter(code: str) -> bool:
    """Return whether a code says that a parameter is missing or invalid."""
    return code[:2] in ("81", "82")


INVALID_CLIENT_ID: Final = invalid("client_id")
INVALID_CODE: Final = invalid("authorization_code")
INVALID_CLIENT_SECRET: Final = invalid("client_secret")
INVALID_ACCESS_TOKEN: Final = invalid("access_token")
INVALID_REFRESH_TOKEN: Final = invalid("refresh_token")
INVALID_REDIRECT_URI: Final = invalid("redirect_uri")


@dataclass(frozen=True)
class ErrorCode:
    """What an error code means for the operator of an application, and how to fix the setting that
    causes it, if it points to one."""

    meaning: str
    fix: str = ""


_ERROR_CODES: Final = {
    **{missing(name): ErrorCode(f"the {name} parameter is missing") for name in PARAMETERS},
    **{invalid(name): ErrorCode(f"the {name} was refused") for name in PARAMETERS},
    INVALID_CLIENT_ID: ErrorCode(
        "the server does not know the client_id: check DEVKIT_SSO_CLIENT_ID",
        "Run `flask devkit-sso register`, or have this client registered at the server",
    ),
    INVALID_CODE: ErrorCode(
        "the code was refused: it was already used, has expired, or was issued for another "
        "redirect_uri"
    ),
    INVALID_CLIENT_SECRET: ErrorCode(
        "the client_secret was refused: check DEVKIT_SSO_CLIENT_SECRET",
        "Run `flask devkit-sso register` with the secret that is registered at the server",
    ),
    INVALID_REDIRECT_URI: ErrorCode(
        "the redirect_uri was refused: DEVKIT_SSO_REDIRECT_URI must be the value registered at the "
        "server, byte for byte",
        "Have the value registered at the server, byte for byte",
    ),
    "8500": ErrorCode("the server reported an internal error"),
}

_UNKNOWN: Final = ErrorCode("a code that the protocol does not define")


def explain(code: str) -> ErrorCode:
    """Return what a code other than success means."""
    return _ERROR_CODES.get(code, _UNKNOWN)
