"""The pytest plugin of Flask-DevKit-SSO: the fixture ``devkit_sso_sandbox``.

A module beside the package, because pytest imports it at each start: one inside would bring Flask
along, into test runs that have nothing to do with either.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

import pytest

_TEST_CLIENT = ("http://localhost/sso/callback", "http://localhost/#/login")
"""The redirect_uris of an application that Flask's test client talks to."""


class Sandbox:
    """A running sandbox. ``url`` is what DEVKIT_SSO_SERVER_URL takes."""

    def __init__(self, url: str, client_id: str, client_secret: str) -> None:
        self.url = url
        self.client_id = client_id
        self.client_secret = client_secret

    def fail_next(self, interface: str, how: str) -> None:
        """Let the next call of an interface fail.

        :param interface: ``authorize``, ``getToken``, ``getUserInfo``, ``refreshToken``,
            ``logout`` or ``validity``.
        :param how: a code of the contract such as ``"8202"``; ``"http500"`` or another status;
            ``"close"``, ``"slow"``, ``"slow-headers"``, ``"hang"``, ``"garbage"``, ``"empty"``,
            ``"huge"``, ``"redirect"``; for authorize also an RFC 6749 error such as
            ``"access_denied"``.
        :raises ValueError: when there is no such interface or way to fail; names those there are.
        """
        try:
            self._ask("POST", "/_sandbox/fail-next", {"interface": interface, "how": how})
        except HTTPError as error:
            if error.code != 400:
                raise
            with error:
                raise ValueError(json.loads(error.read())["error"]) from None

    @property
    def calls(self) -> list[dict[str, Any]]:
        """What the application asked the sandbox so far, the oldest first.

        Each is ``{"interface": "getToken", "code": "2000", "connection": 1}``: the code that was
        answered, or how the call was made to fail; and the number of its connection.
        """
        found: list[dict[str, Any]] = self._ask("GET", "/_sandbox/calls")
        return found

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = Request(  # noqa: S310 - of our own making
            self.url + path, data, {"Content-Type": "application/json"}, method=method
        )
        with build_opener(ProxyHandler({})).open(request, timeout=10) as response:
            return json.loads(response.read() or b"null")


@pytest.fixture
def devkit_sso_sandbox() -> Iterator[Sandbox]:
    """A sandbox of the test's own: nobody is signed in there, and nothing has been called.

    Registered as redirect_uri, beside what ``python -m flask_devkit_sso.sandbox`` registers, is
    what an application has that Flask's test client talks to.
    """
    from flask_devkit_sso.sandbox import SandboxConfig, create_sandbox, running

    default = SandboxConfig()
    config = SandboxConfig(redirect_uris=(*_TEST_CLIENT, *default.redirect_uris))
    with running(create_sandbox(config)) as url:
        yield Sandbox(url, config.client_id, config.client_secret)
