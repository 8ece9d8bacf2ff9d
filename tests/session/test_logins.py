"""Which login an authorization response belongs to, and what the log says if it is none.

tests/web/test_login.py shows the other cases.
"""

from __future__ import annotations

import secrets

import pytest
from flask.testing import FlaskClient

from flask_devkit_sso.session.logins import COOKIE_BUDGET

from ..conftest import AppMaker, come_back, cookies, reason, start
from ..scripted import ScriptedServer

ONE_KEY = "check that all workers use the same SECRET_KEY"
MISSING = "set DEVKIT_SSO_BINDING to '{}' or 'confirm': `flask devkit-sso check-server` finds out"


@pytest.mark.parametrize(
    ("binding", "other"), [("state", "redirect_uri"), ("redirect_uri", "state")]
)
def test_a_missing_state_names_the_other_bindings(
    make_app: AppMaker, binding: str, other: str, caplog: pytest.LogCaptureFixture
) -> None:
    client = make_app(binding=binding).test_client()
    start(client)
    assert reason(client.get("/sso/callback?code=C")) == "state_missing"
    assert (
        "The server did not return what binds a login to its browser. If it never does, "
        + MISSING.format(other)
    ) in caplog.text


@pytest.mark.parametrize("query", ["state=x", "s=x", "state=&s=x", "state=x&s=x"])
def test_a_state_that_was_never_sent(
    make_app: AppMaker, server: ScriptedServer, query: str, caplog: pytest.LogCaptureFixture
) -> None:
    client = make_app(binding="confirm").test_client()
    client.post("/sso/authorize", headers={"Sec-Fetch-Site": "same-origin"})
    assert reason(client.get(f"/sso/callback?code=C&{query}")) == "state_mismatch"
    assert ": A state arrived, but none was sent.\n" in caplog.text
    assert server.paths == []
    response = client.get("/sso/callback?code=C")
    assert response.status_code == 303, "it used nothing up"


def test_a_state_beside_a_nonce_in_the_redirect_uri(
    make_app: AppMaker, server: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    client = make_app(binding="redirect_uri").test_client()
    sent = start(client)
    assert "state" not in sent
    nonce = sent["redirect_uri"].partition("?s=")[2]
    assert reason(client.get(f"/sso/callback?code=C&s={nonce}&state=x")) == "state_mismatch"
    assert ": A state arrived, but none was sent.\n" in caplog.text
    assert reason(client.get(f"/sso/callback?code=C&s={nonce}&s={nonce}")) == "state_mismatch"
    assert ": The signed nonce arrived more than once.\n" in caplog.text
    assert server.paths == []
    response = client.get(f"/sso/callback?code=C&s={nonce}&s=&state=")
    assert response.status_code == 303, "it used nothing up"


def test_the_log_says_if_workers_may_have_different_keys(
    make_app: AppMaker, caplog: pytest.LogCaptureFixture
) -> None:
    """If a state or a login cookie cannot be read, but not if the login was used before."""
    # The keys of another installation differ as well.
    app, other = make_app(), make_app(client_id="another")
    client = app.test_client()
    state = start(client)["state"]
    for browser, expected in (
        (app.test_client(), "cookie_missing"),
        (other.test_client(), "login_unknown"),
        (client, None),
        (client, "login_unknown"),
    ):
        caplog.clear()
        response = come_back(browser, state)
        if expected is None:
            assert response.status_code == 303
            # With a session, the second response would be a stray one.
            client.delete_cookie(app.extensions["devkit_sso"].session_cookie)
            continue
        assert reason(response) == expected
        assert (ONE_KEY in caplog.text) == (browser is not client), expected
    caplog.clear()
    waiting = app.test_client()
    start(waiting)
    assert reason(come_back(waiting, start(other.test_client())["state"])) == "state_mismatch"
    assert ONE_KEY in caplog.text


def test_a_login_cookie_counts_under_its_own_name_only(
    make_app: AppMaker, server: ScriptedServer
) -> None:
    client = make_app(binding="confirm").test_client()
    client.post("/sso/authorize", headers={"Sec-Fetch-Site": "same-origin"})
    (cookie,) = cookies(client)
    client.delete_cookie(cookie.key)
    client.set_cookie(cookie.key[:-8] + "abcdefgh", cookie.value)
    assert reason(client.get("/sso/callback?code=C")) == "login_unknown"
    assert server.paths == []


def test_as_many_logins_as_fit_into_their_budget_can_be_completed(client: FlaskClient) -> None:
    sizes: dict[str, int] = {}
    for number in range(40):
        # Letters that do not repeat, because repetitions would be compressed.
        state = start(client, "/" + secrets.token_hex(7 * number))["state"]
        now = {cookie.key: len(cookie.key) + len(cookie.value) for cookie in cookies(client)}
        assert sum(now.values()) <= COOKIE_BUDGET
        sizes |= now
        # The newest ones, in the order in which they started.
        assert list(now) == list(sizes)[-len(now) :]
        dropped = list(sizes)[: -len(now)]
        if dropped:
            assert sum(now.values()) + sizes[dropped[-1]] > COOKIE_BUDGET
    assert len(now) > 1
    assert come_back(client, state).status_code == 303


def test_the_tabs_own_login_counts_before_the_newest(make_app: AppMaker) -> None:
    client = make_app(binding="confirm").test_client()
    here = {"Sec-Fetch-Site": "same-origin"}
    client.post("/sso/authorize", headers=here)
    (older,) = cookies(client)
    client.post("/sso/authorize", headers=here)
    (newer,) = (cookie for cookie in cookies(client) if cookie.key != older.key)
    names = [cookie.key.rpartition("_login_")[2] for cookie in (older, newer)]

    def complete(login: str) -> str:
        fields = {"code": ["C"], "login": login}
        next_url: str = client.post("/sso/callback", json=fields, headers=here).json["next"]
        return next_url

    assert complete(names[0]) == f"/sso/confirm?login={names[0]}"
    assert complete("unknown") == f"/sso/confirm?login={names[1]}"
