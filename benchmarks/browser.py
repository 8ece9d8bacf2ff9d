"""A browser that calls an application in this process, with less overhead than Werkzeug's test
client."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlencode, urlsplit

from flask import Flask

from .apps import LOGIN_PATH, PAGE


class Response(NamedTuple):
    """A response of an application."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str:
        """Return the value of a header, or an empty text."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), "")


class Request:
    """A request that can be sent any number of times."""

    def __init__(self, app: Flask, url: str, cookies: str) -> None:
        self._wsgi = app.wsgi_app
        parts = urlsplit(url)
        self._environ = {
            "REQUEST_METHOD": "GET",
            "SCRIPT_NAME": "",
            "PATH_INFO": parts.path,
            "QUERY_STRING": parts.query,
            "REQUEST_URI": url,
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": "127.0.0.1",
            "HTTP_HOST": "localhost",
            "HTTP_ACCEPT": "text/html",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(),
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": True,
            "wsgi.multiprocess": True,
            "wsgi.run_once": False,
        }
        if cookies:
            self._environ["HTTP_COOKIE"] = cookies

    def __call__(self) -> Response:
        started: list[Any] = []

        def start_response(status: str, headers: list[tuple[str, str]], _: Any = None) -> Any:
            started[:] = status, headers

        chunks: Iterable[bytes] = self._wsgi(self._environ.copy(), start_response)
        body = b"".join(chunks)
        chunks.close()  # type: ignore[attr-defined]
        status, headers = started
        return Response(int(status[:3]), headers, body)


class Browser:
    """One person's browser, which keeps cookies."""

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._cookies: dict[str, str] = {}

    def request(self, url: str) -> Request:
        """Return a request with the present cookies."""
        cookies = "; ".join(f"{name}={value}" for name, value in self._cookies.items())
        return Request(self._app, url, cookies)

    def receive(self, response: Response) -> Response:
        """Keep the cookies of a response."""
        for name, value in response.headers:
            if name == "Set-Cookie":
                cookie, _, attributes = value.partition(";")
                key, _, content = cookie.partition("=")
                self._cookies.pop(key, None)
                if "Max-Age=0" not in attributes:
                    self._cookies[key] = content
        return response

    def get(self, url: str) -> Response:
        """Load a page."""
        return self.receive(self.request(url)())

    def start_login(self, code: str) -> Request | None:
        """Start a login, and return the request that completes it with an authorization code.

        The result is None if the application needs no server to sign in.
        """
        location = self.get(LOGIN_PATH).header("Location")
        if not location:
            return None
        query = parse_qs(urlsplit(location).query)
        callback = urlsplit(query["redirect_uri"][0]).path
        return self.request(f"{callback}?{urlencode({'code': code, 'state': query['state'][0]})}")

    def sign_in(self, code: str = "ada") -> None:
        """Sign in.

        :raises AssertionError: if the application does not accept the login.
        """
        complete = self.start_login(code)
        if complete is not None:
            self.receive(complete())
        self.user()

    def user(self) -> str:
        """Return the name on the guarded page.

        :raises AssertionError: if nobody is signed in.
        """
        response = self.get(PAGE)
        if response.status != 200:
            raise AssertionError(f"status {response.status}: {response.body!r}")
        return response.body.decode().removeprefix("Hello ")
