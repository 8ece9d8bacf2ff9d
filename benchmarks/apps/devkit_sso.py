"""Flask-DevKit-SSO."""

from __future__ import annotations

from flask import Flask

from flask_devkit_sso import DevKitSSO, current_user, login_required

from . import CLIENT_ID, CLIENT_SECRET, PAGE, REDIRECT_URI, Site, new_app


def on_sqlite(site: Site, name: str = "devkit_sso.db") -> Flask:
    """Return an application that keeps its sessions in a SQLite file."""
    return _create(site, DEVKIT_SSO_STORE_URL=f"sqlite:///{name}")


def on_redis(site: Site) -> Flask:
    """Return an application that keeps its sessions in Redis."""
    return _create(site, DEVKIT_SSO_STORE_URL=site.redis)


def _create(site: Site, **settings: str) -> Flask:
    app = new_app(site)
    app.config.update(
        DEVKIT_SSO_CLIENT_ID=CLIENT_ID,
        DEVKIT_SSO_CLIENT_SECRET=CLIENT_SECRET,
        DEVKIT_SSO_SERVER_URL=site.server,
        DEVKIT_SSO_REDIRECT_URI=REDIRECT_URI,
        **settings,
    )
    DevKitSSO(app)

    @app.get(PAGE)
    @login_required
    def private() -> str:
        return f"Hello {current_user.username}"

    return app
