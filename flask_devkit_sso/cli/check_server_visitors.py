"""Who opens authorize for ``check-server``: a person who pastes addresses, or ``--as``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Literal, Protocol

import click

from ..protocol.transport import Transport
from .check_server_browser import Browser, NoForm, Page, Stopped, Visit
from .check_server_fill import FIELD_HINT, Answers, Filler, find_cancel
from .output import echo


class NotBack(Exception):
    """The server did not redirect back to the redirect URI.

    :ivar level: ``skipped`` if nothing was tested, otherwise how bad it is.
    :ivar text: for ``skipped``, why nothing was tested; otherwise, what authorize does.
    :ivar is_unreachable: whether the server did not respond, so that this is no refusal.
    """

    def __init__(
        self,
        level: Literal["skipped", "warning", "error"],
        text: str,
        fix: str = "",
        *,
        is_unreachable: bool = False,
    ) -> None:
        super().__init__(text)
        self.level = level
        self.text = text
        self.fix = fix
        self.is_unreachable = is_unreachable


class Visitor(Protocol):
    """Opens authorization requests. The first three methods return the address to which the
    server redirected.

    :raises NotBack: if it redirected to no address.
    """

    def sign_in(self, url: str, redirect_uri: str, purpose: str) -> str:
        """Sign in if the server asks for it."""

    def look(self, url: str, redirect_uri: str, why: str) -> str | None:
        """Do not sign in. Return None if the server shows its sign-in page."""

    def cancel(self, url: str, redirect_uri: str) -> str:
        """Cancel the sign-in on the sign-in page."""

    def require_account_changes(self) -> None:
        """Return if :meth:`change_account` is possible."""

    def change_account(self, how: Literal["disable", "enable"]) -> None:
        """Disable or enable the account at the server."""


class Attended:
    """A person with a browser, who pastes addresses.

    :param tell: prints instructions.
    """

    def __init__(self, tell: Callable[[str], None], *, to_stderr: bool) -> None:
        self._tell = tell
        self._to_stderr = to_stderr

    def sign_in(self, url: str, redirect_uri: str, purpose: str) -> str:
        self._tell(f"\nOpen this URL for {purpose}:\n  {url}")
        return self._ask("The address that you were redirected to (not shown)")

    def look(self, url: str, redirect_uri: str, why: str) -> str | None:
        self._tell(f"\nOpen this URL {why}, and do not sign in:\n  {url}")
        answer = self._ask('The address that you were redirected to, or "page" if you see a page')
        return None if answer == "page" else answer

    def cancel(self, url: str, redirect_uri: str) -> str:
        self._tell(
            f"\nOpen this URL in a private window, and cancel the sign-in on the page:\n  {url}"
        )
        return self._ask("The address that you were redirected to (not shown)")

    def require_account_changes(self) -> None:
        return

    def change_account(self, how: Literal["disable", "enable"]) -> None:
        self._tell(f"\nNow {how} the account of this person at the server.")
        if self._ask('"done" when you have done it') != "done":
            raise NotBack("skipped", "the account was not disabled")

    def _ask(self, prompt: str) -> str:
        """Ask for an answer.

        :raises NotBack: if there is none, or nobody to ask.
        """
        if sys.stdin.isatty():
            answer: str = click.prompt(
                prompt, default="", show_default=False, hide_input=True, err=self._to_stderr
            )
        else:
            echo(f"{prompt}:", error=self._to_stderr)
            answer = sys.stdin.readline()
        if not answer.strip():
            raise NotBack("skipped", "no address was given")
        return answer.strip()


class Unattended:
    """Fills in the server's forms, as somebody would whose browser has no JavaScript.

    :raises NotBack: if nothing may be sent to the server.
    """

    def __init__(self, transport: Transport, authorize_url: str, answers: Answers) -> None:
        self._transport = transport
        self._authorize_url = authorize_url
        self._answers = answers
        self._browser = self._new_browser()
        self._has_failed = False

    def sign_in(self, url: str, redirect_uri: str, purpose: str) -> str:
        if self._has_failed:
            # Another attempt could lock the account.
            raise NotBack("skipped", "an earlier sign-in failed")
        visit = Visit(self._browser, redirect_uri)
        try:
            return self._fill_in(visit, url)
        except Stopped as error:
            # If nothing was submitted, the server refuses the request and not the person.
            self._has_failed = visit.has_submitted
            raise NotBack(
                "error", error.text, error.fix, is_unreachable=error.is_unreachable
            ) from None

    def attempt(self, url: str, redirect_uri: str) -> str | None:
        """Open a request that the server has to refuse, and sign in if it asks for it.

        :return: the address that it redirects to, or None if it shows a page instead.
        """
        try:
            return self._fill_in(Visit(self._browser, redirect_uri), url)
        except NoForm:
            return None
        except Stopped as error:
            raise NotBack("skipped", f"authorize {error.text}") from None

    def _fill_in(self, visit: Visit, url: str) -> str:
        """Fill in each form on the way from a URL, and return the address that it leads back to."""
        filler, page = Filler(self._answers), visit.open(url)
        while isinstance(page, Page):
            page = visit.submit(page, filler.fill(page))
        return page

    def look(self, url: str, redirect_uri: str, why: str) -> str | None:
        try:
            page = Visit(self._browser, redirect_uri).open(url)
            if isinstance(page, str):
                return page
            # A page of another kind, such as an error, says nothing about the sign-in.
            Filler(Answers(self._answers.name, self._answers.fields)).fill(page)
        except Stopped:
            raise NotBack("skipped", "authorize shows no sign-in page that --as knows") from None
        return None

    def cancel(self, url: str, redirect_uri: str) -> str:
        visit = Visit(self._new_browser(), redirect_uri)
        try:
            page = visit.open(url)
            if isinstance(page, Page):
                cancelling = find_cancel(page)
                if cancelling is None:
                    raise NotBack("skipped", "the sign-in page has no button or link to cancel")
                page = visit.submit(page, cancelling)
        except Stopped as error:
            raise NotBack("error", error.text, error.fix) from None
        if isinstance(page, Page):
            raise NotBack(
                "warning",
                f"shows a page (HTTP {page.status}) after a cancelled sign-in",
                "Redirect back with error=access_denied, so that the person can try again",
            )
        return page

    def require_account_changes(self) -> None:
        raise NotBack("skipped", "--as cannot disable an account: run the command without it")

    def change_account(self, how: Literal["disable", "enable"]) -> None:
        self.require_account_changes()

    def _new_browser(self) -> Browser:
        try:
            return Browser(self._transport, self._authorize_url)
        except Stopped as error:
            raise NotBack("error", error.text, error.fix) from None


def read_answers(name: str, fields: tuple[str, ...]) -> Answers:
    """Return what ``--as`` and ``--field`` give. Each ``NAME=-`` reads a line of standard input.

    :raises click.UsageError: if a field is not valid. The text does not contain its value.
    """
    values, secret = {}, set()
    for given in fields:
        field, equals, value = given.partition("=")
        if not (field and equals):
            raise click.UsageError("--field expects NAME=VALUE, or NAME=- to read the value.")
        if field in values:
            raise click.UsageError("--field names the same field twice.")
        if value == "-":
            secret.add(field)
            value = _read_value()
        values[field] = value
    return Answers(name, values, frozenset(secret))


def _read_value() -> str:
    if sys.stdin.isatty():
        value: str = click.prompt("Value of the field", default="", hide_input=True, err=True)
    else:
        value = sys.stdin.readline().removesuffix("\n").removesuffix("\r")
    if not value:
        raise click.UsageError(f"Standard input has no value for a field. {FIELD_HINT}.")
    return value
