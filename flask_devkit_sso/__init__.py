"""Sign the users of a Flask application in through DevKit single sign-on."""

from .errors import (
    ConfigError,
    LoginFailed,
    LoginRefused,
    ServerError,
    ServerUnavailable,
    SSOError,
    StoreUnavailable,
)
from .extension import DevKitSSO
from .signals import (
    logged_out,
    login_failed,
    login_succeeded,
    session_ended,
    token_refreshed,
    user_changed,
)
from .web.guard import login_required, public, role_required
from .web.passive import passive
from .web.request_user import current_user

__all__ = [
    "ConfigError",
    "DevKitSSO",
    "LoginFailed",
    "LoginRefused",
    "SSOError",
    "ServerError",
    "ServerUnavailable",
    "StoreUnavailable",
    "current_user",
    "logged_out",
    "login_failed",
    "login_required",
    "login_succeeded",
    "passive",
    "public",
    "role_required",
    "session_ended",
    "token_refreshed",
    "user_changed",
]
