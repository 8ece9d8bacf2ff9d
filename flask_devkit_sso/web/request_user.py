"""The user of the current request."""

from __future__ import annotations

from typing import Final, cast

from flask import Request, has_request_context
from werkzeug.exceptions import Unauthorized
from werkzeug.local import LocalProxy

from ..errors import LoginFailed, ServerUnavailable, StoreUnavailable
from ..service import AppState, get_app, get_request, get_service, get_state
from ..session.sessions import Session
from ..users import Anonymous, Hooks, User
from .error_handling import answers, is_handling_error
from .failures import as_login_failed
from .flask_session import check_flask_session
from .passive import is_passive

_USER: Final = "devkit_sso_user"
"""The attribute of a request that keeps its user."""


class RequestUser:
    """What is known about the user of one request.

    :ivar is_checked: whether :func:`verified_user` was called for this request.
    """

    def __init__(self, hooks: Hooks) -> None:
        self.session: Session | None = None
        self._hooks = hooks
        self._user: User | Anonymous | None = None
        self.is_checked = False

    def set_session(self, session: Session | None) -> None:
        """Set the session, which determines the user."""
        self.session, self._user = session, None

    def set_user(self, user: User) -> None:
        """Set a user who has just signed in. Their session begins with the next request."""
        self.session, self._user = None, user

    @property
    def user(self) -> User | Anonymous:
        """The user object, created when it is first needed."""
        if self._user is None:
            session = self.session
            self._user = self._hooks.make_user(session.user) if session else Anonymous()
        return self._user


def has_loaded_user(here: Request) -> bool:
    """Return whether a request has loaded its user."""
    return _USER in vars(here)


def load_user() -> RequestUser:
    """Return the current request's user as the session describes them.

    The result is kept with the request object. In tests, an application context may outlive a
    request, and would pass one user's session on to the next request. And Flask-SocketIO handles
    all events of a connection with the same WSGI environment, although the session may have ended.

    :raises LoginFailed: ``store_unavailable``. Somebody may be signed in all the same.
    """
    here = get_request()
    known: RequestUser | None = vars(here).get(_USER)
    return known or _load(get_state(), here)


def _load(state: AppState, here: Request) -> RequestUser:
    # Store it before anything can fail, so that an error page that reads current_user gets an
    # anonymous user.
    known = vars(here)[_USER] = RequestUser(state.hooks)
    if state.session_service is None:
        return known
    # No variable has the cookie's value: an error tracker would record it.
    cookie = state.find_session_cookie(here.cookies)
    if cookie is not None:
        sessions = state.session_service.sessions
        try:
            known.session = sessions.load(
                here.cookies[cookie], is_use=lambda: not is_passive(get_app(), here)
            )
        except StoreUnavailable as error:
            raise as_login_failed(error)  # noqa: B904 - its cause is set
    check_flask_session(get_app(), here, known.session.user.uid if known.session else None)
    return known


def find_uid() -> str | None:
    """Return the uid of the person who is signed in according to the session, or None.

    :raises LoginFailed: as :func:`load_user`.
    """
    return load_user().user.uid


def verified_user() -> RequestUser:
    """Return the current request's user, whom the server has confirmed recently.

    :raises LoginFailed: as :func:`load_user`; ``server_unavailable`` if the server could not be
        asked for too long; ``not_configured`` if settings are missing.
    """
    known = load_user()
    session = known.session
    # A session that tests created has no tokens and needs no server.
    if session is None or session.sealed_tokens is None or known.is_checked:
        return known
    known.is_checked = True
    # Nobody is signed in until the session is verified: if anything fails below, the rest of this
    # request must not see the unverified user.
    known.set_session(None)
    try:
        known.set_session(get_service().maintenance.verify(session))
    except (LoginFailed, ServerUnavailable, StoreUnavailable) as error:
        raise as_login_failed(error)  # noqa: B904 - its cause is set
    if known.session is None:
        check_flask_session(get_app(), get_request(), None)
    return known


def current_access_token() -> str:
    """Return what :meth:`DevKitSSO.access_token` returns. Needs a request."""
    known, service = verified_user(), get_state().service
    # Without a service the session is one that tests created, which has no tokens.
    if known.session is None or service is None:
        raise answers(Unauthorized("Nobody is signed in."))
    token = service.maintenance.access_token(known.session)
    if token is None:
        known.set_session(None)
        check_flask_session(get_app(), get_request(), None)
        raise answers(Unauthorized("The session has ended."))
    return token


def _find_user() -> User | Anonymous:
    if not has_request_context():
        return Anonymous()
    try:
        return verified_user().user
    except LoginFailed:
        # The application's error page remains what it is: a 404 or a 500.
        if not is_handling_error():
            raise
        return Anonymous()


current_user = cast(User, LocalProxy(_find_user))
"""The user of the current request: a proxy of a :class:`User`, anonymous outside a request. If the
store fails, the application's error pages see an anonymous user too."""
