"""Sign the users of a Flask application in through DevKit single sign-on."""

from .errors import (
    ConfigError,
    LoginFailed,
    LoginRefused,
    ServerError,
    ServerUnavailable,
    SSOError,
)
from .extension import DevKitSSO
from .signals import (
    logged_out,
    login_failed,
    login_succeeded,
    session_ended,
    token_refreshed,
)
from .web.guard import current_user, login_required, public, role_required

__all__ = [
    "ConfigError",
    "DevKitSSO",
    "LoginFailed",
    "LoginRefused",
    "SSOError",
    "ServerError",
    "ServerUnavailable",
    "current_user",
    "logged_out",
    "login_failed",
    "login_required",
    "login_succeeded",
    "public",
    "role_required",
    "session_ended",
    "token_refreshed",
]
