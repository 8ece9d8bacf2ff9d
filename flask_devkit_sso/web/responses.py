"""Responses that do not depend on the application's configuration.

An application may have its own response class, its own JSON, and ``after_request`` functions that
rewrite each response. Our pages and our scripts rely on the responses that this module creates.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from typing import Any, Final

from flask import Request, Response, after_this_request, request
from werkzeug.exceptions import HTTPException

_MARK: Final = "X-DevKit-SSO-Mark"
"""A header that marks our response until the application's functions see it."""

_NOT_RESTORED: Final = {"Content-Encoding", "Content-Length", "ETag", "Set-Cookie", "Vary"}
"""Headers about the body, and headers to which the application's functions may add values."""

_RESPONSE: Final = "flask_devkit_sso.response"


@dataclass(frozen=True, repr=False)
class _Kept:
    """A response of ours as it was before the application's functions saw it. Its headers may
    contain secrets, and an error tracker records the WSGI environment."""

    response: Response
    kind: type[Response]
    status: str
    body: bytes
    headers: list[tuple[str, str]]


def html_response(html: str, status: int) -> Response:
    """Return a page as a response that is kept."""
    return keep(Response(html, status, content_type="text/html; charset=utf-8"))


def json_response(status: int = 200, **fields: object) -> Response:
    """Return an object as a JSON response that is kept."""
    return keep(Response(f"{json.dumps(fields)}\n", status, content_type="application/json"))


def http_error(error: HTTPException) -> Response:
    """Return the response of an exception, which no error handler of the application sees."""
    found = error.get_response()
    return keep(Response(found.get_data(), error.code, list(found.headers)))


def keep(response: Any) -> Response:
    """Keep a response as our code creates it. If the current request ends with it, :func:`restore`
    undoes what the application's functions do to it."""
    mark, kind = secrets.token_hex(8), type(response)
    response.headers[_MARK] = mark

    @after_this_request
    def remember(sent: Response) -> Response:
        # The response of an exception is another object by now.
        if sent.headers.get(_MARK) == mark:
            del sent.headers[_MARK]
            request.environ[_RESPONSE] = _Kept(
                sent, kind, sent.status, sent.get_data(), _restored_headers(sent)
            )
        return sent

    kept: Response = response
    return kept


def release(response: Response) -> Response:
    """Return a response of ours without its mark, if no function of the application sees it."""
    response.headers.pop(_MARK, None)
    return response


def is_cors(header: str) -> bool:
    """Return whether a header lets scripts of other sites read a response or its timing."""
    return header.lower().startswith(("access-control-", "timing-allow-origin"))


def restore(response: Response, here: Request) -> Response:
    """Undo what the application's functions have done to a response of ours, or to its class.

    Headers that they have added stay, and so does a compressed body.
    """
    kept: _Kept | None = here.environ.pop(_RESPONSE, None)
    if kept is None:
        return response
    ours = kept.response
    ours.__class__ = kept.kind
    ours.status = kept.status
    if "Content-Encoding" not in ours.headers and ours.get_data() != kept.body:
        ours.set_data(kept.body)
    if _restored_headers(ours) != kept.headers:
        for name, value in kept.headers:
            ours.headers[name] = value
    return ours


def _restored_headers(response: Response) -> list[tuple[str, str]]:
    return [(name, value) for name, value in response.headers if name not in _NOT_RESTORED]
