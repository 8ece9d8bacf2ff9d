"""Keeps one person's data in Flask's ``session`` from the next person, as Django does.

That data outlives a login: the next person at the same browser would find the cart of the previous
one. So it contains a *tag*, a keyed hash of the uid, once somebody is signed in. Data with a tag is
cleared once the person it belongs to is no longer signed in. Data without one is that of a visitor,
and stays. As long as the application keeps nothing there, there is no tag and no cookie of Flask.

If the application keeps the data on its server and can give it a new id, that happens too. Nobody
can then use an id from before the login.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from functools import partial
from typing import Any, Final

from flask import Flask, Request, has_request_context, request, session
from flask.sessions import (
    NullSession,
    SecureCookieSession,
    SecureCookieSessionInterface,
    SessionMixin,
)

from ..errors import LoginFailed
from ..service import get_app, get_session_service, get_state, request_host
from .requests import is_page_load, is_same_origin, is_verify

TAG: Final = "_devkit_sso_user"
"""The name of the tag in Flask's ``session``."""

_IS_WATCHED: Final = "devkit_sso_is_watched"
"""An attribute of session interfaces whose data gets tags."""


def clear_flask_session() -> None:
    """Clear the data at a logout, whether or not it has a tag."""
    found = _find()
    if found:
        _clear(found)


@contextmanager
def flask_session_of(uid: str, previous_uid: str | None) -> Iterator[None]:
    """Give the data to the person who signs in, and clear it first if it is somebody else's.

    If the login fails after all, the data is as it was before.

    :param previous_uid: the person who was signed in until now, or None.
    """
    found = _find()
    if found is None:
        yield
        return
    # Read the attribute before anything else changes it.
    was_modified, data = found.modified, dict(found)
    tag = data.get(TAG)
    is_foreign = (tag is not None and tag not in _tags(uid)) or previous_uid not in (uid, None)
    if is_foreign and data:
        found.clear()
    try:
        yield
    except BaseException:
        if is_foreign and data:
            found.clear()
            found.update(data)
            found.modified = was_modified
        raise
    if found:
        _write_tag(found, _tags(uid)[0])


def watch_flask_session(app: Flask, find_uid: Callable[[], str | None]) -> None:
    """Let data that the application writes while somebody is signed in have their tag.

    :param find_uid: returns the uid of the person who is signed in, or None. It may raise
        LoginFailed.
    """
    interface: Any = app.session_interface
    if _IS_WATCHED in vars(interface):
        return
    if interface is type(app).session_interface:
        # All applications share Flask's own one.
        interface = copy(interface)
    save = interface.save_session
    is_flasks_own = type(interface) is SecureCookieSessionInterface
    if is_flasks_own:
        interface.open_session = partial(_open_session, interface)

    def save_session(app: Flask, data: SessionMixin, response: Any) -> None:
        if is_flasks_own and not (data or data.modified or data.accessed):
            # There is nothing to save. Flask reads seven settings before it notices.
            return
        if data.modified and data and TAG not in data and has_request_context():
            _tag_written_data(data, find_uid)
        save(app, data, response)

    interface.save_session = save_session
    setattr(interface, _IS_WATCHED, True)
    app.session_interface = interface


def _open_session(
    interface: SecureCookieSessionInterface, app: Flask, here: Request
) -> SecureCookieSession | None:
    """Open the session as Flask does, but create no serializer if there is no cookie to read.

    Creating one takes about as long as reading our session.
    """
    if app.secret_key and not here.cookies.get(interface.get_cookie_name(app)):
        return interface.session_class()
    return SecureCookieSessionInterface.open_session(interface, app, here)


def _tag_written_data(data: SessionMixin, find_uid: Callable[[], str | None]) -> None:
    state = get_state()
    if not state.settings.clear_session or state.session_service is None:
        return
    if not state.find_session_cookie(request.cookies):
        return
    try:
        uid = find_uid()
    except LoginFailed:
        # Somebody may be signed in, and nobody knows who. The tag of nobody has the data cleared.
        _write_tag(data, _tag_prefix())
    else:
        if uid is not None:
            _write_tag(data, _tags(uid)[0])


def _write_tag(data: SessionMixin, tag: str) -> None:
    data[TAG] = tag
    _regenerate(data)


def check_flask_session(app: Flask, here: Request, uid: str | None) -> None:
    """Clear the data if its tag belongs to anyone but the person who is signed in.

    Call it as soon as that is known, and never while the session store is unavailable.

    :param uid: the person who is signed in, or None.
    """
    # The response to a proxy sets no cookie, and must not change data that a server keeps.
    if app.session_interface.get_cookie_name(app) not in here.cookies or is_verify(here):
        return
    found = _find()
    tag = None if found is None else found.get(TAG)
    # An application with another redirect URI may share the data and tag it.
    if found is None or not isinstance(tag, str) or not tag.startswith(_tag_prefix()):
        return
    if uid is None:
        if _would_carry_our_cookie():
            _clear(found)
    elif tag not in _tags(uid):
        _clear(found)
        found[TAG] = _tags(uid)[0]


def _find() -> SessionMixin | None:
    """Return Flask's ``session``, or None if it cannot be written or must not be cleared."""
    if not get_state().settings.clear_session:
        return None
    try:
        found: SessionMixin | None = session._get_current_object()  # type: ignore[attr-defined]
    except (AssertionError, AttributeError):
        # The application's session interface uses current_user while it opens the session.
        return None
    return None if isinstance(found, NullSession) else found


def _clear(found: SessionMixin) -> None:
    # Before the data is gone: Flask-Session regenerates no empty session.
    _regenerate(found)
    found.clear()


def _regenerate(found: SessionMixin) -> None:
    """Give data that is kept on the application's server a new id, as Flask-Session can."""
    interface: Any = get_app().session_interface
    regenerate = getattr(interface, "regenerate", None)
    # In an event, Flask-SocketIO replaces the session by a copy, which the interface does not know.
    is_own = isinstance(found, getattr(interface, "session_class", object))
    if is_own and callable(regenerate):
        regenerate(found)


def _tags(uid: str) -> list[str]:
    """Return the tag of a user, and those that fallbacks of SECRET_KEY have created."""
    hashes = get_session_service().keys.hashes("flask-session", uid)
    return [_tag_prefix() + found for found in hashes]


def _tag_prefix() -> str:
    return f"{get_state().settings.installation}:"


def _would_carry_our_cookie() -> bool:
    """Return whether the current request would carry our session's cookie if the browser had it.

    Flask's cookie may be sent with requests to which browsers do not attach ours. If they counted,
    another site could have the data of a person who is signed in cleared.
    """
    app, state = get_app(), get_state()
    if state.find_session_cookie(request.cookies):
        return True
    if app.session_interface.get_cookie_domain(app) is not None:
        # Ours belongs to one host only.
        uri = state.redirect_uri
        if uri is None or uri.host != request_host():
            return False
    # Ours is SameSite=Lax (RFC 6265bis section 5.6.7.1).
    if "Sec-Fetch-Storage-Access" in request.headers:
        # A page of another site shows ours in a frame, from which the request comes.
        return False
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None and site != "cross-site":
        return True
    is_navigation = request.method in ("GET", "HEAD") and is_page_load(request)
    return is_navigation or is_same_origin(request)
