"""Which login an authorization response belongs to, and what the log says if it is none.

tests/web/test_login.py shows the other cases.
"""

from __future__ import annotations

import pytest

from ..conftest import AppMaker, cookies, reason, start
from ..scripted import ScriptedServer

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
    assert "A state arrived, but none was sent." in caplog.text
    assert server.paths == []
    response = client.get("/sso/callback?code=C")
    assert response.status_code == 303, "it used nothing up"


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
