"""Tests user validity (docs/protocol.md, section 5)."""

from __future__ import annotations

import json

from ..errors import ServerError, ServerUnavailable
from ..protocol import contract
from ..protocol.contract import UserInfo
from ..protocol.server import Validity
from .check_server_checks import VALIDITY
from .check_server_target import MADE_UP, Target
from .findings import describe_error


def check_validity(target: Target, user: UserInfo, access_token: str) -> None:
    """Ask about the person who has just signed in, about nobody, and about both."""
    validity, found = target.server.validity, target.found
    if validity is None:
        return
    person = user.uid if validity.key == "uid" else user.username
    for check, users, expected, wrong, fix in (
        (
            "valid_person",
            [person],
            [True],
            "returns false for the person who signed in",
            f"Return true for a valid user, who is named by {validity.key} in {validity.field}",
        ),
        (
            "made_up_person",
            [MADE_UP],
            [False],
            "returns true for a made-up person",
            "Return false for a user who does not exist",
        ),
        (
            "several_people",
            [MADE_UP, person],
            [False, True],
            "does not return one boolean for each user, in their order",
            "Return as many booleans as there are users, in the order of the request",
        ),
    ):
        try:
            answers = _ask(target, validity, access_token, users)
        except (ServerUnavailable, ServerError) as error:
            found.error(VALIDITY, check, describe_error(error))
            continue
        if answers == expected:
            found.ok(VALIDITY, check, _RIGHT[check])
        elif answers is None or len(answers) != len(users):
            found.error(
                VALIDITY,
                check,
                "validation_list does not have one boolean for each user",
                "Return a list with a boolean for each user, in the order of the request",
            )
        else:
            found.error(VALIDITY, check, wrong, fix)


_RIGHT = {
    "valid_person": "returns true for the person who signed in",
    "made_up_person": "returns false for a made-up person",
    "several_people": "returns one boolean for each user, in their order",
}


def _ask(
    target: Target, validity: Validity, access_token: str, users: list[str]
) -> list[bool] | None:
    """Return the list of booleans, or None if the response has none."""
    body = {
        "client_id": target.server.client_id,
        "access_token": access_token,
        validity.field: users,
    }
    response = target.transport.post(validity.url, json.dumps(body).encode())
    answers = contract.envelope_data(response, "user validity").get("validation_list")
    if isinstance(answers, list) and all(type(answer) is bool for answer in answers):
        return answers
    return None
