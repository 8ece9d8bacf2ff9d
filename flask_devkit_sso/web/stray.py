"""Stray authorization responses: those that belong to no pending login of this browser.

They arrive through the Back button, a reload, a restored tab or a bookmark, or because somebody
tries to sign the person in to another account (login CSRF). Their codes are never exchanged.
"""

from __future__ import annotations

import logging
from typing import Final

from .. import audit
from ..errors import LoginFailed
from ..protocol.authorization import AuthorizationResponse
from ..service import get_service, get_state
from .place import url_for
from .request_user import load_user
from .returning import safe_next

log: Final = logging.getLogger("flask_devkit_sso")

PARAMETER: Final = "stray"
"""With this parameter, the logout page says that a response was ignored."""

_REASONS: Final = (
    "login_unknown",
    "login_expired",
    "cookie_missing",
    "state_missing",
    "state_mismatch",
)
"""The reasons why a response belongs to no pending login of this browser."""


def signed_in_url() -> str:
    """Return the URL of the page that says who is signed in."""
    return url_for("devkit_sso_authorize.logout", **{PARAMETER: 1})


def ignore_stray(response: AuthorizationResponse, error: LoginFailed) -> str:
    """Return the URL where a person who is signed in continues after a stray response.

    :param error: why the response did not complete a login.
    :raises LoginFailed: the error, if the response is not stray or nobody is signed in.
    """
    session = load_user().session if error.reason in _REASONS else None
    if session is None:
        raise error
    service = get_service()
    is_own = service.logins.is_response_to(response, session.login)
    is_harmless = is_own and get_state().settings.binding != "confirm"
    audit.record(
        "response_ignored",
        "same_login" if is_harmless else error.reason,
        uid=session.user.uid,
        session=session.name,
    )
    if is_harmless:
        log.info("a response to the login that began this session was ignored")
    else:
        log.warning(
            "a response that belongs to no pending login was ignored (%s): uid %r stays signed in. "
            "Somebody may have tried to sign this person in to another account, see "
            "docs/failures.md#stray-responses%s",
            error.reason,
            session.user.uid,
            f". {error.hint}" if error.hint else "",
        )
    return safe_next(service.sessions.next_url(session)) if is_own else signed_in_url()
