"""A small application whose users sign in through DevKit single sign-on.

``make demo`` starts it together with a sandbox.
"""

from __future__ import annotations

from flask import Flask, render_template

from flask_devkit_sso import DevKitSSO, current_user, login_required, role_required

sso = DevKitSSO()


def create_app() -> Flask:
    """Return the application, configured by the ``FLASK_…`` environment variables."""
    app = Flask(__name__)
    app.config["DEVKIT_SSO_APP_NAME"] = "Lighthouse"
    app.config["DEVKIT_SSO_LOGO_URL"] = "/static/lighthouse.svg"
    app.config.from_prefixed_env()
    sso.init_app(app)

    @app.get("/")
    def home() -> str:
        return render_template("home.html")

    @app.get("/reports")
    @login_required
    def reports() -> str:
        return render_template("reports.html")

    @app.get("/admin")
    @role_required("Admin")
    def admin() -> str:
        return render_template("admin.html")

    @app.get("/me")
    @login_required
    def me() -> str:
        facts = {
            "Name": current_user.username,
            "Account id": current_user.uid,
            "Role": current_user.role or "unknown",
        }
        return render_template("me.html", facts=facts)

    @app.get("/healthz")
    def healthz() -> str:
        return "ok\n"

    @app.errorhandler(404)
    def not_found(error: Exception) -> tuple[str, int]:
        return render_template("not_found.html"), 404

    return app
