"""Every reason for a failed login or request, produced through the routes and a real server."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from flask_devkit_sso import DevKitSSO, LoginRefused

from .clock import advance
from .conftest import AppMaker, come_back, start
from .scripted import GET_TOKEN, ScriptedServer, closes, fails, says

Fail = Callable[[Mapping[str, str]], TestResponse]
"""Fail, in a request with these headers."""
SetUp = Callable[[AppMaker, ScriptedServer, Path], Fail]


def login_expired(make_app: AppMaker, server: ScriptedServer, folder: Path) -> Fail:
    client = make_app(login_ttl=1).test_client()
    state = start(client)["state"]
    advance(2.1)
    return lambda headers: come_back(client, state, headers=headers)


def login_unknown(make_app: AppMaker, server: ScriptedServer, folder: Path) -> Fail:
    client = make_app().test_client()
    return lambda headers: come_back(client, "made-up", headers=headers)


def cookie_missing(make_app: AppMaker, server: ScriptedServer, folder: Path) -> Fail:
    app = make_app()
    state = start(app.test_client())["state"]
    return lambda headers: come_back(app.test_client(), state, headers=headers)


def returned_with(query: str) -> SetUp:
    """Return from authorize with a query, in which STATE stands for the right state."""

    def set_up(make_app: AppMaker, server: ScriptedServer, folder: Path) -> Fail:
        client = make_app().test_client()
        return lambda headers: client.get(
            "/sso/callback?" + query.replace("STATE", start(client)["state"]), headers=headers
        )

    return set_up


def get_token_gives(response: Callable[..., None]) -> SetUp:
    """Let getToken give this response."""

    def set_up(make_app: AppMaker, server: ScriptedServer, folder: Path) -> Fail:
        server.answers[GET_TOKEN] = response
        return _complete_login(make_app().test_client())

    return set_up


def refused(make_app: AppMaker, server: ScriptedServer, folder: Path) -> Fail:
    sso = DevKitSSO()

    @sso.on_login
    def refuse(user: object) -> None:
        raise LoginRefused

    return _complete_login(make_app(sso).test_client())


def cross_site(make_app: AppMaker, server: ScriptedServer, folder: Path) -> Fail:
    client = make_app().test_client()
    return lambda headers: client.post(
        "/sso/logout", headers={"Origin": "https://evil.example", **headers}
    )


def not_configured(make_app: AppMaker, server: ScriptedServer, folder: Path) -> Fail:
    client = make_app(client_id=None).test_client()
    return lambda headers: client.get("/sso/authorize?next=/private", headers=headers)


def store_unavailable(make_app: AppMaker, server: ScriptedServer, folder: Path) -> Fail:
    (folder / "devkit_sso.db").write_bytes(b"no database at all, but long enough" * 100)
    return _complete_login(make_app().test_client())


def _complete_login(client: FlaskClient) -> Fail:
    return lambda headers: come_back(client, start(client)["state"], headers=headers)


FAILURES: dict[str, tuple[int, SetUp]] = {
    "login_expired": (400, login_expired),
    "login_unknown": (400, login_unknown),
    "cookie_missing": (400, cookie_missing),
    "state_missing": (400, returned_with("code=C")),
    "state_mismatch": (400, returned_with("code=C&state=STATEx")),
    "code_missing": (400, returned_with("state=STATE")),
    "denied": (403, returned_with("error=access_denied&state=STATE")),
    "authorize_error": (502, returned_with("error=server_error&state=STATE")),
    "server_rejected": (502, get_token_gives(fails("8204"))),
    "server_unavailable": (503, get_token_gives(closes)),
    "server_answer_invalid": (502, get_token_gives(says(b"<html>A login page</html>"))),
    "refused": (403, refused),
    "cross_site": (403, cross_site),
    "not_configured": (503, not_configured),
    "store_unavailable": (503, store_unavailable),
}
"""By reason: the HTTP status, and a function that sets up the failure."""
