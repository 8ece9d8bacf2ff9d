"""A request to a guarded page, and to a public one."""

from __future__ import annotations

from flask import Flask

from .apps import (
    PAGE,
    Site,
    authlib_client,
    devkit_sso,
    flask_dance,
    flask_login,
    flask_session,
    new_app,
    plain,
    signed_cookie,
)
from .browser import Browser
from .measure import Calls, compare
from .report import Report, compared

BASELINE = "Flask's session cookie"

RATIO = "guarded, ratio: "
"""How the names of the ratios in the report begin."""

TURNS = 10
CALLS = 50


def measure(site: Site, rounds: int) -> Report:
    """Compare guarded requests, and public ones."""
    guarded = compare(
        {
            "no login at all": _page(plain.create(site)),
            "a cookie signed by hand": _page(signed_cookie.create(site)),
            BASELINE: _page(flask_session.in_cookie(site)),
            "Authlib, user in Flask's session": _page(authlib_client.create(site)),
            "Flask-Dance, user in Flask's session": _page(flask_dance.create(site)),
            "Flask-Login, user in memory": _page(flask_login.in_memory(site)),
            "Flask-Login, user in SQLite": _page(flask_login.on_sqlite(site)),
            "Flask-Session on Redis": _page(flask_session.on_redis(site)),
            "Flask-DevKit-SSO on SQLite": _page(devkit_sso.on_sqlite(site)),
            "Flask-DevKit-SSO on Redis": _page(devkit_sso.on_redis(site)),
        },
        BASELINE,
        rounds=rounds,
        calls=CALLS,
        turns=TURNS,
    )
    public = compare(
        {
            "without the extension": _public(new_app(site)),
            "with the extension": _public(devkit_sso.on_sqlite(site)),
            "without the extension, Flask's session cookie": _public(
                flask_session.in_cookie(site), sign_in=True
            ),
            "with the extension, signed in": _public(devkit_sso.on_sqlite(site), sign_in=True),
        },
        "without the extension",
        rounds=rounds,
        calls=CALLS,
        turns=TURNS,
    )
    return Report(
        [
            compared("guarded", "A request to a guarded page", guarded),
            compared("public", "A request to a public page", public),
        ],
        {f"guarded: {result.name}": result.median for result in guarded}
        | {f"{RATIO}{result.name}": result.ratio for result in guarded},
    )


def _page(app: Flask) -> Calls:
    """Return a contender that loads the guarded page as somebody who is signed in."""
    browser = Browser(app)
    browser.sign_in()
    return _load(browser, PAGE)


def _public(app: Flask, *, sign_in: bool = False) -> Calls:
    """Return a contender that loads a page without a guard."""
    app.add_url_rule("/public", view_func=lambda: "Hello", endpoint="public")
    browser = Browser(app)
    if sign_in:
        browser.sign_in()
    return _load(browser, "/public")


def _load(browser: Browser, url: str) -> Calls:
    request = browser.request(url)

    def load() -> None:
        if request().status != 200:
            raise AssertionError("A request failed")

    return Calls(load)
