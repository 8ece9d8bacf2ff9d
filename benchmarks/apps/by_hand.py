"""The shortest login that one would write by hand: ``state`` and the user in Flask's session, and a
pool of urllib3."""

from __future__ import annotations

import json
import secrets
from urllib.parse import urlencode

import urllib3
from flask import Flask, Response, abort, redirect, request, session

from . import CALLBACK_PATH, CLIENT_ID, CLIENT_SECRET, LOGIN_PATH, PAGE, REDIRECT_URI, Site, new_app


def create(site: Site) -> Flask:
    """Return the application."""
    app = new_app(site)
    pool = urllib3.PoolManager(maxsize=16, timeout=5)

    def post(interface: str, **fields: str) -> dict[str, str]:
        body = json.dumps({"client_id": CLIENT_ID, **fields})
        headers = {"Content-Type": "application/json"}
        url = f"{site.server}/sso/oauth2/{interface}"
        envelope = pool.request("POST", url, body=body, headers=headers, retries=False).json()
        if envelope["code"] != "2000":
            abort(502)
        data: dict[str, str] = envelope["data"]
        return data

    @app.get(LOGIN_PATH)
    def login() -> Response:
        session["state"] = secrets.token_urlsafe(24)
        query = {
            "client_id": CLIENT_ID,
            "redirect_uri": REDIRECT_URI,
            "response_type": "code",
            "state": session["state"],
        }
        return redirect(f"{site.server}/sso/oauth2/authorize?{urlencode(query)}")  # type: ignore[return-value]

    @app.get(CALLBACK_PATH)
    def callback() -> Response:
        if not secrets.compare_digest(session.pop("state", ""), request.args["state"]):
            abort(400)
        tokens = post(
            "getToken",
            client_secret=CLIENT_SECRET,
            grant_type="authorization_code",
            authorization_code=request.args["code"],
            redirect_uri=REDIRECT_URI,
        )
        session["user"] = post("getUserInfo", access_token=tokens["access_token"])
        session["tokens"] = tokens
        return redirect("/", 303)  # type: ignore[return-value]

    @app.get(PAGE)
    def private() -> str:
        if "user" not in session:
            abort(401)
        return f"Hello {session['user']['username']}"

    return app
