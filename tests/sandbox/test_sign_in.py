"""What the sandbox shows authors of a server: forms, guesses, and what is stored."""

from __future__ import annotations

import gc
import re
from typing import Any

import pytest
import requests

from flask_devkit_sso.sandbox import SandboxConfig, create_sandbox, running

from ..clock import advance
from ..threads import at_once
from .client import CLIENT_SECRET, REDIRECT_URI, Client, a_client, answer_in


def form_token(page: requests.Response) -> str:
    found = re.search(r'name="form_token" value="([^"]+)"', page.text)
    assert found
    return found[1]


# Forms


@pytest.mark.parametrize("victim_has_a_form", [True, False])
def test_another_website_cannot_submit_the_form(victim_has_a_form: bool) -> None:
    """It can load a form itself, and have the victim's browser send what is in it."""
    with a_client() as client, requests.Session() as victim:
        loaded_by_the_attacker = form_token(client.authorize())
        attacker, client.browser = client.browser, victim
        if victim_has_a_form:
            assert client.authorize().status_code == 200
        for fields in ({"username": "ada"}, {"cancel": "1"}):
            answer = victim.post(
                client.url + "/sign-in",
                data={"form_token": loaded_by_the_attacker, **fields},
                allow_redirects=False,
                timeout=60,
            )
            assert answer.status_code == 400
            assert "out of date, or was opened in another browser" in answer.text
            assert "Set-Cookie" not in answer.headers
        assert client.submit(client.authorize(), username="bob").status_code == 303
        attacker.close()


def test_the_cookie_of_the_form() -> None:
    with a_client() as client:
        first = client.authorize()
        cookie = first.headers["Set-Cookie"]
        assert re.fullmatch(r"sandbox_form_\d+=[\w-]{43}; HttpOnly; Path=/; SameSite=Lax", cookie)
        # A second tab does not make the first one's form useless.
        assert client.authorize().headers["Set-Cookie"] == cookie
        assert client.submit(first, username="ada").status_code == 303


def test_each_sign_in_has_a_new_cookie() -> None:
    with a_client() as client:
        page = client.authorize()
        cookies = [client.submit(page, username="ada").headers["Set-Cookie"] for _ in range(2)]
        assert cookies[0] != cookies[1]


# Guesses


def test_guessing_a_password() -> None:
    with a_client() as client:
        client.change_person("ada", password="canary-password")
        page = client.submit(client.authorize(), username="ada")
        assert page.status_code == 200
        assert '<label for="password">' in page.text
        assert client.submit(page, cancel="1").status_code == 303

        def sign_in(password: str) -> requests.Response:
            return client.submit(page, username="ada", password=password)

        # Even simultaneous guesses are limited.
        statuses = at_once([lambda: sign_in("guess").status_code] * 9)
        assert sorted(statuses) == [403] * 5 + [429] * 4
        refused = sign_in("canary-password")
        assert (refused.status_code, refused.headers["Retry-After"]) == (429, "60")
        assert "Set-Cookie" not in refused.headers
        # Nobody else is locked out.
        assert client.submit(page, username="bob").status_code == 303

        advance(60)
        assert at_once([lambda: sign_in("guess").status_code] * 4) == [403] * 4
        signed_in = sign_in("canary-password")
        tokens = client.exchange(answer_in(signed_in.headers["Location"])["code"])["data"]
        assert client.user(tokens)["data"]["username"] == "ada"
        # The right password cleared the count.
        assert sign_in("guess").status_code == 403

        client.change_person("ada", password=None)
        assert client.submit(page, username="ada").status_code == 303


def test_without_the_password_the_page_does_not_say_that_an_account_is_disabled() -> None:
    with a_client() as client:
        client.change_person("eve", password="canary-password")
        page = client.submit(client.authorize(), typed_username="eve", password="guess")
        assert (page.status_code, "disabled" in page.text) == (403, False)
        page = client.submit(page, username="eve", password="canary-password")
        assert "The account eve is disabled." in page.text


def test_guessing_the_client_secret() -> None:
    with a_client() as client:
        used, code = client.code("ada"), client.code("ada")
        tokens = client.exchange(used)["data"]
        with requests.Session() as client.browser:
            others = client.code("bob")
        for number in range(100):
            # A right guess for a used code would be noticed: it would revoke the tokens.
            expected, guessed = (("8204", code), ("8202", used))[number % 2]
            assert client.exchange(guessed, client_secret=f"guess-{number}")["code"] == expected
        assert client.exchange(code)["code"] == "8204"
        assert client.exchange(used)["code"] == "8202"
        assert client.user(tokens)["code"] == "2000"
        assert client.exchange(others)["code"] == "2000"
        advance(3600)
        with requests.Session() as client.browser:
            assert client.exchange(client.code("ada"))["code"] == "2000"


# What is stored


def stored_texts(root: object) -> set[str]:
    """Return every text that can be reached from an object."""
    seen: set[int] = set()
    found: set[str] = set()
    waiting: list[Any] = [root]
    while waiting:
        each = waiting.pop()
        if id(each) in seen or isinstance(each, type) or callable(each):
            continue
        seen.add(id(each))
        if isinstance(each, bytes):
            found.add(each.decode("latin-1"))
        elif isinstance(each, str):
            found.add(each)
        waiting += gc.get_referents(each)
    return found


def test_no_secret_is_stored_in_clear() -> None:
    app = create_sandbox(
        SandboxConfig(
            client_secret=CLIENT_SECRET, redirect_uris=(REDIRECT_URI,), rotate_refresh_tokens=True
        )
    )
    with running(app) as url:
        client = Client(url)
        client.change_person("ada", password="canary-password")
        page = client.authorize()
        answer = client.submit(page, username="ada", password="canary-password")
        used, unused = answer_in(answer.headers["Location"])["code"], client.code()
        tokens = client.exchange(used)["data"]
        new = client.call("refreshToken", refresh_token=tokens["refresh_token"])["data"]
        cookies = [str(cookie.value) for cookie in client.browser.cookies]
        secrets = {CLIENT_SECRET, "canary-password", form_token(page), used, unused, *cookies}
        for data in (tokens, new):
            secrets |= {data["access_token"], data["refresh_token"]}
        assert len(secrets) == 11
        (state,) = app.extensions.values()
        texts = stored_texts(state)
        assert {"ada", REDIRECT_URI} <= texts
        assert not [secret for secret in secrets if any(secret in text for text in texts)]
        client.browser.close()
