"""The route that tells a front end who is signed in."""

from __future__ import annotations

from flask import Response, request

from ..service import get_service
from ..users import Anonymous
from .failures import handles_failures
from .guard import login_required_json
from .pages import set_private
from .passive import passive
from .place import url_for
from .request_user import verified_user
from .requests import refuse_other_sites
from .responses import json_response
from .returning import return_url


@passive
@handles_failures
def me() -> Response:
    """Return the current user as a JSON object, or 401 with the address of the login.

    Only pages of this site may ask. This never extends the idle timeout, so a front end may ask as
    often as it likes.
    """
    refuse_other_sites(request)
    user = verified_user().user
    if isinstance(user, Anonymous):
        # Without settings, the login's address leads nowhere.
        get_service()
        login_url = url_for("devkit_sso_authorize.login", next=return_url())
        response = login_required_json(login_url)
    else:
        response = json_response(
            uid=user.uid, username=user.username, role=user.role, is_admin=user.is_admin
        )
    response.headers["Cross-Origin-Resource-Policy"] = "same-origin"
    return set_private(response)
