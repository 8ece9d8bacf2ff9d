"""Exchanges an authorization code for tokens, through Authlib (docs/protocol.md section 2).

Only logins need Authlib, so protocol/client.py imports this module at the first one.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from authlib.oauth2.client import OAuth2Client

from ..bulkhead import Place
from . import contract
from .contract import RawResponse, Tokens
from .server import Server
from .transport import Transport


class CodeExchange:
    """What a login needs of the server's interface getToken."""

    def __init__(self, server: Server, transport: Transport) -> None:
        self._server = server
        self._transport = transport

    def reserve(self) -> Place:
        """Take a place for :meth:`exchange`, as :meth:`Client.reserve_exchange` does."""
        validity = self._server.validity
        self._transport.check(self._server.user_info_url, *([validity.url] if validity else []))
        return self._transport.reserve(self._server.token_url)

    def exchange(
        self, code: str, *, redirect_uri: str, code_verifier: str | None, place: Place | None
    ) -> Tokens:
        """Return the tokens for a code, as :meth:`Client.exchange` does."""
        requested_at = time.time()
        # Create an object for each exchange, because Authlib's client keeps the token.
        oauth = OAuth2Client(
            _Session(self._transport, place),
            client_id=self._server.client_id,
            client_secret=self._server.client_secret,
            redirect_uri=redirect_uri,
            token_endpoint_auth_method=_write_body.__name__,
        )
        oauth.register_client_auth_method((_write_body.__name__, _write_body))
        oauth.register_compliance_hook(
            "access_token_response", lambda response: _ValidatedResponse(response, requested_at)
        )
        verifier = {} if code_verifier is None else {"code_verifier": code_verifier}
        token = oauth.fetch_token(
            self._server.token_url, grant_type="authorization_code", code=code, **verifier
        )
        return Tokens(**{item.name: token[item.name] for item in fields(Tokens)})


class _Session:
    """The HTTP session that Authlib expects, reduced to one POST."""

    def __init__(self, transport: Transport, place: Place | None) -> None:
        self._transport = transport
        self._place = place

    def post(self, url: str, data: Mapping[str, str], headers: object, auth: Any) -> RawResponse:
        url, _, body = auth.prepare("POST", url, headers, data)
        return self._transport.post(url, body, place=self._place)


def _write_body(
    client: Any, method: str, url: str, headers: object, form: Mapping[str, str]
) -> tuple[str, object, bytes]:
    """Return the request with the JSON body, which contains the secret. Authlib calls this to
    authenticate the client."""
    body = contract.token_request(
        client_id=client.client_id,
        client_secret=client.client_secret,
        code=form["code"],
        redirect_uri=form["redirect_uri"],
        code_verifier=form.get("code_verifier"),
    )
    return url, headers, body


class _ValidatedResponse:
    """The response that Authlib reads the token from. Authlib accepts any JSON object, so this one
    is validated first."""

    status_code = 200

    def __init__(self, response: RawResponse, requested_at: float) -> None:
        self._tokens = contract.token_response(response, requested_at)

    def json(self) -> dict[str, Any]:
        # A copy, because Authlib adds to it.
        return {**vars(self._tokens)}
