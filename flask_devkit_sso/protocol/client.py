"""Talks with the authentication server: one method for each interface that the package uses."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

from authlib.oauth2.client import OAuth2Client

from . import contract
from .contract import Reply, TokenAnswer, UserInfo
from .server import Server
from .transport import Transport

log: Final = logging.getLogger("flask_devkit_sso")


class Client:
    """The client of one installation. Holds no visitor's state, so all threads may share it.

    Logs once that a role is unknown, for the people who run the server.
    """

    def __init__(self, server: Server, transport: Transport) -> None:
        self._server = server
        self._transport = transport
        self._role_told = False

    def authorization_url(
        self, *, redirect_uri: str, state: str | None, code_verifier: str | None = None
    ) -> str:
        """Return where to send the browser (docs/protocol.md section 1)."""
        return contract.authorization_url(
            self._server.authorize_url,
            client_id=self._server.client_id,
            redirect_uri=redirect_uri,
            state=state,
            code_verifier=code_verifier,
        )

    def exchange(
        self, code: str, *, redirect_uri: str, code_verifier: str | None = None
    ) -> TokenAnswer:
        """Exchange a code for tokens, by Authlib's client (docs/protocol.md section 2).

        The code is sent once, whatever happens: sent twice, it would be refused, and the tokens of
        its first use would die.

        :raises ServerError, ServerUnavailable: as :func:`contract.token_answer`.
        """
        # One object for each exchange: Authlib's keeps the token on itself.
        oauth = OAuth2Client(
            _Session(self._transport),
            client_id=self._server.client_id,
            client_secret=self._server.client_secret,
            redirect_uri=redirect_uri,
            token_endpoint_auth_method=_write_body.__name__,
        )
        oauth.register_client_auth_method((_write_body.__name__, _write_body))
        oauth.register_compliance_hook("access_token_response", _Judged)
        verifier = {} if code_verifier is None else {"code_verifier": code_verifier}
        token = oauth.fetch_token(
            self._server.token_url, grant_type="authorization_code", code=code, **verifier
        )
        return TokenAnswer(token["access_token"], token["refresh_token"], token["expires_in"])

    def user_info(self, access_token: str) -> UserInfo:
        """Ask whose token this is (docs/protocol.md section 3).

        :raises ServerError, ServerUnavailable: as :func:`contract.user_info`.
        """
        url = self._server.user_info_url
        user = contract.user_info(self._post_token(url, access_token, repeatable=True))
        if user.role is None and not self._role_told:
            self._role_told = True
            log.warning("getUserInfo: a role is neither Admin nor User, so it counts as none")
        return user

    def is_valid(self, user: UserInfo, access_token: str) -> bool:
        """Ask whether a user is still valid (docs/protocol.md section 5); True where nobody has
        told how to ask.

        :raises ServerError, ServerUnavailable: as :func:`contract.validity_answer`.
        """
        validity = self._server.validity
        if validity is None:
            return True
        body = contract.validity_request(
            client_id=self._server.client_id,
            access_token=access_token,
            field=validity.field,
            user=user.uid if validity.key == "uid" else user.username,
        )
        return contract.validity_answer(self._transport.post(validity.url, body, repeatable=True))

    def refresh(self, refresh_token: str) -> TokenAnswer:
        """Get another access token (docs/protocol.md section 4).

        :raises ServerError, ServerUnavailable: as :func:`contract.refresh_answer`.
        """
        body = contract.refresh_request(
            client_id=self._server.client_id, refresh_token=refresh_token
        )
        return contract.refresh_answer(self._transport.post(self._server.refresh_url, body))

    def logout(self, access_token: str) -> None:
        """Have the server end its own sign-in (docs/protocol.md section 6).

        :raises ServerError, ServerUnavailable: when it did not say that it has.
        """
        contract.envelope_data(self._post_token(self._server.logout_url, access_token), "logout")

    def _post_token(self, url: str, access_token: str, *, repeatable: bool = False) -> Reply:
        body = contract.access_token_request(
            client_id=self._server.client_id, access_token=access_token
        )
        return self._transport.post(url, body, repeatable=repeatable)


class _Session:
    """What Authlib takes for its HTTP session: nothing but one POST."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def post(self, url: str, data: Mapping[str, str], headers: object, auth: Any) -> Reply:
        url, _, body = auth.prepare("POST", url, headers, data)
        return self._transport.post(url, body)


def _write_body(
    client: Any, method: str, url: str, headers: object, form: Mapping[str, str]
) -> tuple[str, object, bytes]:
    """Client authentication as Authlib calls it: writes the JSON body with the secret inside."""
    body = contract.token_request(
        client_id=client.client_id,
        client_secret=client.client_secret,
        code=form["code"],
        redirect_uri=form["redirect_uri"],
        code_verifier=form.get("code_verifier"),
    )
    return url, headers, body


class _Judged:
    """The response hook: Authlib takes any JSON object for a token, so it sees a judged one."""

    status_code = 200

    def __init__(self, reply: Reply) -> None:
        self._answer = contract.token_answer(reply)

    def json(self) -> dict[str, Any]:
        return asdict(self._answer)
