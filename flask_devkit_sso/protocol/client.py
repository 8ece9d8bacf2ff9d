"""Calls the authentication server: one method for each interface that the package uses."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Final, ParamSpec, TypeVar

from ..bulkhead import Place
from ..errors import ServerError, ServerUnavailable, unexpected, without_frames
from ..per_process import no_fork
from . import authorization, contract
from .contract import RawResponse, Tokens, UserInfo
from .server import Server
from .transport import Transport

if TYPE_CHECKING:
    from .code_exchange import CodeExchange

P = ParamSpec("P")
R = TypeVar("R")

log: Final = logging.getLogger("flask_devkit_sso")


def _boundary(method: Callable[P, R]) -> Callable[P, R]:
    """Decorate a method that calls the server, so that it raises only ServerError and
    ServerUnavailable, whose frames contain no secret."""

    @wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        failure: ServerError | ServerUnavailable
        try:
            return method(*args, **kwargs)
        except (ServerError, ServerUnavailable) as error:
            failure = error
        except Exception as error:  # noqa: BLE001 - reported by its type and place
            failure = unexpected(error)
        # They contain the code or a token.
        del args, kwargs
        raise without_frames(failure)

    return call


class Client:
    """The OAuth client of one installation. It keeps nothing about a user, so threads may share it.

    ``background=True`` says that nobody is waiting for the response, so that other calls go first.

    It logs a warning when the server first sends an unknown role.
    """

    def __init__(self, server: Server, transport: Transport) -> None:
        self._server = server
        self._transport = transport
        self._has_logged_role = False
        self._code_exchange: CodeExchange | None = None

    def authorization_url(
        self, *, redirect_uri: str, state: str | None, code_verifier: str | None = None
    ) -> str:
        """Return the URL of an authorization request (docs/protocol.md section 1)."""
        return authorization.authorization_url(
            self._server.authorize_url,
            client_id=self._server.client_id,
            redirect_uri=redirect_uri,
            state=state,
            code_verifier=code_verifier,
        )

    @_boundary
    def reserve_exchange(self) -> Place:
        """Take a place for :meth:`exchange` before a login is used up for it.

        :return: a context manager, which gives the place back.
        :raises ServerUnavailable: if one of the interfaces that a login calls does not respond to
            earlier calls.
        """
        return self._get_code_exchange().reserve()

    @_boundary
    def exchange(
        self,
        code: str,
        *,
        redirect_uri: str,
        code_verifier: str | None = None,
        place: Place | None = None,
    ) -> Tokens:
        """Exchange an authorization code for tokens, through Authlib (docs/protocol.md section 2).

        The code is never sent twice. The server would refuse it the second time, and revoke the
        tokens that it issued the first time.

        :param place: what :meth:`reserve_exchange` returned, if it was called.
        :raises ServerError, ServerUnavailable: as :func:`contract.token_response`.
        """
        return self._get_code_exchange().exchange(
            code, redirect_uri=redirect_uri, code_verifier=code_verifier, place=place
        )

    @_boundary
    def user_info(self, access_token: str, *, background: bool = False) -> UserInfo:
        """Ask whose access token this is (docs/protocol.md section 3).

        :raises ServerError, ServerUnavailable: as :func:`contract.user_info`.
        """
        url = self._server.user_info_url
        user = contract.user_info(
            self._post_token(url, access_token, repeatable=True, background=background)
        )
        if user.role is None and not self._has_logged_role:
            self._has_logged_role = True
            log.warning(
                "getUserInfo returned a role other than Admin or User, so the user has none"
            )
        return user

    @_boundary
    def is_valid(self, user: UserInfo, access_token: str, *, background: bool = False) -> bool:
        """Ask whether a user is still valid (docs/protocol.md section 5).

        :return: True if the interface is not configured.
        :raises ServerError, ServerUnavailable: as :func:`contract.validity_response`.
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
        response = self._transport.post(validity.url, body, repeatable=True, background=background)
        return contract.validity_response(response)

    @_boundary
    def refresh(
        self, tokens: Tokens, *, background: bool = False, deadline: float = math.inf
    ) -> Tokens:
        """Refresh an access token with its refresh token (docs/protocol.md section 4).

        :param deadline: when the right to refresh these tokens ends, as ``time.monotonic`` counts.
            Nothing is sent after it.
        :raises ServerError, ServerUnavailable: as :func:`contract.refresh_response`.
        """
        requested_at = time.time()
        body = contract.refresh_request(
            client_id=self._server.client_id, refresh_token=tokens.refresh_token or ""
        )
        response = self._transport.post(
            self._server.refresh_url, body, background=background, deadline=deadline
        )
        return tokens.refreshed_by(contract.refresh_response(response, requested_at))

    @_boundary
    def logout(self, access_token: str, *, background: bool = False) -> None:
        """Sign the user out at the server (docs/protocol.md section 6).

        :raises ServerError, ServerUnavailable: if the server did not confirm it.
        """
        response = self._post_token(self._server.logout_url, access_token, background=background)
        contract.envelope_data(response, "logout")

    def _get_code_exchange(self) -> CodeExchange:
        if self._code_exchange is None:
            # Only logins need Authlib, and a worker should not wait for it when it starts.
            # reserve_exchange imports it before the deadline begins.
            with no_fork:
                from .code_exchange import CodeExchange

            self._code_exchange = CodeExchange(self._server, self._transport)
        return self._code_exchange

    def _post_token(
        self, url: str, access_token: str, *, repeatable: bool = False, background: bool
    ) -> RawResponse:
        body = contract.access_token_request(
            client_id=self._server.client_id, access_token=access_token
        )
        return self._transport.post(url, body, repeatable=repeatable, background=background)
