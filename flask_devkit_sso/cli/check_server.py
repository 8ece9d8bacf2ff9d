"""``flask devkit-sso check-server``: tests an authentication server against docs/protocol.md."""

from __future__ import annotations

import click
from flask.cli import ScriptInfo

from ..config.credentials import REGISTER_COMMAND
from ..config.settings import PREFIX
from ..protocol.client import Client
from ..protocol.transport import Transport
from .check_server_authorize import Attempt, check_authorize
from .check_server_checks import AUTHORIZE, CHECKS, VALIDITY
from .check_server_disabled import check_disabled_person
from .check_server_fill import Answers
from .check_server_login import check_login
from .check_server_logout import check_cancelled_sign_in, check_logout
from .check_server_person import Person
from .check_server_refusals import check_refusals
from .check_server_report import Report
from .check_server_target import Target
from .check_server_variations import (
    check_pkce,
    check_undecided,
    check_varying_redirect_uri,
    check_wrong_parameters,
)
from .check_server_visitors import Attended, NotBack, Unattended, Visitor, read_answers
from .findings import list_problems
from .loading import ENVIRONMENT, load_app, print_loading_error


@click.command()
@click.option(
    "--as",
    "name",
    metavar="NAME",
    help="Sign in as this person, by the server's own form, instead of asking for addresses.",
)
@click.option(
    "--field",
    "fields",
    metavar="NAME=VALUE",
    multiple=True,
    help="With --as: the value of another field of the form. NAME=- reads it from standard input.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as a JSON object.")
@click.pass_context
def check_server(
    ctx: click.Context, name: str | None, fields: tuple[str, ...], as_json: bool
) -> None:
    """Test an authentication server.

    The command tests it against the protocol, interface by interface.

    Provisional: what it tests and prints may change until version 1.0.

    This command is for people who write or run such a server. It needs no application: settings in
    the environment (FLASK_DEVKIT_SSO_SERVER_URL and so on) are enough. The tests that need no
    person come first. Then the command prints URLs to open in a browser, and asks for the address
    that the server redirected the browser to. It does not show what you paste. Press Enter, or use
    an empty standard input, to skip a part. With --as it opens the URLs itself and fills in the
    server's form. At the end it names the DEVKIT_SSO_BINDING that fits.

    What the protocol leaves open is a note. What was not tested is listed too. The exit status is 1
    if something is wrong. The sections are those of docs/protocol.md.
    """
    if fields and name is None:
        raise click.UsageError("--field needs --as.")
    answers = None if name is None else read_answers(name, fields)
    found = Report(as_json=as_json)
    target, binding = _load_target(ctx.ensure_object(ScriptInfo), found)
    found.section("Sections 2 to 6, without a person")
    is_reached = check_refusals(target)
    if target.server.validity is None:
        found.skip(VALIDITY, *CHECKS[VALIDITY], why=f"{PREFIX}VALIDITY_URL is not set")
    found.section("Section 1, without a person")
    # Only after a sign-in can --as see whether a page is a refusal.
    undecided: list[Attempt] = []
    is_reached = check_authorize(target, None if answers is None else undecided) and is_reached
    _note_http(target)
    fitting = None
    if is_reached:
        fitting = _check_with_person(target, answers, undecided, binding)
    else:
        found.skip(AUTHORIZE, "sign_in", why="authorize or getToken does not respond as it should")
    found.skip_the_rest()
    if as_json:
        found.print_json(fitting)
    ctx.exit(1 if found.has_errors else 0)


def _note_http(target: Target) -> None:
    if target.server.authorize_url.startswith("http:"):
        target.found.note(
            AUTHORIZE,
            "vendor_product",
            "this test uses http. The vendor's documentation requires https for every interface",
        )


def _check_with_person(
    target: Target, answers: Answers | None, undecided: list[Attempt], binding: str
) -> str | None:
    """Run the tests that need a sign-in, and return the binding that fits, if it is known.

    :param undecided: requests that authorize has to refuse, and may have refused.
    """
    found = target.found
    found.section("Sections 1 to 6, with a person")
    try:
        visitor = _visitor(target, answers)
    except NotBack as error:
        found.error(AUTHORIZE, "sign_in", error.text, error.fix)
        return None
    person = Person(target, visitor)
    login, accepts_nonce = check_login(target, person), False
    if login is not None:
        if isinstance(visitor, Unattended):
            check_undecided(target, visitor, undecided)
        # Without tokens, no response of getToken would show anything new.
        if login.has_tokens:
            accepts_nonce = check_varying_redirect_uri(target, person)
            check_pkce(target, person)
            check_wrong_parameters(target, person)
            # Before the sign-in of the tests above is ended, nothing may depend on its end.
            check_logout(target, person)
        check_cancelled_sign_in(target, person, returns_state=login.returns_state)
        if login.has_tokens:
            check_disabled_person(target, person)
    person.sign_out()
    found.section("Binding")
    is_known = login is not None and (login.has_tokens or login.returns_state)
    returns_state = login.returns_state if login is not None and is_known else None
    fitting, text = _recommend_binding(returns_state, accepts_nonce, binding)
    found.tell(text)
    return fitting


def _visitor(target: Target, answers: Answers | None) -> Visitor:
    """Return who signs in.

    :raises NotBack: if ``--as`` may send nothing to this server.
    """
    found = target.found
    if answers is not None:
        return Unattended(target.transport, target.server.authorize_url, answers)
    found.tell(
        "Stop the application first: its landing page would remove the code from the address.\n"
        "Open each URL in the same browser, and sign in if you are asked to. Then copy the whole\n"
        "address that the server redirected you to, and paste it here."
    )
    return Attended(found.tell, to_stderr=found.as_json)


def _load_target(info: ScriptInfo, found: Report) -> tuple[Target, str]:
    """Return the server and the current binding.

    :raises click.ClickException: if the settings are wrong or not enough.
    """
    loaded_app = load_app(info)
    loaded, settings = loaded_app.loaded_settings, loaded_app.loaded_settings.settings
    server, redirect_uri = settings.server, settings.redirect_uri
    if loaded_app.app or not (server and redirect_uri):
        print_loading_error(loaded_app)
    if loaded_app.app is None:
        found.tell(f"These tests use the settings in the environment ({ENVIRONMENT}_…).")
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
    return Target(found, server, redirect_uri, transport, client), settings.binding


def _recommend_binding(
    returns_state: bool | None, accepts_nonce: bool, current: str
) -> tuple[str | None, str]:
    """Return the binding that fits, if it is known, and a sentence about it."""
    if returns_state is None:
        return None, f"Without a login it is unknown which {PREFIX}BINDING fits."
    if returns_state:
        fitting, why = "state", "the server returns state"
    elif accepts_nonce:
        fitting = "redirect_uri"
        why = "the server does not return state, but accepts a redirect_uri that varies"
    else:
        fitting = "confirm"
        why = "the server neither returns state nor accepts a redirect_uri that varies"
    now = "the current value" if current == fitting else f"the current value is {current}"
    return fitting, f"{PREFIX}BINDING={fitting} fits, because {why} ({now})."
