"""What ``flask devkit-sso doctor`` says about the path below which the application is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any

import pytest
from werkzeug.exceptions import NotFound
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.utils import redirect

from ..conftest import new_app
from ..scripted import (
    ScriptedServer,
)
from .place import APP, Place, settings

pytestmark = pytest.mark.slow

MOUNTED_APP = (
    APP
    + """
from werkzeug.exceptions import NotFound
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix
app.wsgi_app = ProxyFix(DispatcherMiddleware(NotFound(), {"/portal": app.wsgi_app}))
"""
)


def test_a_prefix_that_the_application_knows(place: Place, refusing: ScriptedServer) -> None:
    place.app(MOUNTED_APP)

    def find(path: str) -> list[str]:
        uri = f"http://127.0.0.1:1{path}"
        lines = place.findings(**settings(SERVER_URL=refusing.url, REDIRECT_URI=uri))
        return [line.replace(uri, "URI") for line in lines]

    for path in ("/portal/sso/callback", "/portal/sso/callback#/login", "/portal/#/login"):
        assert find(path) == []
    for path, mount in (("/wrong/sso/callback", "/wrong"), ("/sso/callback", "/")):
        assert find(path) == [
            (
                "error    redirect_uri: URI points to the callback only if the application is "
                f"mounted at {mount}, but it is mounted at /portal"
            )
        ]
    (warning,) = find("/wrong/#/login")
    assert warning.startswith("warning  redirect_uri: URI points to no page of the application")


@contextmanager
def proxy(app: Any, strips: str) -> Iterator[str]:
    """Run an application behind a proxy that strips a path; yield its address."""
    mounted = DispatcherMiddleware(NotFound(), {strips: without_script_name(app)})
    server = make_server("127.0.0.1", 0, mounted, threaded=True, request_handler=Quiet)
    thread = Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.port}"
    server.shutdown()
    thread.join()


class Quiet(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: object) -> None:
        pass


def without_script_name(app: Any) -> Any:
    return lambda environ, start: app(environ | {"SCRIPT_NAME": ""}, start)


class Behind:
    """A proxy's application, which a test sets when it knows the proxy's address."""

    app: Any = None

    def __call__(self, environ: Any, start: Any) -> Any:
        return self.app(environ, start)


RIGHT = {
    "callback": ("/portal/sso/callback", {}),
    "landing at the callback": ("/portal/sso/callback#/login", {}),
    "page": ("/portal/#/login", {"APPLICATION_ROOT": "/portal"}),
}
WRONG = {
    "other": ("/other/sso/callback", {}, "does not lead to the application's callback (HTTP 404)"),
    "none": (
        "/sso/callback",
        {"APPLICATION_ROOT": "/portal"},
        "does not lead to the application's callback (HTTP 404)",
    ),
    "none that the application knows of": (
        "/sso/callback#/login",
        {},
        "does not lead to the application's landing page at the callback (HTTP 404)",
    ),
    "page, and none that the application knows of": (
        "/#/login",
        {},
        "does not lead to the landing page (HTTP 404)",
    ),
    "twice": (
        "/portal/sso/callback",
        {"DEVKIT_SSO_URL_PREFIX": "/portal/sso"},
        "does not lead to the application's callback (HTTP 404)",
    ),
    "page": (
        "/other/#/login",
        {},
        "points to no page of the application, and does not lead to the landing page (HTTP 404)",
    ),
    "page without a root": (
        "/portal/#/login",
        {},
        "points to no page of the application, and does not lead to the landing page (HTTP 200)",
    ),
}


def run_behind_a_proxy(
    place: Place, refusing: ScriptedServer, path: str, options: dict[str, str]
) -> tuple[list[str], list[str]]:
    """Return the findings about the redirect URI while the application runs, and while not."""
    behind = Behind()
    place.app(APP)
    with proxy(behind, "/portal") as url:
        uri = url + path
        behind.app = new_app(refusing.url, place.folder, uri, **options)
        behind.app.add_url_rule("/", view_func=lambda: "home")
        configured = settings(SERVER_URL=refusing.url, REDIRECT_URI=uri)
        configured |= {f"FLASK_{name}": value for name, value in options.items()}
        running = place.findings("error ", "warning ", "ok       redirect_uri", **configured)
    stopped = place.findings(**configured)
    running, stopped = (
        [line.replace(uri, "URI") for line in lines] for lines in (running, stopped)
    )
    return running, stopped


@pytest.mark.parametrize("case", RIGHT)
def test_the_right_prefix_behind_a_proxy(place: Place, refusing: ScriptedServer, case: str) -> None:
    running, _ = run_behind_a_proxy(place, refusing, *RIGHT[case])
    assert len(running) == 1
    assert running[0].startswith("ok       redirect_uri: URI leads to the ")


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_prefix_behind_a_proxy(place: Place, refusing: ScriptedServer, case: str) -> None:
    path, options, expected = WRONG[case]
    running, stopped = run_behind_a_proxy(place, refusing, path, options)
    assert running == [f"error    redirect_uri: URI {expected}"]
    assert all(line.startswith("warning  redirect_uri: URI points to ") for line in stopped)


UNKNOWN = {
    "/sso/callback": (
        "note     redirect_uri: URI points to the callback; cannot tell whether requests get "
        "there, because "
    ),
    "/#/login": (
        "note     redirect_uri: URI points to a page of the application; cannot tell whether "
        "requests get there, because "
    ),
    "/other/sso/callback": (
        "warning  redirect_uri: URI points to the callback only if the application is mounted at "
        "/other; cannot tell, because "
    ),
    "/other/#/login": (
        "warning  redirect_uri: URI points to no page of the application; cannot tell whether "
        "another server leads to the landing page, because "
    ),
}


@pytest.mark.parametrize("path", UNKNOWN)
def test_a_response_that_does_not_tell(place: Place, refusing: ScriptedServer, path: str) -> None:
    """For example, a proxy requires a sign-in of its own, or the application is not running."""
    place.app(APP)
    with proxy(redirect("/elsewhere"), "") as url:
        configured = settings(SERVER_URL=refusing.url, REDIRECT_URI=url + path)
        lines = place.findings("note     redirect_uri", "warning ", "error ", **configured)
    stopped = place.findings("note     redirect_uri", "warning ", "error ", **configured)
    assert [line.replace(url + path, "URI") for line in lines + stopped] == [
        f"{UNKNOWN[path]}the response there is HTTP 302",
        f"{UNKNOWN[path]}there is no usable response now",
    ]
