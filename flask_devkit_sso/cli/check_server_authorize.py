"""Tests authorize as far as possible without a person (docs/protocol.md, section 1)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal
from urllib.parse import parse_qs, urlsplit, urlunsplit

from ..errors import ServerError, ServerUnavailable
from ..protocol import authorization
from .check_server_checks import AUTHORIZE
from .check_server_target import DOCTOR_HINT, MADE_UP, Target
from .findings import describe_error

UNREGISTERED: Final = "https://unregistered.invalid/callback"


@dataclass(frozen=True)
class _Outcome:
    """How authorize responds: it redirects to the redirect URI, refuses, fails, or does something
    else, such as showing its login page."""

    kind: Literal["redirect back", "refusal", "failure", "other"]
    text: str


@dataclass(frozen=True)
class Redirect:
    """What a redirect back to the redirect URI contains."""

    parameters: dict[str, list[str]] = field(repr=False)
    is_before_fragment: bool

    @property
    def code(self) -> str:
        """The authorization code, of a redirect that has one."""
        return self.parameters["code"][0]


@dataclass(frozen=True)
class Attempt:
    """An authorization request that the server has to refuse."""

    check: str
    fault: str
    client_id: str
    redirect_uri: str


def check_authorize(target: Target, undecided: list[Attempt] | None) -> bool:
    """Check how authorize responds to somebody who is not signed in.

    :param undecided: receives the requests for which authorize shows a page that may be a refusal.
        Without a list they become notes.
    :return: whether it responds at all.
    """
    found, client_id, uri = target.found, target.server.client_id, target.redirect_uri
    outcome = _request(target, "login_page", client_id, uri)
    if outcome is None:
        return False
    if outcome.kind == "redirect back":
        found.error(
            AUTHORIZE,
            "login_page",
            f"redirects the registered client back without a login ({outcome.text})",
        )
    elif outcome.kind == "failure":
        found.error(AUTHORIZE, "login_page", f"fails ({outcome.text})", "Read the server's log")
    elif outcome.kind == "refusal":
        found.error(
            AUTHORIZE,
            "login_page",
            f"refuses the registered client ({outcome.text})",
            "Check that this redirect_uri is registered",
        )
    else:
        text = f"starts a login for the registered client ({outcome.text})"
        found.ok(AUTHORIZE, "login_page", text)
    for check, fault, wrong_id, wrong_uri in (
        ("unknown_client", "an unknown client", MADE_UP, uri),
        (
            "unregistered_redirect_uri",
            "an unregistered redirect_uri",
            client_id,
            UNREGISTERED,
        ),
        (
            "longer_redirect_uri",
            "a redirect_uri with one more character",
            client_id,
            f"{uri}x",
        ),
    ):
        outcome = _request(target, check, wrong_id, wrong_uri)
        if outcome is None:
            return False
        if outcome.kind == "redirect back" and wrong_uri == UNREGISTERED:
            found.error(AUTHORIZE, check, f"redirects to {fault}", "Show an error page instead")
        elif outcome.kind == "redirect back":
            found.note(AUTHORIZE, check, f"redirects back for {fault} ({outcome.text})")
        elif outcome.kind == "refusal":
            found.ok(AUTHORIZE, check, f"refuses {fault} ({outcome.text})")
        elif outcome.kind == "failure":
            text = f"fails for {fault} ({outcome.text})"
            found.warning(AUTHORIZE, check, text, "Show an error page with HTTP 400 instead")
        elif undecided is not None:
            undecided.append(Attempt(check, fault, wrong_id, wrong_uri))
        else:
            found.note(
                AUTHORIZE,
                check,
                f"{outcome.text} for {fault}: only a person can see if it is a refusal",
            )
    return True


def _request(target: Target, check: str, client_id: str, redirect_uri: str) -> _Outcome | None:
    """Send an authorization request. Without a response, report the error and return None."""
    url = authorization.authorization_url(
        target.server.authorize_url,
        client_id=client_id,
        redirect_uri=redirect_uri,
        state=MADE_UP,
    )
    try:
        response = target.transport.get(url)
    except (ServerUnavailable, ServerError) as error:
        target.found.error(AUTHORIZE, check, describe_error(error), DOCTOR_HINT)
        return None
    text = f"HTTP {response.status}"
    if 300 <= response.status <= 399:
        location = response.headers.get("Location", "")
        if location.startswith(redirect_uri) or parse_redirect(location, redirect_uri):
            return _Outcome("redirect back", text)
        return _Outcome("other", f"{text} to another page")
    if response.status >= 500:
        return _Outcome("failure", text)
    return _Outcome("refusal" if response.status >= 400 else "other", text)


def parse_redirect(address: str, redirect_uri: str) -> Redirect | None:
    """Return the parameters that were added to a redirect URI, or None for another address."""
    base, hash_sign, fragment = _normalize(redirect_uri).partition("#")
    end = hash_sign + fragment
    if address.startswith(base + end):
        rest, is_before_fragment = address.removeprefix(base + end), False
    elif address.startswith(base) and address.endswith(end):
        rest, is_before_fragment = address.removeprefix(base).removesuffix(end), True
    else:
        return None
    if rest[:1] not in ("?", "&"):
        return None
    return Redirect(parse_qs(rest[1:], keep_blank_values=True), is_before_fragment)


def _normalize(url: str) -> str:
    """Return a URL as browsers show it, with a path."""
    parts = urlsplit(url)
    return url if parts.path else urlunsplit(parts._replace(path="/"))
