"""The check of ``doctor`` whether authorize accepts the redirect URI (docs/protocol.md, section 1).

It asks about the redirect URI that logins send, and about one that nobody can have registered. It
signs nobody in: it sends neither cookies nor forms, requests only pages of the server, and never
follows a redirect to the application.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final
from urllib.parse import urljoin, urlsplit

from ..config.redirect_uri import RedirectURI
from ..config.settings import PREFIX, Settings
from ..errors import ServerError, ServerUnavailable
from ..protocol import authorization
from ..protocol.contract import RawResponse
from ..protocol.envelope import NotAnEnvelope, parse_envelope
from ..protocol.error_codes import SUCCESS, explain, is_about_parameter
from ..protocol.server import Server
from ..protocol.transport import Transport
from .doctor_network import SHOW_HINT
from .findings import Findings, describe_error

_SUBJECT: Final = "authorize"
_MADE_UP: Final = "made-up-by-doctor"

_NOBODYS: Final = "https://made-up-by-doctor.invalid/callback"
"""A redirect URI that nobody can have registered, because no host has such a name (RFC 2606)."""

_MAX_REDIRECTS: Final = 5

_SIGN_IN_FORM: Final = re.compile(
    rb"<form\b[^<>]{0,500}\bmethod\s*=\s*[\"']?post\b"
    rb"|<input\b[^<>]{0,500}\btype\s*=\s*[\"']?password\b",
    re.IGNORECASE,
)

_BUSY: Final = (408, 425, 429)
_NO_SUCH_PAGE: Final = (404, 405, 410)

_ERRORS: Final = {
    "access_denied",
    "interaction_required",
    "invalid_request",
    "invalid_scope",
    "login_required",
    "server_error",
    "temporarily_unavailable",
    "unauthorized_client",
    "unsupported_response_type",
}
"""Errors of RFC 6749 (section 4.1.2.1) and OpenID Connect. No other one is printed."""


class _Kind(Enum):
    SIGN_IN = auto()
    """It asks the person to sign in."""
    REFUSAL = auto()
    BACK = auto()
    """It redirects to the redirect URI."""
    FAILURE = auto()
    OTHER = auto()
    """A page or a redirect that only a person understands."""
    NO_RESPONSE = auto()
    BUSY = auto()


@dataclass(frozen=True)
class _Outcome:
    """How authorize responds to an authorization request."""

    kind: _Kind
    text: str
    fix: str = ""


def check_authorize(
    found: Findings, transport: Transport, server: Server, settings: Settings, *, is_reached: bool
) -> None:
    """Print whether authorize accepts the redirect URI, or that this is unknown.

    :param is_reached: whether the application has to reach the host of authorize, and does.
        Otherwise, perhaps only browsers do.
    """
    uri = settings.redirect_uri
    if uri is None:
        _print_unknown(found, f"because {PREFIX}REDIRECT_URI is not set")
        return
    authorize = _Authorize(transport, server, settings)
    has_nonce = settings.binding == "redirect_uri"
    ours = authorize.ask(authorization.add_nonce(uri, _MADE_UP) if has_nonce else uri)
    if ours.kind is _Kind.REFUSAL and has_nonce:
        plain = authorize.ask(uri)
        if plain.kind in (_Kind.SIGN_IN, _Kind.OTHER):
            found.error(
                _SUBJECT,
                f"refuses the redirect_uri with the nonce of {PREFIX}BINDING=redirect_uri "
                f"({ours.text}), but not without it ({plain.text})",
                "Choose another binding. `flask devkit-sso check-server` finds out which one fits",
            )
            return
    if ours.kind is _Kind.REFUSAL:
        found.error(_SUBJECT, f"refuses this client_id or redirect_uri ({ours.text})", ours.fix)
    elif ours.kind in (_Kind.BACK, _Kind.FAILURE) or (
        ours.kind is _Kind.NO_RESPONSE and is_reached
    ):
        found.error(_SUBJECT, ours.text, ours.fix)
    elif ours.kind in (_Kind.NO_RESPONSE, _Kind.BUSY):
        _print_unknown(found, f"because it gave this host no usable response: {ours.text}")
    else:
        _compare(found, ours, authorize.ask(_NOBODYS))


def _compare(found: Findings, ours: _Outcome, nobodys: _Outcome) -> None:
    """Compare the response to our redirect URI, which is no refusal, with that to a made-up one."""
    if nobodys.kind is _Kind.BACK:
        found.error(
            _SUBJECT,
            "redirects to a redirect_uri that nobody has registered",
            "Do not use this server before it shows an error page instead",
        )
    elif nobodys.kind in (_Kind.NO_RESPONSE, _Kind.BUSY):
        _print_unknown(found, f"because it gave no usable response to another one: {nobodys.text}")
    elif nobodys.kind in (ours.kind, _Kind.SIGN_IN):
        _print_unknown(
            found,
            f"because it responds in the same way to one that nobody has registered "
            f"({nobodys.text})",
        )
    else:
        found.ok(
            _SUBJECT,
            f"accepts the redirect_uri ({ours.text}), but not one that nobody has registered "
            f"({nobodys.text})",
        )


def _print_unknown(found: Findings, why: str) -> None:
    found.note(
        _SUBJECT,
        f"cannot tell whether it accepts the redirect_uri, {why}. Sign in to find out, or run "
        "`flask devkit-sso check-server --as NAME`",
    )


@dataclass(frozen=True)
class _Authorize:
    transport: Transport
    server: Server
    settings: Settings

    def ask(self, redirect_uri: str) -> _Outcome:
        """Send the authorization request of a login, and follow redirects to the server itself."""
        settings, start = self.settings, self.server.authorize_url
        url = authorization.authorization_url(
            start,
            client_id=self.server.client_id,
            redirect_uri=redirect_uri,
            state=_MADE_UP if settings.binding == "state" else None,
            code_verifier=_MADE_UP if settings.pkce else None,
        )
        for number in range(_MAX_REDIRECTS + 1):
            try:
                response = self.transport.get(url)
            except ServerUnavailable as error:
                fix = (
                    f"Check {start}, its scheme and port too. If it is right, read the server's log"
                )
                return _Outcome(_Kind.NO_RESPONSE, describe_error(error), fix)
            except ServerError as error:
                return _Outcome(_Kind.OTHER, describe_error(error))
            location = response.headers.get("Location", "")
            if not 300 <= response.status <= 399 or not location:
                return self._read(response, is_redirected=number > 0)
            try:
                target = urljoin(url, location)
                if _is_at(redirect_uri, target):
                    return _read_redirect(target)
                is_servers = self._is_servers(target)
            except ValueError:
                is_servers = False
            if not is_servers:
                return _Outcome(_Kind.OTHER, f"HTTP {response.status} to another page")
            url = target.partition("#")[0]
        return _Outcome(_Kind.OTHER, f"more than {_MAX_REDIRECTS} redirects")

    def _is_servers(self, url: str) -> bool:
        """Return whether a page has the origin of authorize, and so cannot be the application's."""
        ours = RedirectURI(self.settings.redirect_uri or _NOBODYS, "")
        is_same = urlsplit(url)[:2] == urlsplit(self.server.authorize_url)[:2]
        return is_same and not ours.shares_origin(url)

    def _read(self, response: RawResponse, *, is_redirected: bool) -> _Outcome:
        """Return what a response means that is not a redirect.

        :param is_redirected: whether redirects led to it. An error may then only mean that a cookie
            is missing.
        """
        status = response.status
        text, code = f"HTTP {status}", _read_code(response)
        if code is not None and code != SUCCESS:
            kind = _Kind.REFUSAL if is_about_parameter(code) else _Kind.FAILURE
            fix = explain(code).fix or "Read the server's log"
            return _Outcome(kind, f"{code}: {explain(code).meaning}", fix)
        if 200 <= status <= 299 and _SIGN_IN_FORM.search(response.body):
            return _Outcome(_Kind.SIGN_IN, f"sign-in page, {text}")
        if status == 401 and "WWW-Authenticate" in response.headers:
            return _Outcome(_Kind.SIGN_IN, text)
        if status in _BUSY:
            return _Outcome(_Kind.BUSY, text)
        # Scripts of some sign-in pages expect 401.
        if is_redirected or status < 400 or status == 401:
            return _Outcome(_Kind.OTHER, text)
        if status in _NO_SUCH_PAGE:
            fix = f"Check {self.server.authorize_url}. {SHOW_HINT}"
            return _Outcome(_Kind.FAILURE, f"is not at its URL ({text})", fix)
        if status >= 500:
            return _Outcome(_Kind.FAILURE, f"fails ({text})", "Read the server's log")
        fix = (
            f"Have the client id {self.server.client_id} and the redirect_uri "
            f"{self.settings.redirect_uri} registered at the server, byte for byte. {SHOW_HINT}"
        )
        return _Outcome(_Kind.REFUSAL, text, fix)


def _is_at(redirect_uri: str, url: str) -> bool:
    """Return whether a URL is a redirect URI with any query and fragment."""
    is_same_path = (urlsplit(url).path or "/") == (urlsplit(redirect_uri).path or "/")
    return is_same_path and RedirectURI(redirect_uri, "").shares_origin(url)


def _read_redirect(url: str) -> _Outcome:
    """Return what a redirect to the redirect URI means, although nobody has signed in."""
    error = re.search(r"[?&#]error=([^&#]*)", url)
    if error is None:
        return _Outcome(
            _Kind.BACK,
            "redirects back although nobody has signed in",
            "Do not use this server before it asks people to sign in",
        )
    name = error[1] if error[1] in _ERRORS else "an unknown error"
    return _Outcome(
        _Kind.BACK,
        f"accepts the redirect_uri, but refuses the request ({name})",
        "Run `flask devkit-sso check-server` for details",
    )


def _read_code(response: RawResponse) -> str | None:
    """Return the code of an envelope, which some servers send instead of an error page, or None."""
    try:
        code = str(parse_envelope(response.body).get("code"))
    except NotAnEnvelope:
        return None
    return code if re.fullmatch(r"[0-9]{4}", code) else None
