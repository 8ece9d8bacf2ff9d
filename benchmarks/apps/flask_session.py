"""Flask's session in its signed cookie, or on Redis with Flask-Session."""

from __future__ import annotations

from flask import Flask, abort, session

from . import LOGIN_PATH, PAGE, Site, new_app


def in_cookie(site: Site) -> Flask:
    """Return an application with Flask's own session."""
    app = new_app(site)

    @app.get(PAGE)
    def private() -> str:
        if "username" not in session:
            abort(401)
        return f"Hello {session['username']}"

    @app.get(LOGIN_PATH)
    def login() -> str:
        session.update(uid="u-1", username="ada", role="Admin")
        return ""

    return app


def on_redis(site: Site) -> Flask:
    """Return the same application with Flask-Session."""
    import redis
    from flask_session import Session

    app = in_cookie(site)
    app.config.update(SESSION_TYPE="redis", SESSION_REDIS=redis.from_url(site.redis))
    Session(app)
    return app
