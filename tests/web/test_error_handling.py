"""Applications that handle exceptions in their own way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from flask import Blueprint, Flask, Response, abort
from flask.testing import FlaskClient
from werkzeug.exceptions import Forbidden, HTTPException, Unauthorized

from flask_devkit_sso import DevKitSSO, LoginFailed, current_user, login_required
from flask_devkit_sso.testing import login_as

from ..clock import advance
from ..conftest import AppMaker, reason

SCRIPT = {"Accept": "*/*"}

CONFIGS: list[dict[str, Any]] = [
    {"TRAP_HTTP_EXCEPTIONS": True},
    {"TRAP_HTTP_EXCEPTIONS": True, "PROPAGATE_EXCEPTIONS": True},
    {"TRAP_BAD_REQUEST_ERRORS": True},
    {"TESTING": True},
    {},
]


def with_blueprint(app: Flask, handled: type[Exception] | None) -> FlaskClient:
    """Add a blueprint, and a handler for a class of exceptions to both."""
    bp = Blueprint("bp", __name__)

    @bp.get("/bp")
    @login_required
    def in_blueprint() -> str:
        return "bp"

    if handled is not None:
        for target in (app, bp):
            target.errorhandler(handled)(lambda error: ("own", getattr(error, "code", 500)))
    app.register_blueprint(bp)
    return app.test_client()


@pytest.mark.parametrize("config", CONFIGS, ids=str)
@pytest.mark.parametrize("handled", [None, HTTPException, Exception])
def test_guards_work_whatever_is_trapped_or_handled(
    make_app: AppMaker, config: dict[str, Any], handled: type[Exception] | None
) -> None:
    app = make_app()
    app.config.update(config)
    client = with_blueprint(app, handled)
    for path in ("/private", "/bp"):
        response = client.get(path)
        assert (response.status_code, response.location) == (302, f"/sso/authorize?next={path}")
        response = client.get(path, headers=SCRIPT)
        assert response.status_code == 401
        assert (response.text == "own") is (handled is not None)
    login_as(client, "bob")
    response = client.get("/admin", headers=SCRIPT)
    assert response.status_code == 403
    assert (response.text == "own") is (handled is not None)


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_a_protected_application(config: dict[str, Any], make_app: AppMaker) -> None:
    sso = DevKitSSO()
    app = make_app(sso)
    sso.protect(app)
    app.config.update(config)
    app.register_error_handler(Exception, lambda error: ("own", 500))
    assert app.test_client().get("/").location == "/sso/authorize?next=/"


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_the_applications_own_handlers_win(make_app: AppMaker, config: dict[str, Any]) -> None:
    app = make_app()
    app.config.update(config)
    app.register_error_handler(Unauthorized, lambda error: ("own 401", 401))
    app.register_error_handler(403, lambda error: ("own 403", 403))
    app.register_error_handler(LoginFailed, lambda error: (f"own {error.reason}", error.code))
    client = app.test_client()
    assert client.get("/private", headers=SCRIPT).text == "own 401"
    assert client.get("/private").status_code == 302
    assert client.get("/sso/callback?code=C&state=S").text == "own login_unknown"
    login_as(client, "bob")
    assert client.get("/admin").text == "own 403"


def test_failures_are_not_trapped(make_app: AppMaker) -> None:
    app = make_app(client_id=None)
    app.config.update(TRAP_HTTP_EXCEPTIONS=True, PROPAGATE_EXCEPTIONS=True)
    app.add_url_rule("/own", view_func=lambda: abort(403), endpoint="own")
    client = app.test_client()
    assert reason(client.get("/private")) == "not_configured"
    assert reason(client.get("/sso/authorize")) == "not_configured"
    # What the application raises is.
    with pytest.raises(Forbidden):
        client.get("/own")


# The store is down


def sign_in_and_break_the_store(app: Flask, tmp_path: Path) -> FlaskClient:
    client = app.test_client()
    login_as(client, "bob")
    (tmp_path / "store").rename(tmp_path / "aside")
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "s.db").write_bytes(b"no database" * 1000)
    advance(1)  # A read notices within a second that the file was replaced.
    return client


@pytest.fixture
def app(make_app: AppMaker, tmp_path: Path) -> Flask:
    return make_app(store_url=f"sqlite:///{tmp_path}/store/s.db")


@pytest.mark.parametrize("is_async", [False, True])
def test_error_pages_see_nobody_while_the_store_is_down(
    app: Flask, tmp_path: Path, is_async: bool
) -> None:
    def show(error: Any) -> tuple[str, int]:
        return f"own {error.code}: {current_user.username}", error.code

    async def show_async(error: Any) -> tuple[str, int]:
        return show(error)

    for code in (404, 405, 410, 500):
        app.register_error_handler(code, show_async if is_async else show)
    app.add_url_rule("/gone", view_func=lambda: abort(410), endpoint="gone")
    app.add_url_rule("/broken", view_func=lambda: {}["x"], endpoint="broken")
    client = sign_in_and_break_the_store(app, tmp_path)
    for path, code in {"/nowhere": 404, "/gone": 410, "/broken": 500}.items():
        response = client.get(path)
        assert (response.status_code, response.text) == (code, f"own {code}: None")
    assert client.post("/who").text == "own 405: None"
    # Pages that are no error pages still say what is wrong.
    assert reason(client.get("/who")) == "store_unavailable"
    assert reason(client.get("/private")) == "store_unavailable"


def test_a_function_that_runs_after_the_view(app: Flask, tmp_path: Path) -> None:
    @app.after_request
    def record(response: Response) -> Response:
        response.headers["X-User"] = str(current_user.username)
        return response

    assert app.test_client().get("/").headers["X-User"] == "None"
    client = sign_in_and_break_the_store(app, tmp_path)
    assert reason(client.get("/")) == "store_unavailable"
    assert client.get("/nowhere").status_code == 404


class PassesContext(Flask):
    """An application whose methods receive a context before the exception or the response."""

    def full_dispatch_request(self) -> Response:
        try:
            result: Any = self.preprocess_request()
            if result is None:
                result = self.dispatch_request()
        except HTTPException as error:
            result = self.handle_user_exception("context", error)
        return self.finalize_request("context", result)

    def handle_user_exception(self, *args: Any) -> Any:
        assert args[0] == "context"
        return super().handle_user_exception(args[-1])

    def handle_http_exception(self, *args: Any) -> Any:
        return super().handle_http_exception(args[-1])

    def handle_exception(self, *args: Any) -> Any:
        return super().handle_exception(args[-1])

    def finalize_request(self, *args: Any, from_error_handler: bool = False) -> Response:
        return super().finalize_request(args[-1], from_error_handler)


def test_methods_with_another_signature(make_app: AppMaker) -> None:
    app = PassesContext("tests")
    app.config.update(make_app().config)
    DevKitSSO(app)
    app.add_url_rule("/private", "private", login_required(lambda: "private"))
    app.add_url_rule("/gone", "gone", lambda: abort(410))
    client = app.test_client()
    assert client.get("/private").location == "/sso/authorize?next=/private"
    assert client.get("/private", headers=SCRIPT).status_code == 401
    assert client.get("/gone").status_code == 410
    app.after_request(login_required(lambda response: response))
    assert client.get("/gone").location == "/sso/authorize?next=/gone"
