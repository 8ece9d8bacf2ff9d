"""The extension's blinker signals; the sender is always the application.

A receiver is called in the request that caused the signal. None of them carries a secret.
"""

from __future__ import annotations

from blinker import Namespace

_signals = Namespace()

login_succeeded = _signals.signal("devkit-sso-login-succeeded")
"""Sent after the session exists, with ``user``."""

login_failed = _signals.signal("devkit-sso-login-failed")
"""Sent with ``reason`` (one of :data:`flask_devkit_sso.errors.REASONS`) and ``error``, the
:class:`~flask_devkit_sso.LoginFailed`."""

logged_out = _signals.signal("devkit-sso-logged-out")
"""Sent after a logout, with ``user`` and ``server_told``: whether the server ended its own."""

token_refreshed = _signals.signal("devkit-sso-token-refreshed")
"""Sent with ``user`` when an access token was refreshed."""

session_ended = _signals.signal("devkit-sso-session-ended")
"""Sent with ``uid`` and ``why`` when a session ended otherwise than by its person's logout."""
