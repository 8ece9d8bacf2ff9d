"""@passive and X-DevKit-SSO-Passive: requests that leave the idle timeout alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps
from typing import Any, ClassVar

import pytest
from flask import Flask
from flask.testing import FlaskClient
from flask.views import MethodView, View

from flask_devkit_sso import current_user, login_required, passive
from flask_devkit_sso.testing import login_as

from ..clock import advance

PASSIVE = {"X-DevKit-SSO-Passive": "1"}


@passive
class OfAClass(View):
    init_every_request = False

    def dispatch_request(self) -> str:
        return str(current_user.uid)


class OfASubclass(OfAClass):
    pass


class ByItsDecorators(View):
    decorators: ClassVar = [login_required, passive]

    def dispatch_request(self) -> str:
        return "ok"


class ByItsMethod(MethodView):
    @passive
    @login_required
    def get(self) -> str:
        return "ok"

    @login_required
    def post(self) -> str:
        return "ok"


class ByDispatch(View):
    @passive
    def dispatch_request(self) -> str:
        return str(current_user.uid)


def logged(view: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(view)
    def inner() -> Any:
        return view()

    return inner


@login_required
def active() -> str:
    return "ok"


@login_required
async def active_too() -> str:
    return "ok"


def marked_first() -> str:
    return "ok"


VIEWS: dict[str, Any] = {
    "plain": passive(login_required(lambda: "ok")),
    "below the guard": login_required(passive(lambda: "ok")),
    "below another decorator": logged(passive(login_required(lambda: "ok"))),
    "async": passive(active_too),
    "partial": partial(passive(login_required(lambda word: word)), "ok"),
    "of a partial": passive(partial(login_required(lambda word: word), "ok")),
    "class": OfAClass.as_view("class"),
    "decorators": ByItsDecorators.as_view("decorators"),
    "method": ByItsMethod.as_view("method"),
    "dispatch": ByDispatch.as_view("dispatch"),
}


@pytest.fixture
def seen(app: Flask) -> Flask:
    """An application that uses the user before any view runs."""
    app.before_request(lambda: current_user.uid and None)
    return app


def keeps_alive(client: FlaskClient, *args: Any, **kwargs: Any) -> bool:
    """Return whether requests extend the idle timeout of 1800 seconds."""
    login_as(client, "bob")
    advance(900)
    assert client.open(*args, **kwargs).status_code == 200
    advance(850)
    # Passive requests never shorten a session.
    assert client.get("/private", headers=PASSIVE).status_code == 200
    advance(100)
    return client.get("/private", headers=PASSIVE).status_code == 200


@pytest.mark.parametrize("name", VIEWS)
def test_a_passive_view_leaves_the_idle_timeout_alone(seen: Flask, name: str) -> None:
    seen.add_url_rule("/poll", endpoint="poll", view_func=VIEWS[name])
    client = seen.test_client()
    assert not keeps_alive(client, "/poll")
    assert not keeps_alive(client, "/poll", method="HEAD")


def test_the_mark_may_be_above_the_route(seen: Flask) -> None:
    passive(seen.get("/poll")(marked_first))
    assert not keeps_alive(seen.test_client(), "/poll")


def test_the_header_makes_any_request_passive(seen: Flask) -> None:
    client = seen.test_client()
    assert not keeps_alive(client, "/private", headers=PASSIVE)
    for other in ("0", "", "true"):
        assert keeps_alive(client, "/private", headers={"X-DevKit-SSO-Passive": other})


def test_other_views_extend_the_idle_timeout(seen: Flask) -> None:
    seen.add_url_rule("/active", endpoint="active", view_func=active)
    seen.add_url_rule("/sub", endpoint="sub", view_func=OfASubclass.as_view("sub"))
    seen.add_url_rule("/method", endpoint="method", view_func=ByItsMethod.as_view("method"))
    client = seen.test_client()
    assert keeps_alive(client, "/active")
    assert keeps_alive(client, "/sub"), "a subclass of a passive view is not passive"
    assert keeps_alive(client, "/method", method="POST")


def test_a_passive_view_is_guarded_all_the_same(seen: Flask) -> None:
    seen.add_url_rule("/poll", endpoint="poll", view_func=VIEWS["plain"])
    assert seen.test_client().get("/poll").status_code == 302
