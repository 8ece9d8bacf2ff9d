"""Tests an authentication server against the protocol: docs/protocol.md, whose sections it names.

What the protocol leaves open is noted, never wrong. Nothing that the server sends is shown but
codes of four digits, statuses and known names of errors: the rest may hold a secret.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qs, urlsplit, urlunsplit

import click

from ..config.settings import PREFIX, Settings
from ..errors import ServerError, ServerUnavailable
from ..protocol import contract
from ..protocol.client import Client
from ..protocol.contract import MAX_EXPIRES_IN, Reply, TokenAnswer
from ..protocol.server import Server
from ..protocol.transport import Transport
from .findings import Findings

_PARAMETERS: Final = (
    "client_id",
    "authorization_code",
    "grant_type",
    "client_secret",
    "access_token",
    "refresh_token",
    "redirect_uri",
)
"""In the order of the table of error codes: the first one's are 8101 and 8201."""

_MADE_UP: Final = "made-up-by-check-server"
_UNREGISTERED: Final = "https://unregistered.invalid/callback"


@dataclass(frozen=True)
class _Interface:
    """One of the POST interfaces, with a request whose ``open`` parameter is made up."""

    name: str
    section: int
    url: str
    fields: Mapping[str, str] = field(repr=False)
    open: str


@dataclass(frozen=True)
class _WayBack:
    """What the browser was sent back with."""

    code: str = field(repr=False)
    state: list[str] = field(repr=False)
    has_issuer: bool
    before_fragment: bool


class _NoAnswer(Exception):
    """There is no use in asking this interface any more; it has been told why."""


def check(
    found: Findings,
    server: Server,
    redirect_uri: str,
    settings: Settings,
    ask: Callable[[str], str],
) -> None:
    """Test a server.

    :param redirect_uri: the one that is registered.
    :param ask: asks a person for the address that the browser was sent back to; "" for none.
    """
    checker = _Checker(found, server, redirect_uri, settings)
    found.section("Common to all, and sections 2 to 6, as far as it goes without a person")
    for interface in checker.interfaces():
        with suppress(_NoAnswer):
            checker.refusals(interface)
    found.section("Section 1, authorize, as far as it goes without a person")
    checker.authorize()
    found.section("Sections 1 to 6 with a person")
    click.echo(
        "Open each address in one and the same browser, and sign in when you are asked to. Then\n"
        "copy the whole address that you were sent back to, and paste it here. The application\n"
        "should not be running: its page would take the code out of the address."
    )
    _Sitting(checker, ask).run(settings.binding)


class _Checker:
    def __init__(
        self, found: Findings, server: Server, redirect_uri: str, settings: Settings
    ) -> None:
        self.found = found
        self.server = server
        self.redirect_uri = redirect_uri
        self.transport = Transport(ca_bundle=settings.ca_bundle, timeout=settings.timeout)
        self.client = Client(server, self.transport)

    def interfaces(self) -> list[_Interface]:
        server = self.server
        client = {"client_id": server.client_id}
        token = client | {
            "grant_type": "authorization_code",
            "client_secret": server.client_secret,
            "authorization_code": _MADE_UP,
            "redirect_uri": self.redirect_uri,
        }
        access = client | {"access_token": _MADE_UP}
        refresh = client | {"refresh_token": _MADE_UP}
        return [
            _Interface("getToken", 2, server.token_url, token, "authorization_code"),
            _Interface("getUserInfo", 3, server.user_info_url, access, "access_token"),
            _Interface("refreshToken", 4, server.refresh_url, refresh, "refresh_token"),
            _Interface("logout", 6, server.logout_url, access, "access_token"),
        ]

    def refusals(self, interface: _Interface) -> None:
        """Send requests that have to be refused, each for one reason more than what is made up.

        :raises _NoAnswer: when it has none that is an envelope.
        """
        found, name = self.found, f"{interface.section}. {interface.name}"
        right, replies = [], []
        other = _code("82", interface.open)
        requests = [
            (_code("81", parameter), f"{parameter} is missing", _without(interface, parameter))
            for parameter in interface.fields
        ] + [
            (
                _code("82", parameter),
                f"{parameter} is invalid",
                {**interface.fields, parameter: _MADE_UP},
            )
            for parameter in interface.fields
        ]
        for expected, fault, body in requests:
            reply = self._post(name, interface.url, body)
            replies.append(reply)
            code = self._judge(name, reply)
            if code == expected:
                right.append(code)
            elif code == "2000" and interface.name == "logout" and expected == other:
                found.note(name, "says yes when the token is none: then it may not end anything")
            elif code == "2000":
                found.wrong(name, f"says yes when {fault}", f"answer {expected}")
            elif code == other:
                found.note(name, f"{code} when {fault}, not {expected}: the order is left open")
            else:
                found.wrong(name, f"{code} when {fault}", f"answer {expected}")
        if right:
            found.ok(name, f"refuses with {', '.join(right)}, each where it should")
        self._form(name, replies)

    def _post(self, name: str, url: str, body: Mapping[str, str]) -> Reply:
        try:
            return self.transport.post(url, json.dumps(body).encode())
        except (ServerUnavailable, ServerError) as error:
            self.found.wrong(name, _text(error), "`flask devkit-sso doctor` says more")
            raise _NoAnswer from None

    def _judge(self, name: str, reply: Reply) -> str:
        """Return the code of an envelope; success under an HTTP error counts as success."""
        try:
            contract.envelope_data(reply, name.partition(" ")[2])
        except (ServerUnavailable, ServerError) as error:
            code: str | None = getattr(error, "server_code", None)
            if code is not None:
                return code
            if not _says_success(reply.body):
                self.found.wrong(name, _text(error), "answer with an envelope, whatever is asked")
                raise _NoAnswer from None
            self.found.wrong(name, _text(error), "answer success with HTTP 200 and a data object")
        return "2000"

    def _form(self, name: str, replies: list[Reply]) -> None:
        """Tell what is wrong with the envelopes, each thing once."""
        wrong, left_open = set(), set()
        for reply in replies:
            envelope = json.loads(reply.body)
            if not isinstance(envelope.get("code"), str):
                wrong.add("code is not a string")
            if not isinstance(envelope.get("message"), str):
                wrong.add("message is not a string")
            if envelope.get("data") is None:
                left_open.add("a refusal has no data")
            elif not isinstance(envelope["data"], dict):
                wrong.add("data is not an object")
            kind = reply.headers.get("Content-Type", "").partition(";")[0].strip().lower()
            if kind != "application/json":
                left_open.add("Content-Type is not application/json")
        for problem in sorted(wrong):
            self.found.wrong(
                name, f"envelope: {problem}", '{"code": "…", "message": "…", "data": {}}'
            )
        statuses = sorted({reply.status for reply in replies})
        left_open.add(f"HTTP status of refusals: {', '.join(map(str, statuses))}")
        for text in sorted(left_open):
            self.found.note(name, text)

    def authorize(self) -> None:
        """See where authorize leads somebody who is not signed in."""
        found, name = self.found, "1. authorize"
        client_id, uri = self.server.client_id, self.redirect_uri
        right = self._look(client_id, uri)
        if right is None:
            return
        kind, told = right
        if kind == "back":
            found.wrong(name, f"sends the registered client back at once, with {told}")
        elif kind == "refusal":
            found.wrong(
                name, f"refuses the registered client ({told})", "is this redirect_uri registered?"
            )
        else:
            found.ok(name, f"lets the registered client begin a login ({told})")
        for what, wrong_id, wrong_uri in (
            ("an unknown client", _MADE_UP, uri),
            ("a redirect_uri that is not registered", client_id, _UNREGISTERED),
            ("a redirect_uri with something behind it", client_id, f"{uri}x"),
        ):
            answer = self._look(wrong_id, wrong_uri)
            if answer is None:
                return
            kind, told = answer
            if kind == "back" and wrong_uri == _UNREGISTERED:
                found.wrong(name, f"sends the browser to {what}", "show an error page instead")
            elif kind == "back":
                found.note(name, f"{what}: the browser is sent back ({told})")
            elif kind == "refusal":
                found.ok(name, f"{what} is refused ({told})")
            else:
                found.note(name, f"{what}: {told}; whether that is refused, a person can see")

    def _look(self, client_id: str, redirect_uri: str) -> tuple[str, str] | None:
        """Return what authorize does: back, refusal or login, and words for it."""
        url = contract.authorization_url(
            self.server.authorize_url,
            client_id=client_id,
            redirect_uri=redirect_uri,
            state=_MADE_UP,
        )
        try:
            reply = self.transport.get(url)
        except (ServerUnavailable, ServerError) as error:
            self.found.wrong("1. authorize", _text(error), "`flask devkit-sso doctor` says more")
            return None
        told = f"HTTP {reply.status}"
        location = reply.headers.get("Location", "")
        if 300 <= reply.status <= 399:
            goes_back = location.startswith(redirect_uri) or _split(location, redirect_uri)
            return ("back", told) if goes_back else ("login", f"{told} to another page")
        return ("refusal" if reply.status >= 400 else "login"), told


class _Sitting:
    """What is tested with a person, who signs in and pastes addresses."""

    def __init__(self, checker: _Checker, ask: Callable[[str], str]) -> None:
        self._checker = checker
        self._found = checker.found
        self._client = checker.client
        self._uri = checker.redirect_uri
        self._ask = ask
        self._access_tokens: list[str] = []

    def run(self, binding: str) -> None:
        echoes = self._plain()
        varies = None
        if echoes is not None:
            varies = self._varied()
            self._pkce()
            self._refusals()
        # Nobody stays signed in at the server because of a test.
        for token in reversed(self._access_tokens):
            with suppress(ServerError, ServerUnavailable):
                self._client.logout(token)
        self._conclude(echoes, varies, binding)

    def _plain(self) -> bool | None:
        """A whole login; return whether state came back, or None where there was none."""
        found = self._found
        state = secrets.token_urlsafe(24)
        back = self._come_back("a login", self._uri, state=state)
        if back is None:
            return None
        if "#" in self._uri:
            place = "before the fragment" if back.before_fragment else "at the end"
            found.ok("1. authorize", f"the code is {place} of the redirect_uri; both are accepted")
        echoes = back.state == [state]
        if echoes:
            found.ok("1. authorize", "state comes back")
        elif back.state:
            found.wrong("1. authorize", "state comes back changed, or twice", "echo it as it came")
        else:
            found.note("1. authorize", "state does not come back")
        if back.has_issuer:
            found.note("1. authorize", "iss comes too, which is passed over")
        tokens = self._exchange(back.code)
        if tokens is not None:
            access_token = self._use(tokens)
            self._log_out(access_token)
            self._access_tokens.remove(tokens.access_token)
            answer = self._try(back.code)
            if answer == "2000":
                found.warning(
                    "2. getToken", "takes a code twice", "RFC 6749, 4.1.2: refuse it with 8202"
                )
            else:
                self._expect("2. getToken", "a code that was used", answer, "8202")
        return echoes

    def _exchange(self, code: str) -> TokenAnswer | None:
        """Exchange the code of the plain login, and look at the answer more closely."""
        found, name, server = self._found, "2. getToken", self._checker.server
        body = contract.token_request(
            client_id=server.client_id,
            client_secret=server.client_secret,
            code=code,
            redirect_uri=self._uri,
        )
        try:
            reply = self._checker.transport.post(server.token_url, body)
            tokens = contract.token_answer(reply)
        except (ServerUnavailable, ServerError) as error:
            found.wrong(name, _text(error))
            return None
        envelope = json.loads(reply.body)
        lifetime = envelope["data"].get("expires_in")
        if type(lifetime) is not int or lifetime > MAX_EXPIRES_IN:
            found.wrong(
                name, "expires_in is not an integer of at most 3600", "send it as such, in seconds"
            )
        else:
            found.ok(name, f"exchanges the code; the access token lasts {lifetime} seconds")
        if not isinstance(envelope["code"], str):
            found.wrong(name, "envelope: code is not a string")
        self._access_tokens.append(tokens.access_token)
        return tokens

    def _use(self, tokens: TokenAnswer) -> str:
        """Ask who it is, and refresh; return the newest access token."""
        found = self._found
        try:
            user = self._client.user_info(tokens.access_token)
        except (ServerUnavailable, ServerError) as error:
            found.wrong("3. getUserInfo", _text(error))
            return tokens.access_token
        if user.role is None:
            found.wrong("3. getUserInfo", "role is neither Admin nor User", "send one of the two")
        else:
            found.ok("3. getUserInfo", f"tells uid, username and role ({user.role})")
        if tokens.refresh_token is None:
            return tokens.access_token
        try:
            new = self._client.refresh(tokens.refresh_token)
            again = self._client.user_info(new.access_token)
        except (ServerUnavailable, ServerError) as error:
            found.wrong("4. refreshToken", _text(error))
            return tokens.access_token
        if again.uid != user.uid:
            found.wrong("4. refreshToken", "the new access token is another user's")
        else:
            found.ok("4. refreshToken", "gives another access token, of the same user")
        rotates = new.refresh_token not in (None, tokens.refresh_token)
        found.note(
            "4. refreshToken",
            "a new refresh token comes each time" if rotates else "the refresh token stays",
        )
        return new.access_token

    def _log_out(self, access_token: str) -> None:
        found, name = self._found, "6. logout"
        try:
            self._client.logout(access_token)
        except (ServerUnavailable, ServerError) as error:
            found.wrong(name, _text(error))
            return
        try:
            self._client.user_info(access_token)
        except ServerError as error:
            self._expect(name, "the token afterwards", error.server_code, "8205")
        except ServerUnavailable as error:
            found.wrong(name, _text(error))
        else:
            found.wrong(name, "the access token still works afterwards", "invalidate it")

    def _varied(self) -> bool | None:
        """Return whether a redirect_uri may vary at its end; None when nobody says."""
        varied = contract.vary_redirect_uri(self._uri, secrets.token_urlsafe(24))
        back = self._come_back(
            "a redirect_uri that varies (where the server refuses it, press Enter)", varied
        )
        if back is None:
            return False
        answer = self._try(back.code, redirect_uri=varied)
        self._found.note(
            "1. authorize",
            "a redirect_uri that varies at its end is accepted"
            if answer == "2000"
            else f"a redirect_uri that varies is accepted, but not by getToken ({answer})",
        )
        return answer == "2000"

    def _pkce(self) -> None:
        found, name = self._found, "2. getToken"
        verifier = secrets.token_urlsafe(32)
        back = self._come_back("PKCE", self._uri, code_verifier=verifier)
        if back is None:
            return
        if self._try(back.code, code_verifier=secrets.token_urlsafe(32)) == "2000":
            found.note(name, f"does not check PKCE: leave {PREFIX}PKCE off, it would do nothing")
        elif self._try(back.code, code_verifier=verifier) == "2000":
            found.note(name, f"checks PKCE: {PREFIX}PKCE can be switched on")
        else:
            found.note(
                name,
                "refuses a wrong code_verifier, and then the right one: either the refusal used "
                f"the code up, or PKCE is unknown; try {PREFIX}PKCE with care",
            )

    def _refusals(self) -> None:
        """Use a real code wrongly: getToken has to look at everything else too."""
        found, name = self._found, "2. getToken"
        back = self._come_back("a code that is used wrongly", self._uri)
        if back is None:
            return
        server = self._checker.server
        right = {
            "client_id": server.client_id,
            "grant_type": "authorization_code",
            "client_secret": server.client_secret,
            "authorization_code": back.code,
            "redirect_uri": self._uri,
        }
        for parameter, value in (
            ("client_secret", _MADE_UP),
            ("grant_type", _MADE_UP),
            ("redirect_uri", f"{self._uri}x"),
        ):
            body = json.dumps(right | {parameter: value}).encode()
            try:
                reply = self._checker.transport.post(server.token_url, body)
                self._access_tokens.append(contract.token_answer(reply).access_token)
            except ServerError as error:
                expected = _code("82", parameter)
                self._expect(name, f"a wrong {parameter}", error.server_code, expected)
            except ServerUnavailable as error:
                found.wrong(name, _text(error))
            else:
                found.wrong(
                    name, f"takes a wrong {parameter}", f"refuse it with {_code('82', parameter)}"
                )
                return

    def _expect(self, name: str, what: str, answer: str | None, expected: str) -> None:
        if answer == expected:
            self._found.ok(name, f"{what} is refused with {expected}")
        elif answer == "8202" and name == "2. getToken":
            self._found.note(
                name, f"{what} is refused with 8202, not {expected}: the code may be used up"
            )
        else:
            told = answer or "no envelope"
            self._found.wrong(name, f"{what} is refused with {told}", f"answer {expected}")

    def _try(
        self, code: str, *, redirect_uri: str | None = None, code_verifier: str | None = None
    ) -> str | None:
        """Exchange a code; return the answer's code, None when there is none."""
        try:
            tokens = self._client.exchange(
                code, redirect_uri=redirect_uri or self._uri, code_verifier=code_verifier
            )
        except ServerError as error:
            return error.server_code
        except ServerUnavailable:
            return None
        self._access_tokens.append(tokens.access_token)
        return "2000"

    def _come_back(
        self,
        what: str,
        redirect_uri: str,
        *,
        state: str | None = None,
        code_verifier: str | None = None,
    ) -> _WayBack | None:
        """Have a person go to the server and back."""
        url = self._client.authorization_url(
            redirect_uri=redirect_uri, state=state, code_verifier=code_verifier
        )
        click.echo(f"\nOpen this, for {what}:\n  {url}")
        address = self._ask("The address that you were sent back to (not shown)")
        if not address:
            self._found.note("1. authorize", f"no address given for {what.partition(' (')[0]}")
            return None
        split = _split(address, redirect_uri)
        if split is None:
            self._found.wrong(
                "1. authorize",
                "the address is not the redirect_uri with parameters",
                "add code to the end of the redirect_uri, or as a query before its fragment",
            )
            return None
        answer, before_fragment = split
        codes = answer.get("code", [])
        if len(codes) != 1:
            error = "".join(answer.get("error", []))
            known = f" ({error})" if re.fullmatch(r"[a-z_]{3,40}", error) else ""
            told = f"an error{known}" if "error" in answer else f"{len(codes)} codes"
            self._found.wrong("1. authorize", f"the person comes back with {told}")
            return None
        return _WayBack(codes[0], answer.get("state", []), "iss" in answer, before_fragment)

    def _conclude(self, echoes: bool | None, varies: bool | None, binding: str) -> None:
        self._found.section("What fits")
        if echoes is None:
            click.echo(f"Which {PREFIX}BINDING fits can't be said without a login.")
            return
        if echoes:
            fitting, why = "state", "state comes back"
        elif varies:
            fitting, why = "redirect_uri", "state does not come back, but a redirect_uri may vary"
        else:
            fitting, why = "confirm", "state does not come back, and a redirect_uri may not vary"
        now = "as it is" if binding == fitting else f"it is {binding} now"
        click.echo(f"{PREFIX}BINDING={fitting}, since {why} ({now}).")


def _split(address: str, redirect_uri: str) -> tuple[dict[str, list[str]], bool] | None:
    """Return the parameters that a redirect_uri came back with, and whether they stand before its
    fragment; None when it is another address."""
    base, hash_sign, fragment = _as_shown(redirect_uri).partition("#")
    tail = hash_sign + fragment
    if address.startswith(base + tail):
        rest, before_fragment = address.removeprefix(base + tail), False
    elif address.startswith(base) and address.endswith(tail):
        rest, before_fragment = address.removeprefix(base).removesuffix(tail), True
    else:
        return None
    if rest[:1] not in ("?", "&"):
        return None
    return parse_qs(rest[1:], keep_blank_values=True), before_fragment


def _as_shown(url: str) -> str:
    """Return a URL as browsers show it: with a path."""
    parts = urlsplit(url)
    return url if parts.path else urlunsplit(parts._replace(path="/"))


def _without(interface: _Interface, parameter: str) -> dict[str, str]:
    return {name: value for name, value in interface.fields.items() if name != parameter}


def _code(kind: str, parameter: str) -> str:
    return f"{kind}{_PARAMETERS.index(parameter) + 1:02}"


def _says_success(body: bytes) -> bool:
    try:
        envelope = json.loads(body)
    except (ValueError, RecursionError):
        return False
    return isinstance(envelope, dict) and envelope.get("code") in ("2000", 2000)


def _text(error: ServerError | ServerUnavailable) -> str:
    return str(error.description).rstrip(".")
