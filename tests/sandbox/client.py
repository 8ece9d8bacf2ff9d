"""A browser and an application's server, for tests of the sandbox."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs

import requests

from flask_devkit_sso.sandbox import SandboxConfig, create_sandbox, running

CLIENT_ID = "20221017000000001"
CLIENT_SECRET = "canary-client-secret-77c0"
REDIRECT_URI = "http://127.0.0.1:5000/sso/callback"
JSON = dict[str, Any]


class Client:
    """A browser and an application's server that use a sandbox."""

    def __init__(
        self, url: str, secret: str = CLIENT_SECRET, redirect_uri: str = REDIRECT_URI
    ) -> None:
        self.url = url
        self.secret = secret
        self.redirect_uri = redirect_uri
        self.browser = requests.Session()

    def authorize(self, **query: str | list[str] | None) -> requests.Response:
        parameters = {
            "client_id": CLIENT_ID,
            "redirect_uri": self.redirect_uri,
            "response_type": "code",
        } | query
        return self.browser.get(
            self.url + "/sso/oauth2/authorize", params=parameters, allow_redirects=False, timeout=60
        )

    def submit(self, page: requests.Response, **fields: str) -> requests.Response:
        token = re.search(r'name="form_token" value="([^"]+)"', page.text)
        assert token, page.text
        return self.browser.post(
            self.url + "/sign-in",
            data={"form_token": token[1], **fields},
            allow_redirects=False,
            timeout=60,
        )

    def response_url(self, username: str = "ada", **query: str) -> str:
        answer = self.authorize(**query)
        if answer.status_code == 200:
            answer = self.submit(answer, username=username)
        assert answer.status_code in (302, 303), answer.text
        return answer.headers["Location"]

    def code(self, username: str = "ada", **query: str) -> str:
        return answer_in(self.response_url(username, **query))["code"]

    def post(self, interface: str, body: object, **kwargs: Any) -> requests.Response:
        path = interface if interface.startswith("/") else f"/sso/oauth2/{interface}"
        return requests.post(
            self.url + path, json=body, timeout=kwargs.pop("timeout", 60), **kwargs
        )

    def call(self, interface: str, **body: object) -> JSON:
        answer = self.post(interface, {"client_id": CLIENT_ID, **body})
        assert answer.status_code == 200
        assert answer.headers["Content-Type"] == "application/json"
        envelope: JSON = answer.json()
        assert list(envelope) == ["code", "message", "messageArgs", "data"]
        assert envelope["messageArgs"] == []
        return envelope

    def exchange(self, code: str, **more: object) -> JSON:
        return self.call("getToken", **(self.token_request(code) | more))

    def token_request(self, code: str) -> JSON:
        return {
            "client_id": CLIENT_ID,
            "grant_type": "authorization_code",
            "client_secret": self.secret,
            "authorization_code": code,
            "redirect_uri": self.redirect_uri,
        }

    def tokens(self, username: str = "ada") -> JSON:
        data: JSON = self.exchange(self.code(username))["data"]
        return data

    def user(self, tokens: JSON) -> JSON:
        return self.call("getUserInfo", access_token=tokens["access_token"])

    def fail_next(self, interface: str, how: str, times: int = 1) -> None:
        body = {"interface": interface, "how": how, "times": times}
        assert self.post("/_sandbox/fail-next", body).status_code == 204

    def calls(self) -> list[JSON]:
        calls: list[JSON] = requests.get(self.url + "/_sandbox/calls", timeout=60).json()
        return calls

    def forget_calls(self) -> None:
        assert requests.delete(self.url + "/_sandbox/calls", timeout=60).status_code == 204

    def change_person(self, username: str, **changes: object) -> None:
        answer = self.post("/_sandbox/people", {"username": username, **changes})
        assert answer.status_code == 200, answer.text


def answer_in(url: str) -> dict[str, str]:
    """Return the parameters of an authorization response, wherever they are in the URL."""
    query = url.rpartition("?")[2].partition("#")[0]
    return {name: values[0] for name, values in parse_qs(query, strict_parsing=True).items()}


@contextmanager
def a_client(redirect_uri: str = REDIRECT_URI, **config: Any) -> Iterator[Client]:
    """Run another sandbox, in a thread."""
    app = create_sandbox(
        SandboxConfig(client_secret=CLIENT_SECRET, redirect_uris=(redirect_uri,), **config)
    )
    with running(app) as url:
        client = Client(url, redirect_uri=redirect_uri)
        yield client
        client.browser.close()
