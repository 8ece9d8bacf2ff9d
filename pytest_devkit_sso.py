"""The pytest plugin of Flask-DevKit-SSO: the fixture ``devkit_sso_sandbox``.

This module is outside the package because pytest imports it at every start, in every project. A
module of the package would import Flask as well, even if a project's tests do not use it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

import pytest

_TEST_CLIENT_REDIRECT_URIS = ("http://localhost/sso/callback", "http://localhost/#/login")
"""The redirect URIs of an application that is called by Flask's test client."""


class Sandbox:
    """A running sandbox.

    ``url``, ``client_id`` and ``client_secret`` are the values for ``DEVKIT_SSO_SERVER_URL``,
    ``DEVKIT_SSO_CLIENT_ID`` and ``DEVKIT_SSO_CLIENT_SECRET``.
    """

    def __init__(self, url: str, client_id: str, client_secret: str) -> None:
        self.url = url
        self.client_id = client_id
        self.client_secret = client_secret

    def fail_next(self, interface: str, how: str) -> None:
        """Let the next call of an interface fail.

        :param interface: ``authorize``, ``getToken``, ``getUserInfo``, ``refreshToken``,
            ``logout`` or ``validity``.
        :param how: an error code such as ``"8202"``; ``"http500"`` or another 4xx or 5xx status;
            ``"close"``, ``"slow"``, ``"slow-headers"``, ``"hang"``, ``"garbage"``, ``"empty"``,
            ``"huge"``, ``"redirect"``; for authorize also an error of RFC 6749 such as
            ``"access_denied"``.
        :raises ValueError: if there is no such interface or way to fail; lists those that exist.
        """
        try:
            self._request("POST", "/_sandbox/fail-next", {"interface": interface, "how": how})
        except HTTPError as error:
            if error.code != 400:
                raise
            with error:
                raise ValueError(json.loads(error.read())["error"]) from None

    @property
    def calls(self) -> list[dict[str, Any]]:
        """The application's calls so far, oldest first.

        Each is ``{"interface": "getToken", "code": "2000", "connection": 1}``. ``code`` is the code
        of the response, or how the call was made to fail. ``connection`` is the number of the TCP
        connection.
        """
        calls: list[dict[str, Any]] = self._request("GET", "/_sandbox/calls")
        return calls

    def _request(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = Request(  # noqa: S310 - always http
            self.url + path, data, {"Content-Type": "application/json"}, method=method
        )
        with build_opener(ProxyHandler({})).open(request, timeout=10) as response:
            return json.loads(response.read() or b"null")


@pytest.fixture
def devkit_sso_sandbox() -> Iterator[Sandbox]:
    """A new sandbox for each test: nobody is signed in, and ``calls`` is empty.

    It accepts the redirect URIs that ``python -m flask_devkit_sso.sandbox`` accepts by default, and
    those of an application that is called by Flask's test client.
    """
    from flask_devkit_sso.sandbox import SandboxConfig, create_sandbox, running

    redirect_uris = (*_TEST_CLIENT_REDIRECT_URIS, *SandboxConfig().redirect_uris)
    config = SandboxConfig(redirect_uris=redirect_uris)
    with running(create_sandbox(config)) as url:
        yield Sandbox(url, config.client_id, config.client_secret)
