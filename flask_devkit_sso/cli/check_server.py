"""``flask devkit-sso check-server``: tests an authentication server against docs/protocol.md."""

from __future__ import annotations

import sys

import click
from flask.cli import ScriptInfo

from ..config.credentials import REGISTER_COMMAND
from ..config.settings import PREFIX
from ..protocol.client import Client
from ..protocol.transport import Transport
from .check_server_authorize import check_authorize
from .check_server_login import check_login
from .check_server_person import Person
from .check_server_refusals import check_refusals
from .check_server_target import Target
from .check_server_variations import check_pkce, check_varying_redirect_uri, check_wrong_parameters
from .findings import Findings, list_problems
from .loading import ENVIRONMENT, load_app, print_loading_error
from .output import echo


@click.command()
@click.pass_context
def check_server(ctx: click.Context) -> None:
    """Test an authentication server.

    The command tests it against the protocol, interface by interface.

    Provisional: what it tests and prints may change until version 1.0.

    This command is for people who write or run such a server. It needs no application: settings in
    the environment (FLASK_DEVKIT_SSO_SERVER_URL and so on) are enough. The tests that need no
    person come first. Then the command prints URLs to open in a browser, and asks for the address
    that the server redirected the browser to. It does not show what you paste. Press Enter, or use
    an empty standard input, to skip that part. At the end it names the DEVKIT_SSO_BINDING that
    fits.

    What the protocol leaves open is a note. The exit status is 1 if something is wrong. The
    sections are those of docs/protocol.md.
    """
    target, binding = _load_target(ctx.ensure_object(ScriptInfo))
    found = target.found
    found.section("Sections 2 to 6, without a person")
    check_refusals(target)
    found.section("Section 1, without a person")
    check_authorize(target)
    found.section("Sections 1 to 6, with a person")
    echo(
        "Stop the application first: its landing page would remove the code from the address.\n"
        "Open each URL in the same browser, and sign in if you are asked to. Then copy the whole\n"
        "address that the server redirected you to, and paste it here."
    )
    person = Person(target, _ask)
    returns_state, accepts_nonce = check_login(target, person), False
    if returns_state is not None:
        accepts_nonce = check_varying_redirect_uri(target, person)
        check_pkce(target, person)
        check_wrong_parameters(target, person)
    person.sign_out()
    found.section("Binding")
    echo(_recommend_binding(returns_state, accepts_nonce, binding))
    ctx.exit(1 if found.error_count else 0)


def _load_target(info: ScriptInfo) -> tuple[Target, str]:
    """Return the server and the current binding.

    :raises click.ClickException: if the settings are wrong or not enough.
    """
    loaded_app = load_app(info)
    loaded, settings = loaded_app.loaded_settings, loaded_app.loaded_settings.settings
    server, redirect_uri = settings.server, settings.redirect_uri
    if loaded_app.app or not (server and redirect_uri):
        print_loading_error(loaded_app)
    if loaded_app.app is None:
        echo(f"These tests use the settings in the environment ({ENVIRONMENT}_…).")
    if loaded.errors:
        raise click.ClickException(
            f"There are problems with the settings:\n{list_problems(loaded.errors)}"
        )
    if server is None or redirect_uri is None:
        missing = settings.missing + ([] if redirect_uri else [f"{PREFIX}REDIRECT_URI"])
        raise click.ClickException(
            f"Missing: {', '.join(missing)}. Run `{REGISTER_COMMAND}`, or set them in the "
            f"environment ({ENVIRONMENT}_CLIENT_ID and so on)."
        )
    transport = Transport(trust=settings.trust, timeout=settings.timeout)
    client = Client(server, transport)
    return Target(Findings(), server, redirect_uri, transport, client), settings.binding


def _ask(prompt: str) -> str:
    """Ask for an address. Return "" if there is none, or nobody to ask."""
    if sys.stdin.isatty():
        typed: str = click.prompt(prompt, default="", show_default=False, hide_input=True)
        return typed.strip()
    echo(f"{prompt}:")
    return sys.stdin.readline().strip()


def _recommend_binding(returns_state: bool | None, accepts_nonce: bool, current: str) -> str:
    if returns_state is None:
        return f"Without a login it is unknown which {PREFIX}BINDING fits."
    if returns_state:
        fitting, why = "state", "the server returns state"
    elif accepts_nonce:
        fitting = "redirect_uri"
        why = "the server does not return state, but accepts a redirect_uri that varies"
    else:
        fitting = "confirm"
        why = "the server neither returns state nor accepts a redirect_uri that varies"
    now = "the current value" if current == fitting else f"the current value is {current}"
    return f"{PREFIX}BINDING={fitting} fits, because {why} ({now})."
