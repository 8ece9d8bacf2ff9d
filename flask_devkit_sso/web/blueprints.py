"""The two blueprints that ``init_app`` registers."""

from __future__ import annotations

from typing import Any

from flask import Blueprint
from flask.blueprints import BlueprintSetupState
from flask.sansio.app import App

from .landing import landing_js
from .login import callback, confirm, login
from .logout import logout, signed_out
from .me import me
from .onward import onward
from .static_files import static
from .templates import PackageLoader
from .verify import verify

_PACKAGE = "flask_devkit_sso"


class _SetupState(BlueprintSetupState):
    """Registers the routes at the host that ``register_blueprint`` received as an option."""

    def add_url_rule(self, rule: str, *args: Any, **options: Any) -> None:
        super().add_url_rule(rule, *args, host=self.options.get("host"), **options)


class _Blueprint(Blueprint):
    def make_setup_state(
        self, app: App, options: dict[str, Any], first_registration: bool = False
    ) -> BlueprintSetupState:
        return _SetupState(self, app, options, first_registration)


def create_authorize_blueprint() -> Blueprint:
    """Return the blueprint with login, logout, the signed-out page, the current user, forward
    authentication and the static files."""
    blueprint = _Blueprint("devkit_sso_authorize", _PACKAGE)
    blueprint.jinja_loader = PackageLoader()
    blueprint.add_url_rule("/authorize", view_func=login, methods=["GET", "POST"])
    blueprint.add_url_rule("/logout", view_func=logout, methods=["GET", "POST"])
    blueprint.add_url_rule("/signed-out", view_func=signed_out)
    blueprint.add_url_rule("/me", view_func=me)
    # Flask would answer OPTIONS with 200, which lets a request pass.
    blueprint.add_url_rule(
        "/verify", view_func=verify, methods=["GET"], provide_automatic_options=False
    )
    blueprint.add_url_rule("/static/<path:filename>", view_func=static)
    return blueprint


def create_callback_blueprint() -> Blueprint:
    """Return the blueprint to which the authentication server sends the browser back."""
    blueprint = _Blueprint("devkit_sso_callback", _PACKAGE)
    blueprint.add_url_rule("/callback", view_func=callback, methods=["GET", "POST"])
    blueprint.add_url_rule("/confirm", view_func=confirm, methods=["GET", "POST"])
    blueprint.add_url_rule("/landing.js", view_func=landing_js)
    blueprint.add_url_rule("/onward", view_func=onward)
    return blueprint
