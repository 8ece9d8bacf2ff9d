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
from .folder import FolderError
from .state import current_state

bp = Blueprint("control", __name__, url_prefix="/_sandbox")

_MAX_TIMES = 1000
_ATTRIBUTES: dict[str, tuple[type, ...]] = {
    "disabled": (bool,),
    "role": (str,),
    "uid": (str,),
    "password": (str, type(None)),
}


@bp.errorhandler(BadRequest)
def _bad_request(error: BadRequest) -> Response:
    return _failed(error.description or "", 400)


def _failed(text: str, status: int) -> Response:
    response = jsonify(error=text)
    response.status_code = status
    return response


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
    """Change or create a person: ``{"username", "disabled", "role", "uid", "password"}``.

    Only the username is required. With the password null, anyone can sign in as this person, as at
    first. Returns the person after the change, without the password.
    """
    body = _json_object()
    username = body.pop("username", None)
    if not isinstance(username, str) or not username or not username.isprintable():
        raise BadRequest("A username is needed.")
    for name, value in body.items():
        expected = _ATTRIBUTES.get(name, ())
        printable = not isinstance(value, str) or value.isprintable()
        if not isinstance(value, expected) or not printable:
            raise BadRequest(
                "A person has a username, disabled (a boolean), a role, a uid, and a password or "
                "null."
            )
    try:
        person = asdict(current_state().people.change(username, **body))
    except FolderError as error:
        return _failed(str(error), 500)
    del person["password_hash"]
    return jsonify(person)


@bp.route("/elsewhere", methods=["GET", "POST"])
def elsewhere() -> Response:
    """The target of the fault ``redirect``: log clients that follow it."""
    current_state().calls.add(Call("elsewhere", SUCCESS, connection_number()))
    return envelope(SUCCESS)
