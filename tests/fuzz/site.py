"""An application to attack, and what has to be true of each of its responses."""

from __future__ import annotations

import html
import logging
import re
from collections.abc import Mapping
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from flask import Flask
from werkzeug.test import EnvironBuilder, TestResponse, run_wsgi_app
from werkzeug.wrappers import Request

from flask_devkit_sso import DevKitSSO, current_user, login_required
from flask_devkit_sso.errors import REASONS

from ..scripted import ScriptedServer

SECRET_KEY: Final = "0d9f6b1ac54e2378-no-one-knows-this"
CLIENT_SECRET: Final = "canary-client-secret-e41d"
CODE: Final = "canary-code-77aa"
SECRETS: Final = (
    SECRET_KEY,
    CLIENT_SECRET,
    "canary-access-token-1f6a",
    "canary-refresh-token-9b2c",
    "canary-second-7d",
)
DOCUMENTED: Final = {200, 204, 302, 303, 308, 401, 404, 405, *REASONS.values()}


class Site:
    """An application, and the server it signs people in at."""

    def __init__(self, server: ScriptedServer, folder: Path, **settings: Any) -> None:
        self.server = server
        folder.mkdir(exist_ok=True)
        self.app = app = Flask("fuzz", instance_path=str(folder))
        app.testing = True
        app.config["SECRET_KEY"] = SECRET_KEY
        given = {
            "client_id": "20221017000000001",
            "client_secret": CLIENT_SECRET,
            "server_url": server.url,
            "redirect_uri": "http://localhost/sso/callback",
        } | settings
        app.config.update({f"DEVKIT_SSO_{name.upper()}": value for name, value in given.items()})
        sso = DevKitSSO(app)

        @app.get("/who")
        def who() -> dict[str, Any]:
            return {"username": current_user.username}

        @app.route("/private", methods=["GET", "POST"])
        @login_required
        def private() -> str:
            return f"private {current_user.username}"

        @app.get("/login-url")
        def login_url() -> str:
            return sso.login_url()

        @app.get("/", defaults={"rest": ""})
        @app.get("/<path:rest>")
        def page(rest: str) -> str:
            return "application"

        self.session_cookie: str = app.extensions["devkit_sso"].session_cookie
        self._log = _Log()

    def request(
        self,
        path: str | bytes,
        *,
        method: str = "GET",
        query: bytes = b"",
        body: bytes = b"",
        may_sign_in: bool = False,
        **headers: bytes | str,
    ) -> TestResponse:
        """Send a request, and check what has to be true of every response.

        :param headers: with names like ``content_type``; values as they are on the wire.
        :param may_sign_in: whether the response may set a session's cookie.
        """
        shown = {_environ_name(name): _on_the_wire(value) for name, value in headers.items()}
        shown["QUERY_STRING"] = _on_the_wire(query)
        environ = EnvironBuilder(method=method, data=body).get_environ() | shown
        # Servers decode the path, so it may contain every byte.
        raw_path = path if isinstance(path, bytes) else path.encode()
        environ["PATH_INFO"] = raw_path.decode("latin-1")
        self._log.lines.clear()
        # Werkzeug's test client cannot parse every Host.
        answer = run_wsgi_app(self.app, environ, buffered=True)
        response = TestResponse(*answer, Request(environ))
        seen = f"{method} {path!r} {shown} {body[:200]!r}: {response.status} {response.headers}"
        assert response.status_code in DOCUMENTED, seen
        # Werkzeug's own 308 adds a final slash, at the host that the request names.
        if response.status_code in (302, 303):
            assert self.is_allowed(response.location), seen
        for text in (response.text, str(response.headers), "\n".join(self._log.lines)):
            for secret in SECRETS:
                assert secret not in text, seen
        assert all(CODE not in line for line in self._log.lines), seen
        assert may_sign_in or not self.signs_in(response), f"signed in by {seen}"
        return response

    def is_allowed(self, location: str) -> bool:
        """Return whether a browser that is sent to an address stays here, or arrives at the
        server's authorize interface."""
        if location.startswith(f"{self.server.url}/sso/oauth2/authorize?"):
            return True
        if re.search(r"[\x00-\x20\\\x7f-\uffff]", location):
            return False
        return location.removeprefix("http://localhost").startswith("/") and not re.match(
            r"(http://localhost)?//", location
        )

    def signs_in(self, response: TestResponse) -> bool:
        """Return whether a response sets a session's cookie."""
        return self.session_cookie in cookies_of(response)

    def start(self, query: bytes = b"") -> tuple[str, str]:
        """Start a login; return the cookie header and the value that proves the login (or "")."""
        response = self.request("/sso/authorize", query=query, sec_fetch_site="same-origin")
        if response.status_code == 200 and "<form" in response.text:
            # The person has to confirm that the login may start.
            response = self.request(
                "/sso/authorize", method="POST", query=query, sec_fetch_site="same-origin"
            )
        location = response.headers.get("Location", "")
        if not location:
            # A page leads to the server if the redirect URI has a fragment, or after a form.
            found = re.search(r"""http://127[^"'<>]+authorize[^"'<>]+""", response.text)
            assert found, response.text
            location = html.unescape(found[0])
        sent = parse_qs(urlsplit(location).query)
        (proof,) = sent.get("state", [sent["redirect_uri"][0].partition("s=")[2]])
        return header_of(cookies_of(response)), proof

    def sign_in(self) -> str:
        """Sign in as ada; return the cookie header."""
        cookie, state = self.start()
        query = f"code={CODE}&state={state}".encode()
        response = self.request("/sso/callback", query=query, cookie=cookie, may_sign_in=True)
        assert response.status_code == 303, response.text
        return header_of({self.session_cookie: cookies_of(response)[self.session_cookie]})


def cookies_of(response: TestResponse) -> dict[str, str]:
    """Return the cookies that a response sets; not those that it deletes."""
    found = {}
    for line in response.headers.getlist("Set-Cookie"):
        for name, morsel in SimpleCookie(line).items():
            if morsel.value:
                found[name] = morsel.value
    return found


def header_of(cookies: Mapping[str, str]) -> str:
    return "; ".join(f"{name}={value}" for name, value in cookies.items())


def _environ_name(name: str) -> str:
    return name.upper() if name.startswith("content_") else f"HTTP_{name.upper()}"


def _on_the_wire(value: bytes | str) -> str:
    """Return a value as WSGI passes it on. No server accepts these three bytes."""
    data = value if isinstance(value, bytes) else value.encode()
    return data.translate(None, b"\0\r\n").decode("latin-1")


class _Log(logging.Handler):
    """Collects what the package and its dependencies log."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        for name in ("flask_devkit_sso", "authlib"):
            logger = logging.getLogger(name)
            logger.setLevel(logging.DEBUG)
            logger.addHandler(self)
            logger.propagate = False
        self.setFormatter(logging.Formatter())

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))
