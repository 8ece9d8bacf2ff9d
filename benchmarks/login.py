"""The callback of a login: check the response, exchange the code, ask for the user, start a session.

The first step, the redirect to the server, is not measured.
"""

from __future__ import annotations

import json
import secrets
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

import urllib3
from flask import Flask, abort, redirect, request, session
from flask.testing import FlaskClient
from werkzeug.wrappers import Response

from .ours import REDIRECT_URI, SECRET_KEY, ours

BASELINE = "by hand"


def by_hand(server: str) -> Flask:
    """Return an application with the shortest callback that one would write: state in Flask's
    session, a pool of urllib3, and the user in Flask's session."""
    app = Flask("by_hand", static_folder=None)
    app.secret_key = SECRET_KEY
    pool = urllib3.PoolManager(maxsize=16, timeout=5)

    def post(interface: str, **fields: str) -> dict[str, str]:
        body = json.dumps({"client_id": "20221017000000001", **fields})
        headers = {"Content-Type": "application/json"}
        url = f"{server}/sso/oauth2/{interface}"
        envelope = pool.request("POST", url, body=body, headers=headers, retries=False).json()
        if envelope["code"] != "2000":
            abort(502)
        data: dict[str, str] = envelope["data"]
        return data

    @app.get("/sso/authorize")
    def login() -> Response:
        session["state"] = secrets.token_urlsafe(24)
        query = {"redirect_uri": REDIRECT_URI, "state": session["state"]}
        return redirect(f"{server}/sso/oauth2/authorize?{urlencode(query)}")

    @app.get("/sso/callback")
    def callback() -> Response:
        if not secrets.compare_digest(session.pop("state", ""), request.args["state"]):
            abort(400)
        tokens = post(
            "getToken",
            client_secret="benchmark-secret",
            grant_type="authorization_code",
            authorization_code=request.args["code"],
            redirect_uri=REDIRECT_URI,
        )
        session["user"] = post("getUserInfo", access_token=tokens["access_token"])
        session["tokens"] = tokens
        return redirect("/", 303)

    return app


class Logins:
    """Completes logins, each in a browser of its own, and checks who is signed in afterwards.

    :param threads: how many logins take place at the same time in one call.
    """

    def __init__(self, app: Flask, threads: int = 1) -> None:
        self._app = app
        self._number = threads
        self._threads = ThreadPoolExecutor(threads)
        self._started: deque[tuple[FlaskClient, dict[str, str]]] = deque()

    def prepare(self, calls: int) -> None:
        """Start as many logins as there will be."""
        for _ in range(calls * self._number):
            client = self._app.test_client()
            query = parse_qs(urlsplit(client.get("/sso/authorize").location).query)
            code = secrets.token_hex(8)
            self._started.append((client, {"code": code, "state": query["state"][0]}))

    def __call__(self) -> None:
        if self._number == 1:
            self._complete()
            return
        for done in [self._threads.submit(self._complete) for _ in range(self._number)]:
            done.result()

    def _complete(self) -> None:
        client, query = self._started.popleft()
        response = client.get("/sso/callback", query_string=query)
        if response.status_code != 303:
            raise AssertionError(response.text)


def contenders(server: str, folder: Path, threads: int = 1) -> dict[str, Callable[[], None]]:
    """Return the functions to compare: each completes a login."""
    return {
        BASELINE: Logins(by_hand(server), threads),
        "Flask-DevKit-SSO on SQLite": Logins(ours(server, None, folder), threads),
    }
