"""The response envelope of the POST interfaces (docs/protocol.md, "Common to all")."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import Response, jsonify, request

SUCCESS = "2000"
INTERNAL_ERROR = "8500"

# In the order of their error codes: the first has 8101 and 8201.
PARAMETERS = (
    "client_id",
    "authorization_code",
    "grant_type",
    "client_secret",
    "access_token",
    "refresh_token",
    "redirect_uri",
)

# The first two digits of the code -> the message in Chinese and English.
_PARAMETER_MESSAGES = {
    "81": ("缺少参数{}", "The {} parameter is missing."),
    "82": ("参数{}非法", "The {} parameter is invalid."),
}


class InterfaceError(Exception):
    """The server refuses a request, with an error code and an HTTP status."""

    def __init__(self, code: str, status: int = 200) -> None:
        super().__init__(code)
        self.code = code
        self.status = status


def missing(parameter: str) -> InterfaceError:
    """Return the error for a parameter that is missing."""
    return InterfaceError(f"81{PARAMETERS.index(parameter) + 1:02}")


def invalid(parameter: str) -> InterfaceError:
    """Return the error for a parameter that is invalid."""
    return InterfaceError(f"82{PARAMETERS.index(parameter) + 1:02}")


def _prefers_chinese() -> bool:
    # Not best_match, which chooses zh for "en-GB,zh;q=0.5".
    for tag, quality in request.accept_languages:
        language = tag.partition("-")[0].lower()
        if quality > 0 and language in ("en", "zh"):
            return language == "zh"
    return False


def message(code: str) -> str:
    """Return the message for a code, in the language that the request prefers."""
    chinese = _prefers_chinese()
    if code == SUCCESS:
        return "成功" if chinese else "Success."
    number = int(code[2:])
    if code[:2] in _PARAMETER_MESSAGES and 1 <= number <= len(PARAMETERS):
        return _PARAMETER_MESSAGES[code[:2]][0 if chinese else 1].format(PARAMETERS[number - 1])
    # The contract has no Chinese text for 8500.
    return "There is internal resource error on the server."


def envelope(code: str, data: Mapping[str, Any] | None = None, status: int = 200) -> Response:
    """Return a response with a code of four digits, its ``data`` and an HTTP status."""
    response = jsonify(code=code, message=message(code), messageArgs=[], data=dict(data or {}))
    response.status_code = status
    return response
