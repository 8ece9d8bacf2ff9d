"""Remote control, for tests: make interfaces fail, list calls, change people.

Everything is below ``/_sandbox/``. Bodies must be JSON, so that a page of another site cannot send
them through a browser.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from flask import Blueprint, Response, jsonify, request
from werkzeug.exceptions import BadRequest

from .calls import Call
from .envelope import SUCCESS, envelope
from .environ import connection_number
from .faults import INTERFACES, describe_faults, is_fault
from .state import current_state

bp = Blueprint("control", __name__, url_prefix="/_sandbox")

_MAX_TIMES = 1000


@bp.errorhandler(BadRequest)
def _bad_request(error: BadRequest) -> tuple[Response, int]:
    return jsonify(error=error.description), 400


def _json_object() -> dict[str, Any]:
    body = request.get_json(silent=True)
    if not isinstance(body, dict):
        raise BadRequest("The body must be a JSON object, of the content type application/json.")
    return body


@bp.post("/fail-next")
def fail_next() -> tuple[str, int]:
    """Let the next calls fail: ``{"interface", "how", "times": 1}``; see ``faults.respond``."""
    body = _json_object()
    interface, fault, times = body.get("interface"), body.get("how"), body.get("times", 1)
    if interface not in INTERFACES:
        raise BadRequest(f"The interface must be one of {', '.join(INTERFACES)}.")
    if not isinstance(fault, str) or not is_fault(interface, fault):
        raise BadRequest(f"{interface} can fail in these ways: {describe_faults(interface)}.")
    if type(times) is not int or not 1 <= times <= _MAX_TIMES:
        raise BadRequest(f"The times must be 1 to {_MAX_TIMES}.")
    current_state().faults.add(interface, fault, times)
    return "", 204


@bp.delete("/fail-next")
def clear_faults() -> tuple[str, int]:
    """Let no further calls fail."""
    current_state().faults.clear()
    return "", 204


@bp.get("/calls")
def calls() -> Response:
    """Return the calls so far, a list of ``{"interface", "code", "connection"}``."""
    return jsonify([asdict(call) for call in current_state().calls.all()])


@bp.delete("/calls")
def clear_calls() -> tuple[str, int]:
    """Forget the calls so far."""
    current_state().calls.clear()
    return "", 204


@bp.post("/people")
def change_person() -> Response:
    """Change or create a person: ``{"username", "disabled", "role", "uid"}``.

    Only the username is required. Returns the person after the change.
    """
    body = _json_object()
    username = body.pop("username", None)
    if not isinstance(username, str) or not username or not username.isprintable():
        raise BadRequest("A username is needed.")
    for name, value in body.items():
        expected = {"disabled": bool, "role": str, "uid": str}.get(name)
        printable = not isinstance(value, str) or value.isprintable()
        if expected is None or not isinstance(value, expected) or not printable:
            raise BadRequest("A person has a username, disabled (a boolean), a role and a uid.")
    return jsonify(asdict(current_state().people.change(username, **body)))


@bp.route("/elsewhere", methods=["GET", "POST"])
def elsewhere() -> Response:
    """The target of the fault ``redirect``: log clients that follow it."""
    current_state().calls.add(Call("elsewhere", SUCCESS, connection_number()))
    return envelope(SUCCESS)
