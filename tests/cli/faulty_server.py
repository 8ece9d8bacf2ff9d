"""A small authentication server that is right but for one fault, for the tests of check-server."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from ..conftest import CLIENT_ID
from ..scripted import (
    GET_TOKEN,
    GET_USER_INFO,
    LOGOUT,
    REFRESH_TOKEN,
    Handler,
    ScriptedServer,
    says,
)
from .place import CANARY, VALIDITY

AUTHORIZE = "/sso/oauth2/authorize"
SIGN_IN = "/sign-in"
URI = "http://127.0.0.1:5000/#/login"
PASSWORD = "canary-password-77c1"
TEXT = "canary-of-the-server-31e8"
"""What the server writes into its pages and messages. No report may contain it."""
PAGE = f"""<!doctype html><title>{TEXT}</title>
<form action="/search"><input name="q"><button>Search</button></form>
<form method="{{method}}" action="{{action}}">
<input type="hidden" name="request" value="{{request}}">
<input name="account" autocomplete="username"><input type="password" name="password">
<button name="{TEXT}" value="1">Sign in</button>{{more}}
<button name="cancel" value="1">Cancel</button>
</form>"""


class FaultyServer(ScriptedServer):
    """Signs ``ada`` in with a password. ``fault`` names what is wrong, if anything."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.answers = {
            AUTHORIZE: self.authorize,
            SIGN_IN: self.sign_in,
            GET_TOKEN: self.post(self.get_token),
            GET_USER_INFO: self.post(self.get_user_info),
            REFRESH_TOKEN: self.post(self.refresh_token),
            VALIDITY: self.post(self.validity),
            LOGOUT: self.post(self.logout),
            "/large": lambda handler: html(handler, " " * (1024 * 1024 + 1)),
            "/loop": lambda handler: says(b"", 302, {"Location": "/loop"})(handler),
        }
        self.reset("")

    def reset(self, fault: str) -> None:
        self.fault = fault
        self.seen.clear()
        self.numbers = itertools.count()
        self.signed_in: set[str] = set()
        self.disabled = False
        self.requests: dict[str, dict[str, str]] = {}
        self.codes: dict[str, dict[str, Any]] = {}
        self.tokens: dict[str, str] = {}

    def new(self, kind: str) -> str:
        return f"canary-{kind}-{next(self.numbers)}"

    # Pages

    def authorize(self, handler: Handler) -> None:
        query = {k: v[0] for k, v in parse_qs(urlsplit(handler.path).query).items()}
        registered = query.get("client_id") == CLIENT_ID or self.fault == "any client"
        uri = query.get("redirect_uri", "")
        is_known = registered and (uri == URI or self.fault == "any redirect_uri")
        if self.fault == "HTTP 500 of authorize" or (
            self.fault == "HTTP 500 for unknown clients" and not registered
        ):
            says(TEXT.encode(), 500)(handler)
        elif "code_challenge" in query and self.fault == "stops for PKCE":
            handler.close_connection = True
        elif self.fault == "redirects anywhere" and uri != URI and registered:
            self.back(handler, query, error="invalid_request")
        elif not is_known and self.fault == "refusals with HTTP 200":
            html(handler, TEXT)
        elif not is_known:
            says(TEXT.encode(), 400)(handler)
        elif self.cookie(handler) in self.signed_in and (
            not self.disabled or self.fault == "code for a disabled person"
        ):
            self.back_with_code(handler, query, self.cookie(handler))
        else:
            self.page(handler, query)

    def page(self, handler: Handler, query: dict[str, str]) -> None:
        request = self.new("request")
        self.requests[request] = query
        method, action, more = "post", SIGN_IN, ""
        if self.fault == "password by GET":
            method = "get"
        if self.fault == "form of another origin":
            action = f"http://localhost:{self.server_port}{SIGN_IN}"
        if self.fault == "button of another origin":
            action = "https://127.0.0.1" + SIGN_IN
        if self.fault == "201 fields":
            more = "<input name=more>" * 196
        if self.fault == "unclosed tags":
            more = '<a b="' * 150_000
        text = PAGE.format(request=request, method=method, action=action, more=more)
        if self.fault == "page of another origin":
            says(b"", 302, {"Location": f"http://localhost:{self.server_port}{SIGN_IN}"})(handler)
        elif self.fault in ("loop", "more than a MiB"):
            path = {"loop": "/loop", "more than a MiB": "/large"}[self.fault]
            says(b"", 302, {"Location": path})(handler)
        elif self.fault == "script":
            html(handler, "<script>signIn()</script>")
        else:
            html(handler, text)

    def sign_in(self, handler: Handler) -> None:
        form = {k: v[0] for k, v in parse_qs(handler.seen.body.decode()).items()}
        query = self.requests[form["request"]]
        if "cancel" in form:
            return self.cancelled(handler, query)
        if (form.get("account"), form.get("password")) != ("ada", PASSWORD):
            return self.page(handler, query)
        if self.fault in ("403", "429"):
            return says(TEXT.encode(), int(self.fault))(handler)
        cookie = self.new("cookie")
        self.signed_in.add(cookie)
        self.back_with_code(handler, query, cookie)
        return None

    def cancelled(self, handler: Handler, query: dict[str, str]) -> None:
        match self.fault:
            case "code after cancelling":
                self.back_with_code(handler, query, self.new("cookie"))
            case "page after cancelling":
                html(handler, TEXT)
            case "other error after cancelling":
                self.back(handler, query, error="server_error")
            case "error without state":
                self.back(handler, {"redirect_uri": URI}, error="access_denied")
            case _:
                self.back(handler, query, error="access_denied")

    def back_with_code(self, handler: Handler, query: dict[str, str], cookie: str) -> None:
        code = self.new("code")
        self.codes[code] = {"cookie": cookie, "was_used": False}
        self.back(handler, query, cookie=cookie, code=code)

    def back(
        self, handler: Handler, query: dict[str, str], cookie: str = "", **parameters: str
    ) -> None:
        if "state" in query:
            parameters["state"] = query["state"] + "x" * (self.fault == "changed state")
        headers = {"Location": f"{query['redirect_uri']}?{urlencode(parameters)}"}
        if cookie:
            headers["Set-Cookie"] = f"session={cookie}; Path=/; Secure; HttpOnly; SameSite=Lax"
        is_post = handler.command == "POST"
        says(b"", 307 if is_post and self.fault == "307" else 303, headers)(handler)

    def cookie(self, handler: Handler) -> str:
        pairs = (
            part.strip().partition("=") for part in handler.headers.get("Cookie", "").split(";")
        )
        return {name: value for name, _, value in pairs}.get("session", "")

    # Interfaces

    def post(
        self, interface: Callable[[dict[str, Any]], dict[str, Any] | str]
    ) -> Callable[[Handler], None]:
        numbers = {
            "client_id": "01",
            "authorization_code": "02",
            "grant_type": "03",
            "client_secret": "04",
            "access_token": "05",
            "refresh_token": "06",
            "redirect_uri": "07",
        }
        needed_by: dict[Any, str] = {
            self.get_token: "client_id authorization_code grant_type client_secret redirect_uri",
            self.refresh_token: "client_id refresh_token",
        }
        needed = needed_by.get(interface, "client_id access_token")

        def answer(handler: Handler) -> None:
            body = handler.seen.json
            result: dict[str, Any] | str = ""
            for name in needed.split():
                if not result and not body.get(name):
                    result = f"81{numbers[name]}"
            if not result and body["client_id"] != CLIENT_ID:
                result = "8201"
            result = result or interface(body)
            code, data = (result, {}) if isinstance(result, str) else ("2000", result)
            envelope = {"code": code, "message": TEXT, "messageArgs": [], "data": data}
            (says(envelope) if code else says(TEXT.encode(), 404))(handler)

        return answer

    def get_token(self, body: dict[str, Any]) -> dict[str, Any] | str:
        code = self.codes.get(body["authorization_code"])
        if self.fault == "HTTP 404 with a code_verifier" and "code_verifier" in body:
            return ""
        if code is not None and self.fault == "8500 of getToken":
            return "8500"
        if code is None or (code["was_used"] and self.fault != "code used twice"):
            return "8202"
        for name, value, number in (
            ("grant_type", "authorization_code", "8203"),
            ("client_secret", CANARY, "8204"),
            ("redirect_uri", URI, "8207"),
        ):
            if body[name] != value and self.fault != f"wrong {name}":
                return number
        code["was_used"] = True
        return self.issue(code["cookie"], "getToken") | {
            "refresh_token": self.token("refresh", code["cookie"])
        }

    def token(self, kind: str, cookie: str) -> str:
        token = self.new(kind)
        self.tokens[token] = cookie
        return token

    def issue(self, cookie: str, interface: str) -> dict[str, Any]:
        lifetime: Any = 3600
        if self.fault == f"text as expires_in of {interface}":
            lifetime = "3600"
        if self.fault == f"large expires_in of {interface}":
            lifetime = 7200
        return {"access_token": self.token("access", cookie), "expires_in": lifetime}

    def get_user_info(self, body: dict[str, Any]) -> dict[str, Any] | str:
        if not self.is_valid(body["access_token"], "access"):
            return "8205"
        if self.disabled and self.fault != "user info of a disabled person":
            return "8205"
        if self.fault == "8500 of getUserInfo":
            return "8500"
        if self.fault == "no uid":
            return {"userId": "u-1", "username": TEXT, "role": "Admin"}
        role = "Root" if self.fault == "unknown role" else "Admin"
        return {"uid": "u-1", "username": TEXT, "role": role}

    def is_valid(self, token: str, kind: str) -> bool:
        still_works = self.fault == f"{kind} token after logout"
        return token in self.tokens and (still_works or self.tokens[token] in self.signed_in)

    def refresh_token(self, body: dict[str, Any]) -> dict[str, Any] | str:
        token = body["refresh_token"]
        if not self.is_valid(token, "refresh"):
            return "8206"
        if self.disabled and self.fault != "refresh of a disabled person":
            return "8206"
        data = self.issue(self.tokens[token], "refreshToken")
        if self.fault == "same access token":
            access = [name for name in self.tokens if name.startswith("canary-access")]
            data["access_token"] = access[-2]
        if self.fault == "refresh token works once":
            del self.tokens[token]
        return data

    def validity(self, body: dict[str, Any]) -> dict[str, Any] | str:
        if not self.is_valid(body["access_token"], "access"):
            return "8205"
        answers = [user == "u-1" and not self.disabled for user in body["users"]]
        match self.fault:
            case "made-up person is valid" | "disabled person is valid":
                answers = [
                    True if self.disabled or user != "u-1" else answer
                    for user, answer in zip(body["users"], answers, strict=True)
                ]
            case "person is not valid":
                answers = [False for _ in answers]
            case "other order":
                answers.reverse()
            case "one boolean for all":
                answers = [all(answers)]
        return {"validation_list": answers}

    def logout(self, body: dict[str, Any]) -> dict[str, Any] | str:
        if not self.is_valid(body["access_token"], "access"):
            return "8205"
        cookie = self.tokens.pop(body["access_token"])
        if self.fault == "sign-in after logout":
            for token in [name for name, owner in self.tokens.items() if owner == cookie]:
                del self.tokens[token]
        else:
            self.signed_in.discard(cookie)
        if self.fault == "access token after logout":
            self.tokens[body["access_token"]] = cookie
        return {}


def html(handler: Handler, text: str, cookie: str = "page=1") -> None:
    body = text.encode()
    handler.send_response(200)
    for name, value in {
        "Content-Type": "text/html; charset=utf-8",
        "Content-Length": str(len(body)),
        "Set-Cookie": cookie,
    }.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)
