"""The guards: who gets in, what other people receive, and what must not be open by accident."""

from __future__ import annotations

import functools
import threading
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import pytest
from flask import (
    Blueprint,
    Flask,
    Response,
    render_template_string,
    send_file,
    stream_template_string,
)
from flask.testing import FlaskClient
from flask.views import MethodView
from werkzeug.exceptions import Forbidden, Unauthorized
from werkzeug.test import create_environ
from werkzeug.wsgi import wrap_file

from flask_devkit_sso import (
    ConfigError,
    DevKitSSO,
    current_user,
    login_required,
    public,
    role_required,
)
from flask_devkit_sso.testing import login_as

from ..conftest import AppMaker, reason
from ..scripted import ScriptedServer
from ..threads import at_once

PAGE = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
BROWSER = {"Sec-Fetch-Dest": "document", "Accept": "*/*"}
SCRIPT = {"Accept": "*/*"}


@pytest.mark.parametrize(
    "headers",
    [
        {},
        PAGE,
        BROWSER,
        {"Accept": "text/html"},
        {"Sec-Fetch-Dest": "document", "X-Requested-With": "x", "Accept": "application/json"},
    ],
    ids=str,
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_page_load_is_redirected_to_the_login(
    client: FlaskClient, headers: dict[str, str], method: str
) -> None:
    response = client.open("/private?a=1&b=2", method=method, headers=headers)
    assert response.status_code == 302
    assert response.location == "/sso/authorize?next=/private?a%3D1%26b%3D2"
    assert response.headers["Cache-Control"] == "no-store"
    assert "Cookie" in response.headers["Vary"]


@pytest.mark.parametrize(
    "headers",
    [
        SCRIPT,
        {"Accept": "application/json"},
        {"Accept": "application/json, text/plain, */*"},
        {"Accept": "text/html", "X-Requested-With": "XMLHttpRequest"},
        {"Accept": "text/html", "Sec-Fetch-Dest": "empty"},
        {"Accept": "image/avif,*/*", "Sec-Fetch-Dest": "image"},
        {"Upgrade": "WebSocket", **PAGE},
        {"Sec-WebSocket-Key": "dGhlIHNhbXBsZQ=="},
    ],
    ids=str,
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_other_requests_receive_json(
    client: FlaskClient, headers: dict[str, str], method: str
) -> None:
    response = client.open("/private", method=method, headers=headers)
    assert response.status_code == 401
    assert response.json == {"error": "login_required", "login_url": "/sso/authorize"}


def test_a_websocket_handshake_gets_401(app: Flask) -> None:
    """A browser sends no Accept with it, and on plain http no Fetch Metadata."""
    view = login_required(lambda: "connected")
    app.add_url_rule("/socket", "socket", view, websocket=True)
    client = app.test_client()
    headers = {"Upgrade": "websocket", "Connection": "keep-alive, Upgrade"}
    response = client.get("/socket", headers=headers)
    assert (response.status_code, response.json["error"]) == (401, "login_required")
    assert response.json["login_url"] == "/sso/authorize"
    login_as(client, "ada")
    assert client.get("/socket", headers=headers).text == "connected"


@pytest.mark.parametrize("destination", ["iframe", "frame", "embed", "object"])
def test_a_frame_shows_a_page_that_opens_the_login_in_the_top_window(
    client: FlaskClient, destination: str
) -> None:
    """It is the only page of ours that may be framed, and it returns to the page around it."""
    headers = {**PAGE, "Sec-Fetch-Dest": destination}
    for referer, expected in [
        ({}, "/private?a%3D1"),
        ({"Referer": "http://localhost/dashboard?b=2"}, "/dashboard?b%3D2"),
        ({"Referer": "http://evil.example/dashboard"}, "/private?a%3D1"),
    ]:
        response = client.get("/private?a=1", headers=headers | referer)
        assert response.status_code == 401
        assert f'href="/sso/authorize?next={expected}" target="_top"' in response.text
        assert "frame-ancestors" not in response.headers["Content-Security-Policy"]
        assert "X-Frame-Options" not in response.headers
        assert "no-store" in response.headers["Cache-Control"]
    response = client.post("/private", headers=headers)
    assert response.status_code == 401
    assert 'href="/sso/authorize" target="_top"' in response.text
    login_as(client, "bob")
    assert client.get("/private", headers=headers).text == "private bob"


@pytest.mark.parametrize("headers", [{}, PAGE, BROWSER], ids=str)
def test_posting_a_form_anonymously_shows_that_it_was_not_sent(
    client: FlaskClient, headers: dict[str, str]
) -> None:
    response = client.post("/private", data={"text": "long"}, headers=headers)
    assert response.status_code == 401
    assert "not sent" in response.text.lower()
    assert 'href="/sso/authorize"' in response.text
    assert 'target="_blank"' in response.text


def test_signed_in_users_get_in(client: FlaskClient) -> None:
    login_as(client, "bob")
    assert client.get("/private").text == "private bob"
    assert client.post("/private", headers=SCRIPT).text == "private bob"


def test_a_role_is_required(client: FlaskClient) -> None:
    login_as(client, "bob")
    response = client.get("/admin")
    assert response.status_code == 403
    assert "bob" in response.text
    assert "Admin" in response.text
    response = client.get("/admin", headers=SCRIPT)
    assert (response.status_code, response.json) == (
        403,
        {"error": "forbidden", "roles": ["Admin"]},
    )
    login_as(client, "ada", role="Admin")
    assert client.get("/admin").text == "admin"
    login_as(client, "eva", role=None)
    assert client.get("/admin").status_code == 403


@pytest.mark.parametrize("roles", [(), ("admin",), ("Admin", "Root"), ("",)])
def test_an_unknown_role_is_an_error_at_once(roles: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="one or more of Admin, User"):
        role_required(*roles)


def test_the_applications_error_handlers_apply(app: Flask, client: FlaskClient) -> None:
    app.register_error_handler(401, lambda error: ("own 401", 401))
    app.register_error_handler(Forbidden, lambda error: ("own 403", 403))
    assert client.get("/private", headers=SCRIPT).text == "own 401"
    assert client.get("/private").status_code == 302
    login_as(client, "bob")
    assert client.get("/admin").text == "own 403"
    assert Unauthorized.code == 401


@pytest.mark.parametrize("decorate", [login_required, role_required("User", "Admin")])
def test_async_views_stay_async(app: Flask, decorate: Any) -> None:
    @app.get("/async")
    @decorate
    async def view() -> str:
        return f"async {current_user.username}"

    client = app.test_client()
    assert client.get("/async").status_code == 302
    login_as(client, "bob")
    assert client.get("/async").text == "async bob"


def test_class_based_views(app: Flask) -> None:
    class Guarded(MethodView):
        decorators = [login_required]  # noqa: RUF012

        def get(self) -> str:
            return "guarded"

    class Half(MethodView):
        def get(self) -> str:
            return "open"

        @role_required("Admin")
        def post(self) -> str:
            return "guarded"

    app.add_url_rule("/guarded", view_func=Guarded.as_view("guarded"))
    app.add_url_rule("/half", view_func=Half.as_view("half"))
    client = app.test_client()
    assert client.get("/guarded").status_code == 302
    assert client.get("/half").text == "open"
    assert client.post("/half", headers=SCRIPT).status_code == 401
    login_as(client, "ada", role="Admin")
    assert client.get("/guarded").text == "guarded"
    assert client.post("/half").text == "guarded"


def test_decorating_something_that_is_not_a_view() -> None:
    with pytest.raises(TypeError, match="without parentheses"):
        login_required(cast(Any, None))
    with pytest.raises(TypeError, match=r"decorators = \[login_required\]"):
        login_required(MethodView)


# A guard above the route has no effect, so the application refuses to serve requests.


def test_a_guard_above_the_route_is_refused(make_app: AppMaker) -> None:
    app = make_app()

    @login_required
    @app.get("/secret")
    def secret() -> str:
        return "secret"

    app.testing = True
    with pytest.raises(ConfigError, match=r"secret \(endpoint secret\).*below @app.get"):
        app.test_client().get("/secret")
    app.testing = False
    assert app.test_client().get("/").status_code == 500


@pytest.mark.parametrize("on_blueprint", [True, False])
def test_a_guard_above_other_decorators_or_a_blueprints_route_is_refused(
    make_app: AppMaker, on_blueprint: bool
) -> None:
    from functools import wraps

    app = make_app()
    bp = Blueprint("bp", __name__)

    def other(view: Any) -> Any:
        @wraps(view)
        def wrapped() -> Any:
            return view()

        return wrapped

    @role_required("Admin")
    @other
    @(bp if on_blueprint else app).get("/secret")
    def secret() -> str:
        return "secret"

    app.register_blueprint(bp)
    assert app.test_client().get("/secret").status_code == 500


def test_a_guard_inside_a_partial(make_app: AppMaker) -> None:
    def secret(name: str) -> str:
        return name

    app = make_app()
    app.add_url_rule("/guarded", "guarded", partial(login_required(secret), "x"))
    assert app.test_client().get("/guarded").status_code == 302
    app = make_app()
    app.add_url_rule("/secret", "secret", partial(secret, "x"))
    app.testing = True
    with pytest.raises(ConfigError, match=r"secret \(endpoint secret\)"):
        app.test_client().get("/secret")


def test_a_guard_below_the_route_works_among_other_decorators(make_app: AppMaker) -> None:
    from functools import wraps

    app = make_app()

    def other(view: Any) -> Any:
        @wraps(view)
        def wrapped() -> Any:
            return view()

        return wrapped

    @app.get("/secret")
    @other
    @login_required
    @other
    def secret() -> str:
        return "secret"

    client = app.test_client()
    assert client.get("/secret").status_code == 302
    login_as(client, "bob")
    assert client.get("/secret").text == "secret"


# A cache above a guard would show one person's page to others.


def cached_as_by_flask_caching(view: Any) -> Any:
    """Cache a view, with the attributes of Flask-Caching's decorators."""
    from functools import wraps

    @wraps(view)
    def cached(*args: Any, **kwargs: Any) -> Any:
        return view(*args, **kwargs)

    cached.uncached = view  # type: ignore[attr-defined]
    cached.cache_timeout = None  # type: ignore[attr-defined]
    cached.make_cache_key = lambda: "view/%s"  # type: ignore[attr-defined]
    return cached


def plain(view: Any) -> Any:
    from functools import wraps

    return wraps(view)(lambda *args, **kwargs: view(*args, **kwargs))


CACHES = [cached_as_by_flask_caching, functools.cache, functools.lru_cache(maxsize=1)]


@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize(
    ("order", "is_refused"),
    [
        ("cache guard", True),
        ("plain cache plain guard plain", True),
        ("cache guard cache", True),
        ("guard cache guard", True),
        ("guard cache", False),
        ("plain guard plain cache", False),
        ("cache", False),
    ],
)
def test_a_cache_above_a_guard_is_refused(
    make_app: AppMaker, cache: Any, order: str, is_refused: bool
) -> None:
    decorators = {"cache": cache, "guard": login_required, "plain": plain}
    app = make_app()
    app.testing = True

    def secret() -> str:
        return "secret"

    view: Any = secret
    for name in reversed(order.split()):
        view = decorators[name](view)
    app.add_url_rule("/secret", view_func=view)
    if is_refused:
        with pytest.raises(ConfigError, match=r"cache above.*secret \(endpoint secret\)\. Write"):
            app.test_client().get("/")
    else:
        assert app.test_client().get("/").status_code == 200


def test_a_cache_above_a_guard_in_a_class(make_app: AppMaker) -> None:
    class OnClass(MethodView):
        decorators = [login_required, functools.cache]  # noqa: RUF012 - the last is the outermost

        def get(self) -> str:
            return "secret"

    class OnMethod(MethodView):
        @functools.cache  # noqa: B019
        @login_required
        def get(self) -> str:
            return "secret"

    for view in (OnClass, OnMethod):
        app = make_app()
        app.testing = True
        app.add_url_rule("/secret", view_func=view.as_view("secret"))
        with pytest.raises(ConfigError, match="cache above"):
            app.test_client().get("/")


# protect


def protected(make_app: AppMaker, target: str) -> tuple[Flask, FlaskClient]:
    sso = DevKitSSO()
    app = make_app(sso)
    bp, child = Blueprint("bp", __name__), Blueprint("child", __name__)

    @bp.get("/bp")
    def inside() -> str:
        return "inside"

    @bp.get("/bp/marked")
    @public
    def marked() -> str:
        return "marked"

    @bp.get("/bp/healthz")
    def healthz() -> str:
        return "ok"

    @child.get("/bp/child")
    def deep() -> str:
        return "deep"

    @child.get("/bp/child/healthz", endpoint="healthz")
    def child_healthz() -> str:
        return "ok"

    @public
    class Open(MethodView):
        def get(self) -> str:
            return "open"

    class Inherits(Open):
        pass

    bp.add_url_rule("/bp/open", view_func=Open.as_view("open"))
    bp.add_url_rule("/bp/inherits", view_func=Inherits.as_view("inherits"))
    if target == "app":
        sso.protect(app, public=["static", "bp.healthz", "home"])
    else:
        sso.protect(bp, public=["healthz"])
    bp.register_blueprint(child)
    app.register_blueprint(bp)
    return app, app.test_client()


@pytest.mark.parametrize("target", ["app", "blueprint"])
def test_protect(make_app: AppMaker, target: str, tmp_path: Any) -> None:
    _, client = protected(make_app, target)
    for path in ("/bp", "/bp/child", "/bp/child/healthz", "/bp/inherits", "/private"):
        assert client.get(path).status_code == 302, path
    for path in ("/", "/bp/marked", "/bp/open", "/bp/healthz"):
        assert client.get(path).status_code == 200, path
    assert client.get("/who").status_code == (302 if target == "app" else 200)
    # The extension's routes, unknown URLs, and OPTIONS requests that Flask answers.
    assert client.get("/sso/authorize").status_code == 303
    assert client.get("/sso/signed-out").status_code == 200
    with client.get("/sso/static/devkit_sso.css") as stylesheet:
        assert stylesheet.status_code == 200
    assert client.get("/nowhere").status_code == 404
    assert client.post("/bp").status_code == 405
    assert client.options("/bp").status_code == 200
    assert client.get("/static/x.css").status_code == 404
    login_as(client, "bob")
    assert client.get("/bp").text == "inside"
    assert client.get("/bp/child").text == "deep"


@pytest.mark.parametrize("entry", ["index", "admin.index"])
def test_a_public_endpoint_is_that_of_the_blueprint_itself(make_app: AppMaker, entry: str) -> None:
    """Blueprints of the same name are nested in the protected one, beside it and around it, and it
    is registered again under the name of another one."""
    sso = DevKitSSO()
    app = make_app(sso)

    def blueprint(name: str, prefix: str) -> Blueprint:
        made = Blueprint(name, __name__, url_prefix=prefix)
        for endpoint in ("index", "secret"):
            made.add_url_rule(f"/{endpoint}", endpoint, lambda: "shown")
        return made

    inner, target, outer = (blueprint("admin", f"/{name}") for name in ("inner", "target", "outer"))
    target.register_blueprint(inner)
    target.register_blueprint(blueprint("index", "/index"))
    sso.protect(target, public=[entry])
    sso.protect(outer)
    outer.register_blueprint(target)
    app.register_blueprint(outer)
    app.register_blueprint(target, name="other", url_prefix="/other")
    client = app.test_client()
    shown = [
        rule.rule
        for rule in app.url_map.iter_rules()
        if rule.rule.endswith(("/index", "/secret")) and client.get(rule.rule).text == "shown"
    ]
    assert shown == ["/other/index"]  # "outer" guards all of its own
    assert client.get("/other/inner/index").status_code == 302


def test_static_files_are_guarded_unless_they_are_public(make_app: AppMaker) -> None:
    sso = DevKitSSO()
    app = make_app(sso)
    sso.protect(app)
    assert app.test_client().get("/static/x.css").status_code == 302


def test_options_answered_by_a_view_is_guarded(make_app: AppMaker) -> None:
    sso = DevKitSSO()
    app = make_app(sso)
    app.add_url_rule("/o", view_func=lambda: "own", endpoint="o", methods=["GET", "OPTIONS"])
    sso.protect(app)
    assert app.test_client().options("/o").status_code == 401


def test_a_blueprint_is_protected_before_it_is_registered(make_app: AppMaker) -> None:
    sso = DevKitSSO()
    app = make_app(sso)
    bp = Blueprint("late", __name__)
    app.register_blueprint(bp)
    with pytest.raises(AssertionError):
        sso.protect(bp)


def test_public_must_be_a_list(make_app: AppMaker) -> None:
    sso = DevKitSSO()
    with pytest.raises(TypeError, match="a list of endpoints"):
        sso.protect(make_app(sso), public="static")


@pytest.mark.parametrize(
    ("roles", "error"),
    [
        ("Admin", TypeError),
        (7, TypeError),
        ([], ValueError),
        (["admin"], ValueError),
        (["Admin", "Root"], ValueError),
        ([["Admin"]], ValueError),
    ],
    ids=str,
)
def test_the_roles_of_protect_are_checked_at_once(roles: Any, error: type[Exception]) -> None:
    blueprint = Blueprint("bp", __name__)
    with pytest.raises(error):
        DevKitSSO().protect(blueprint, roles=roles)
    assert blueprint.before_request_funcs == {}


def test_guards_add_up(make_app: AppMaker) -> None:
    """``public`` lifts only its own guard, and only the mark at the view lifts every protect."""
    sso = DevKitSSO()
    app = make_app(sso)
    bp = Blueprint("bp", __name__)
    views: dict[str, Any] = {
        "plain": lambda: "plain",
        "listed": lambda: "listed",
        "marked": public(lambda: "marked"),
        "admin": public(role_required("Admin")(lambda: "admin")),
    }
    for name, view in views.items():
        bp.add_url_rule(f"/bp/{name}", name, view)
    sso.protect(app, public=["home", "bp.plain"])
    sso.protect(bp, roles=["Admin", "User"], public=["listed", "admin"])
    sso.protect(bp, roles=(role for role in ["Admin"]), public=["plain"])
    app.register_blueprint(bp)
    client = app.test_client()

    def statuses() -> list[int]:
        paths = ["/", *(f"/bp/{name}" for name in views)]
        return [client.get(path, headers=SCRIPT).status_code for path in paths]

    assert statuses() == [200, 401, 401, 200, 401]
    login_as(client, "eva", role=None)
    assert statuses() == [200, 403, 403, 200, 403]
    login_as(client, "bob", role="User")
    assert statuses() == [200, 200, 403, 200, 403]
    login_as(client, "ada", role="Admin")
    assert statuses() == [200, 200, 200, 200, 200]


# current_user


def test_current_user_outside_a_request_is_anonymous(app: Flask) -> None:
    for _ in range(2):
        assert current_user.is_authenticated is False
        assert current_user.is_admin is False
        assert current_user.uid is current_user.username is current_user.role is None
        assert current_user.account is None
        with app.app_context():
            assert current_user.is_authenticated is False


def test_a_longer_lived_context_leaks_no_user(app: Flask) -> None:
    with app.app_context():
        ada = app.test_client()
        login_as(ada, "ada", role="Admin")
        assert ada.get("/who").json["username"] == "ada"
        assert app.test_client().get("/who").json["username"] is None
        assert not current_user.is_authenticated


def test_events_that_share_a_wsgi_environment(app: Flask) -> None:
    """Flask-SocketIO handles all events of a connection with the environment of its handshake."""
    cookie = login_as(app.test_client(), "ada", uid="u-7")
    environ = create_environ(headers={"Cookie": f"{cookie.key}={cookie.value}"})
    with app.request_context(environ):
        assert current_user.username == "ada"
    with app.app_context():
        DevKitSSO().end_sessions("u-7")
    with app.request_context(environ):
        assert not current_user.is_authenticated


def test_a_guard_without_the_extension_raises() -> None:
    app = Flask("bare")
    app.testing = True
    app.add_url_rule("/x", view_func=login_required(lambda: "x"), endpoint="x")
    with pytest.raises(ConfigError, match=r"init_app\(app\)"):
        app.test_client().get("/x")


def test_the_account_is_loaded_once_per_request_and_only_when_used(make_app: AppMaker) -> None:
    sso = DevKitSSO()
    loaded: list[str] = []

    @sso.account_loader
    def load(user: Any) -> dict[str, str]:
        loaded.append(user.uid)
        return {"theme": "dark"}

    app = make_app(sso)
    app.add_url_rule(
        "/account",
        view_func=lambda: [current_user.account, current_user.account],
        endpoint="account",
    )
    client = app.test_client()
    login_as(client, "bob", uid="u-7")
    client.get("/private")
    assert loaded == []
    assert client.get("/account").json == [{"theme": "dark"}] * 2
    assert loaded == ["u-7"]
    assert app.test_client().get("/account").json == [None, None]


def test_nobody_waits_for_the_account_of_another_person(make_app: AppMaker) -> None:
    sso = DevKitSSO()
    both_are_loading = threading.Barrier(2, timeout=60)

    @sso.account_loader
    def load(user: Any) -> str:
        both_are_loading.wait()
        return f"account of {user.uid}"

    app = make_app(sso)
    app.add_url_rule("/account", view_func=lambda: [current_user.account], endpoint="account")
    clients = [app.test_client(), app.test_client()]
    for number, client in enumerate(clients):
        login_as(client, "ada", uid=f"u-{number}")
    responses = at_once([partial(client.get, "/account") for client in clients])
    assert [response.json for response in responses] == [["account of u-0"], ["account of u-1"]]


def test_in_templates(app: Flask) -> None:
    text = (
        "{{ current_user.username }} {{ devkit_sso.current_user.role }} "
        "{{ devkit_sso.login_url() }} {{ devkit_sso.logout_url() }}"
    )
    app.add_url_rule("/t", view_func=lambda: render_template_string(text), endpoint="t")
    client = app.test_client()
    assert client.get("/t?q=1").text == "None None /sso/authorize?next=/t?q%3D1 /sso/logout"
    login_as(client, "bob")
    assert client.get("/t").text == "bob User /sso/authorize?next=/t /sso/logout"


def test_current_user_of_flask_login_is_not_replaced_in_templates(app: Flask) -> None:
    app.login_manager = object()  # type: ignore[attr-defined]
    app.add_url_rule(
        "/t",
        view_func=lambda: render_template_string(
            "{{ current_user is defined }} {{ devkit_sso.current_user.username }}"
        ),
        endpoint="t",
    )
    client = app.test_client()
    login_as(client, "bob")
    assert client.get("/t").text == "False bob"


def test_login_url_accepts_only_local_urls(app: Flask, caplog: pytest.LogCaptureFixture) -> None:
    sso = DevKitSSO()
    with app.test_request_context("/here?x=1"):
        assert sso.login_url() == "/sso/authorize?next=/here?x%3D1"
        assert sso.login_url("/there") == "/sso/authorize?next=/there"
        assert sso.login_url("//evil.example") == "/sso/authorize?next=/"
    with app.test_request_context("/here", method="POST"):
        assert sso.login_url() == "/sso/authorize"
    with app.test_request_context("/sso/signed-out"):
        assert sso.login_url() == "/sso/authorize"
    with app.test_request_context("/sso/signed-out", headers=SCRIPT | THERE):
        assert sso.login_url() == f"/sso/authorize?next={AT_THERE}"
    assert caplog.messages == [
        "the address to return to after a login was ignored: '//evil.example'"
    ]


HTMX = {"HX-Request": "true", "Accept": "*/*"}
TURBO = {"Accept": "text/html, application/xhtml+xml", "Sec-Fetch-Dest": "empty"}
HERE = {"HX-Current-URL": "http://localhost/here?x[]=1#part"}
THERE = {"Referer": "http://localhost/there?y=2"}
REQUESTED, AT_HERE, AT_THERE = "/part?z%3D3", "/here?x%255B%255D%3D1%23part", "/there?y%3D2"
KINDS = [
    # headers, the page that a GET leads to, and that a POST leads to
    (PAGE, REQUESTED, None),
    (PAGE | HERE | THERE, REQUESTED, None),
    (SCRIPT, None, None),
    (SCRIPT | THERE, AT_THERE, AT_THERE),
    ({"X-Requested-With": "XMLHttpRequest"} | THERE, AT_THERE, AT_THERE),
    (HTMX, None, None),
    (HTMX | HERE | THERE, AT_HERE, AT_HERE),
    ({"HX-Request": "true"} | HERE, AT_HERE, AT_HERE),
    (HTMX | HERE | {"HX-Boosted": "true"}, REQUESTED, AT_HERE),
    (HTMX | HERE | {"HX-Boosted": "false"}, AT_HERE, AT_HERE),
    (HTMX | HERE | {"HX-History-Restore-Request": "true"}, REQUESTED, AT_HERE),
    (TURBO | THERE, REQUESTED, AT_THERE),
    ({**TURBO, "Accept": f"text/vnd.turbo-stream.html, {TURBO['Accept']}"}, REQUESTED, None),
    (SCRIPT | THERE | {"X-Turbo-Request-Id": "1"}, REQUESTED, AT_THERE),
    (TURBO | THERE | {"X-Turbo-Request-Id": "1", "Turbo-Frame": "f"}, AT_THERE, AT_THERE),
    # Without Fetch Metadata, and with an Accept of the application's choice
    ({"Accept": TURBO["Accept"], "Turbo-Frame": "f"} | THERE, AT_THERE, AT_THERE),
    ({"Accept": TURBO["Accept"], "HX-Request": "true"} | HERE, AT_HERE, AT_HERE),
    # What is not a page of this site, or one of ours
    (HTMX | {"HX-Current-URL": "http://evil.example/here"}, None, None),
    (HTMX | {"HX-Current-URL": "//evil.example/here"}, None, None),
    (HTMX | {"HX-Current-URL": "http://localhost@evil.example/"}, None, None),
    (HTMX | {"HX-Current-URL": "http://localhost//evil.example/"}, None, None),
    (HTMX | {"HX-Current-URL": "http://localhost/\xe6\xa5"}, None, None),
    (HTMX | {"HX-Current-URL": "about:blank"} | THERE, AT_THERE, AT_THERE),
    (SCRIPT | {"Referer": "http://localhost.evil.example/"}, None, None),
    (SCRIPT | {"Referer": "http://localhost/sso/logout"}, None, None),
]


@pytest.mark.parametrize(("headers", "get", "post"), KINDS)
def test_login_url_leads_to_the_page_that_the_person_is_on(
    make_app: AppMaker,
    headers: dict[str, str],
    get: str | None,
    post: str | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An address from a header of the request must not get into a cache."""
    sso = DevKitSSO()
    app = make_app(sso)

    def part() -> tuple[str, dict[str, str]]:
        return sso.login_url(), {"Cache-Control": "public, max-age=60"}

    app.add_url_rule("/part", "part", part, methods=["GET", "POST"])
    for method, expected in (("GET", get), ("POST", post)):
        url = "/sso/authorize" + (f"?next={expected}" if expected else "")
        response = app.test_client().open("/part?z=3", method=method, headers=headers)
        assert response.text == url
        is_from_header = expected not in (REQUESTED, None)
        cache = "private, no-store" if is_from_header else "public, max-age=60"
        assert response.headers["Cache-Control"] == cache
        # The response of a guard contains the same, whatever form it has.
        path = "/private" if "z" not in (expected or "") else "/private?z=3"
        guarded = app.test_client().open(path, method=method, headers=headers)
        found = guarded.location or (guarded.json or {}).get("login_url")
        if found is not None:
            assert found == url.replace("/part", "/private")
            assert guarded.headers["Cache-Control"] == (cache if is_from_header else "no-store")
    assert "return" not in caplog.text


def test_a_stream_contains_no_address_from_a_header(make_app: AppMaker) -> None:
    """Its headers are sent before its body is created, so a cache might keep it."""
    sso = DevKitSSO()
    app = make_app(sso)

    @app.get("/streamed")
    def streamed() -> Any:
        return stream_template_string("{{ devkit_sso.login_url() }}")

    @app.get("/begun")
    def begun() -> Any:
        return stream_template_string(sso.login_url() + " {{ devkit_sso.login_url() }}")

    client = app.test_client()
    assert client.get("/streamed", headers=HTMX | HERE).text == "/sso/authorize"
    response = client.get("/begun", headers=HTMX | HERE)
    assert response.text == f"/sso/authorize?next={AT_HERE} /sso/authorize"
    assert response.headers["Cache-Control"] == "private, no-store"


def test_a_long_page_of_the_person_is_shortened_and_logged(
    app: Flask, client: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    headers = HTMX | {"HX-Current-URL": "http://localhost/here?" + "x" * 1600}
    response = client.get("/private", headers=headers)
    assert response.json["login_url"] == "/sso/authorize?next=/here"
    assert len([message for message in caplog.messages if "shortened" in message]) == 1


# Caches


def test_responses_that_depend_on_the_login_are_not_cached(app: Flask, client: FlaskClient) -> None:
    @app.get("/cached")
    @login_required
    def cached() -> tuple[str, dict[str, str]]:
        return "x", {"Cache-Control": "private, max-age=60", "Vary": "Accept"}

    assert "Vary" not in client.get("/").headers
    assert "Cache-Control" not in client.get("/").headers
    for path in ("/who", "/private"):
        response = client.get(path)
        assert "Cookie" in response.headers["Vary"]
        assert response.headers["Cache-Control"] == "no-store"
    login_as(client, "bob")
    response = client.get("/cached")
    assert response.headers["Cache-Control"] == "private, max-age=60"
    assert response.headers["Vary"] == "Accept, Cookie"


def test_a_guarded_file_is_never_public(make_app: AppMaker, tmp_path: Path) -> None:
    app = make_app()
    app.config["SEND_FILE_MAX_AGE_DEFAULT"] = 60
    (tmp_path / "report.txt").write_text("for ada alone")

    @app.get("/report")
    @login_required
    def report() -> Response:
        return send_file(tmp_path / "report.txt")

    @app.get("/logo")
    def logo() -> Response:
        return send_file(tmp_path / "report.txt")

    client = app.test_client()
    login_as(client, "ada")
    with client.get("/report") as whole:
        assert whole.headers["Cache-Control"] == "max-age=60, private"
    etag = {"If-None-Match": whole.headers["ETag"]}
    for headers, status in (({"Range": "bytes=0-2"}, 206), (etag, 304)):
        with client.get("/report", headers=headers) as response:
            assert response.status_code == status
            assert response.headers["Cache-Control"] == "max-age=60, private"
    with client.get("/logo") as response:
        assert response.headers["Cache-Control"] == "public, max-age=60"


def test_a_missing_configuration_is_reported_in_json_too(
    make_app: AppMaker, server: ScriptedServer
) -> None:
    client = make_app(client_id=None).test_client()
    response = client.get("/private", headers=SCRIPT)
    assert (response.status_code, response.json["error"]) == (503, "not_configured")
    assert reason(client.get("/private", headers=PAGE)) == "not_configured"


def test_a_streamed_response_may_use_current_user(app: Flask) -> None:
    @app.get("/streamed")
    def streamed() -> Any:
        return stream_template_string("{{ current_user.username }}")

    @app.get("/file")
    def file() -> Response:
        return Response(wrap_file({}, BytesIO(b"x")), direct_passthrough=True)

    client = app.test_client()
    anonymous = client.get("/streamed")
    assert (anonymous.text, anonymous.headers["Vary"]) == ("None", "Cookie")
    assert "Cache-Control" not in anonymous.headers
    login_as(client, "bob")
    bobs = client.get("/streamed")
    assert (bobs.text, bobs.headers["Vary"]) == ("bob", "Cookie")
    assert bobs.headers["Cache-Control"] == "no-store"
    assert "Vary" not in client.get("/file").headers
