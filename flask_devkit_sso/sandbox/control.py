"""Turning the knobs from outside: what tests do to a running sandbox, below ``/_sandbox/``.

Only JSON is taken, so that no page of another site can do it through a browser.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from flask import Blueprint, Response, jsonify, request
from werkzeug.exceptions import BadRequest

from .envelope import SUCCESS, envelope
from .faults import INTERFACES, is_known, ways
from .state import Call, the_state
from .upstream import CONNECTION

bp = Blueprint("control", __name__, url_prefix="/_sandbox")

_MOST_TIMES = 1000


@bp.errorhandler(BadRequest)
def _bad_request(error: BadRequest) -> tuple[Response, int]:
    return jsonify(error=error.description), 400


def _json_object() -> dict[str, Any]:
    body = request.get_json(silent=True)
    if not isinstance(body, dict):
        raise BadRequest("A JSON object is needed, with the content type application/json.")
    return body


@bp.post("/fail-next")
def fail_next() -> tuple[str, int]:
    """Let the next calls fail: ``{"interface", "how", "times": 1}``, see ``faults.spoil``."""
    body = _json_object()
    interface, how, times = body.get("interface"), body.get("how"), body.get("times", 1)
    if interface not in INTERFACES:
        raise BadRequest(f"The interface is one of {', '.join(INTERFACES)}.")
    if not isinstance(how, str) or not is_known(interface, how):
        raise BadRequest(f"The ways to fail of {interface} are {ways(interface)}.")
    if type(times) is not int or not 1 <= times <= _MOST_TIMES:
        raise BadRequest(f"The times are 1 to {_MOST_TIMES}.")
    the_state().fail_next(interface, how, times)
    return "", 204


@bp.delete("/fail-next")
def forget_faults() -> tuple[str, int]:
    """Let nothing fail any more."""
    the_state().forget_faults()
    return "", 204


@bp.get("/calls")
def calls() -> Response:
    """Tell the upstream calls: a list of ``{"interface", "code", "connection"}``."""
    return jsonify([asdict(call) for call in the_state().calls()])


@bp.delete("/calls")
def forget_calls() -> tuple[str, int]:
    """Forget the upstream calls."""
    the_state().forget_calls()
    return "", 204


@bp.post("/people")
def change_person() -> Response:
    """Change or make a person: ``{"username", "disabled", "role", "uid"}``, all but the first
    optional; answers with the person as it is now.
    """
    body = _json_object()
    username = body.pop("username", None)
    if not isinstance(username, str) or not username or not username.isprintable():
        raise BadRequest("A username is needed.")
    for name, value in body.items():
        wanted = {"disabled": bool, "role": str, "uid": str}.get(name)
        readable = not isinstance(value, str) or value.isprintable()
        if wanted is None or not isinstance(value, wanted) or not readable:
            raise BadRequest("A person has a username, disabled (a boolean), a role and a uid.")
    return jsonify(asdict(the_state().change_person(username, **body)))


@bp.route("/elsewhere", methods=["GET", "POST"])
def elsewhere() -> Response:
    """Be where the failure ``redirect`` leads; a client that follows it shows in the calls."""
    the_state().record(Call("elsewhere", SUCCESS, request.environ.get(CONNECTION, 0)))
    return envelope(SUCCESS)
