"""CSRF protections of the application, which must not refuse our POSTs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask, abort, request
from flask_wtf import CSRFProtect

from flask_devkit_sso import DevKitSSO
from flask_devkit_sso.testing import login_as

from ..conftest import AppMaker

SAME_ORIGIN = {"Sec-Fetch-Site": "same-origin"}


def automatic(app: Flask) -> None:
    CSRFProtect(app)


def manual(app: Flask) -> None:
    app.config["WTF_CSRF_CHECK_DEFAULT"] = False
    csrf = CSRFProtect(app)

    @app.before_request
    def check() -> None:
        csrf.protect()


def manual_method(app: Flask) -> None:
    app.config["WTF_CSRF_CHECK_DEFAULT"] = False
    app.before_request(CSRFProtect(app).protect)


class SeaSurf:
    """Checks tokens in the same place as Flask-SeaSurf."""

    __module__ = "flask_seasurf"

    def __init__(self, app: Flask) -> None:
        app.before_request(self._before_request)

    def _before_request(self) -> None:
        if request.method == "POST":
            abort(403)


@pytest.mark.parametrize("order", ["before", "after"])
@pytest.mark.parametrize("protect", [automatic, manual, manual_method, SeaSurf])
def test_our_posts_need_no_token(
    make_app: AppMaker, protect: Callable[[Flask], Any], order: str
) -> None:
    class Prepared(DevKitSSO):
        def init_app(self, app: Flask) -> None:
            if order == "before":
                protect(app)
            super().init_app(app)
            if order == "after":
                protect(app)

    client = make_app(Prepared(), binding="confirm").test_client()
    # The first request already.
    response = client.post("/sso/callback", json={"code": ["C"]}, headers=SAME_ORIGIN)
    assert response.json["error"] == "login_unknown"
    for path in ("/sso/authorize", "/sso/callback", "/sso/logout"):
        assert client.post(path, headers={"Accept": "*/*"}).json["error"] == "cross_site"
    login_as(client, "bob")
    assert client.post("/sso/logout", headers=SAME_ORIGIN).status_code == 303
    assert client.get("/who").json["username"] is None
    # The application's own forms still do.
    login_as(client, "bob")
    response = client.post("/private", headers=SAME_ORIGIN)
    assert response.status_code in (400, 403)
    assert "private bob" not in response.text
