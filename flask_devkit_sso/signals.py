"""The extension's signals (blinker). The sender is always the application.

A receiver runs in the request or in the background job that caused the signal. No signal carries a
secret.
"""

from __future__ import annotations

from blinker import Namespace

_signals = Namespace()

login_succeeded = _signals.signal("devkit-sso-login-succeeded")
"""Sent with ``user`` after the session was created."""

login_failed = _signals.signal("devkit-sso-login-failed")
"""Sent with ``reason`` (one of :data:`flask_devkit_sso.errors.REASONS`) and ``error``, the
:class:`~flask_devkit_sso.LoginFailed`."""

logged_out = _signals.signal("devkit-sso-logged-out")
"""Sent after a logout with ``user`` and ``server_told``: whether the server confirmed that its
sign-in has ended too."""

token_refreshed = _signals.signal("devkit-sso-token-refreshed")
"""Sent with ``user`` after an access token was refreshed."""

session_ended = _signals.signal("devkit-sso-session-ended")
"""Sent with ``uid`` and ``why`` after a session ended for any reason except a logout by its
user."""

user_changed = _signals.signal("devkit-sso-user-changed")
"""Sent with ``user`` and ``before`` after the server has returned another name or role for somebody
who is signed in, once for each of their sessions in use.

The new name and role are stored by then and count, whatever a receiver does. Each receiver runs in
an application context of its own, outside any request. If one raises an exception, or if the worker
is killed, the next revalidation of the session sends the signal again. So a receiver may be called
several times for one change."""
