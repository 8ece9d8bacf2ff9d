"""Decides which form of a sign-in page to submit, and with which values, for ``--as``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from .check_server_browser import NoForm, Page, Stopped, Submission
from .check_server_forms import Field, Form, Link

_USERNAME: Final = re.compile(r"user|login|account|name|mail|uid|用户|账号|帐号", re.IGNORECASE)
_CANCEL: Final = re.compile(
    r"(?<![a-z])(cancel|deny|decline|reject|abort)|取消|拒绝", re.IGNORECASE
)

FIELD_HINT: Final = "Give every field of the form with --field NAME=VALUE (NAME=- for a secret)"


@dataclass
class Answers:
    """What a person types.

    :ivar name: the value of ``--as``.
    :ivar fields: the values of ``--field``, by the names of the form's fields.
    :ivar secret: the names of those that were read from standard input.
    :ivar was_sent: whether the name has been sent. A page without a place for it may follow.
    """

    name: str = field(repr=False)
    fields: Mapping[str, str] = field(repr=False)
    secret: frozenset[str] = field(default=frozenset(), repr=False)
    was_sent: bool = False


class Filler:
    """Fills in the forms of one visit, each of them once: trying again could lock an account."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._done: set[tuple[object, ...]] = set()
        self._has_sent_secret = False

    def fill(self, page: Page) -> Submission:
        """Return what to submit.

        :raises Stopped: if no form fits, or if the server shows a form again.
        """
        plans = [_Plan(form, self._answers) for form in page.content.forms]
        plan = max(plans, key=lambda plan: plan.score, default=None)
        if (plan is None or plan.score == 0) and self._done:
            raise NoForm(
                f"shows a page (HTTP {page.status}) after the sign-in form, so it refuses this "
                "person",
                _refusal_hint(page.status),
            )
        if plan is None or plan.score == 0:
            raise NoForm(
                f"shows a page (HTTP {page.status}) without a form that --as could fill in",
                "A form must work without JavaScript, and have a text field, or a button or choice "
                "with the name as its value. Otherwise run the command without --as",
            )
        secret = plan.sends_secret
        key = (plan.form.action, *(item.name for item in plan.form.fields))
        if key in self._done or (secret and self._has_sent_secret):
            raise Stopped(
                f"shows its sign-in form again (HTTP {page.status}), so it refuses this person",
                _refusal_hint(page.status),
            )
        if plan.lacks_password:
            raise Stopped(
                "asks for a password in a field that no --field names",
                f'{FIELD_HINT}. NAME is what the HTML calls the field: name="…"',
            )
        if secret and plan.method != "post":
            raise Stopped("has a sign-in form that sends the password by GET", 'Use method="post"')
        if plan.method not in ("get", "post") or plan.form.encoding in _OTHER_ENCODINGS:
            raise Stopped(
                "has a sign-in form with an encoding or method that --as does not support",
                'Use method="post" without enctype, or run the command without --as',
            )
        self._done.add(key)
        self._has_sent_secret |= secret
        self._answers.was_sent |= plan.has_name
        return plan.submission()


def _refusal_hint(status: int) -> str:
    if status == _TOO_MANY_REQUESTS:
        return "Wait until the server accepts another attempt: it limits guesses"
    return f"Check the name, the values, and that the account is enabled. {FIELD_HINT}"


_TOO_MANY_REQUESTS: Final = 429
_OTHER_ENCODINGS: Final = ("multipart/form-data", "text/plain")


class _Plan:
    """How one form would be filled in.

    :ivar score: how well it fits. 0 means not at all.
    """

    def __init__(self, form: Form, answers: Answers) -> None:
        self.form = form
        self._answers = answers
        self._given = {item.name for item in form.fields if item.name in answers.fields}
        self._choice = next(filter(self._is_choice, form.fields), None)
        self._text = None if self._choice else self._find_text()
        self._button = self._find_button()
        self.has_name = bool(self._choice or self._text)
        self.score = self._compute_score()

    @property
    def method(self) -> str:
        return (self._button and self._button.method) or self.form.method

    @property
    def sends_secret(self) -> bool:
        return bool(self._given & self._answers.secret) or any(
            item.name in self._given for item in self._passwords
        )

    @property
    def lacks_password(self) -> bool:
        return any(item.name not in self._given for item in self._passwords)

    def submission(self) -> Submission:
        address = self._button.action if self._button else None
        address = self.form.action if address is None else address
        return Submission(address, self.method, list(self._pairs()))

    @property
    def _passwords(self) -> list[Field]:
        return [item for item in self.form.fields if item.kind == "password"]

    def _is_choice(self, item: Field) -> bool:
        name = self._answers.name
        if item.name in self._given:
            return False
        can_choose = item.kind == "radio" or item.kind == "submit"
        return (can_choose and item.value == name) or name in item.options

    def _find_text(self) -> Field | None:
        free = [item for item in self.form.fields if item.is_text and item.name not in self._given]
        for fits in (
            lambda item: "username" in item.autocomplete,
            lambda item: _USERNAME.search(item.name),
            lambda item: not item.value,
        ):
            for item in free:
                if item.name and fits(item):
                    return item
        return None

    def _find_button(self) -> Field | None:
        """Return the button to press: the chosen one, or the first that does not cancel."""
        if self._choice is not None and self._choice.is_button:
            return self._choice
        buttons = [item for item in self.form.fields if item.is_button]
        for item in buttons:
            if item.name in self._given and self._answers.fields[item.name] == item.value:
                return item
        return next((item for item in buttons if not _cancels(item)), None)

    def _compute_score(self) -> int:
        if any(item.name in self._given for item in self._passwords):
            return 5
        if self._given:
            return 4
        if self._passwords and self._text:
            return 3
        if self.has_name:
            return 2
        # A page after the sign-in form, for example one that asks for consent.
        return int(self._answers.was_sent and self._button is not None)

    def _pairs(self) -> Iterator[tuple[str, str]]:
        sent = set()
        for item in self.form.fields:
            if not item.name:
                continue
            if item.name in self._given:
                if item.name not in sent:
                    sent.add(item.name)
                    yield item.name, self._answers.fields[item.name]
            elif item is self._text or item is self._choice:
                yield item.name, self._answers.name
            elif self._is_sent_unchanged(item):
                yield item.name, item.value

    def _is_sent_unchanged(self, item: Field) -> bool:
        if item.is_button:
            return item is self._button
        if item.kind == "radio" and self._choice and item.name == self._choice.name:
            return False
        return item.kind not in ("checkbox", "radio") or item.is_checked


def find_cancel(page: Page) -> Submission | None:
    """Return what a button or link does that cancels the sign-in, or None if there is none."""
    for form in page.content.forms:
        for button in form.fields:
            if button.is_button and _cancels(button):
                address = form.action if button.action is None else button.action
                kept = [item for item in form.fields if item.kind == "hidden" or item is button]
                pairs = [(item.name, item.value) for item in kept if item.name]
                return Submission(address, button.method or form.method, pairs)
    for link in page.content.links:
        if _cancels(link):
            return Submission(link.address, "get", [])
    return None


def _cancels(item: Field | Link) -> bool:
    texts = (item.text,) if isinstance(item, Link) else (item.text, item.name, item.value)
    return any(map(_CANCEL.search, texts))
