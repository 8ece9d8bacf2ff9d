"""``flask devkit-sso sessions``, for which a SECRET_KEY and the store are enough."""

from __future__ import annotations

from datetime import datetime
from typing import Final

import click
from flask import Flask
from flask.cli import ScriptInfo, pass_script_info

from ..config.settings import PREFIX
from ..config.values import MEMORY
from ..errors import StoreUnavailable
from ..service import SessionService
from ..session.sessions import Session
from ..store.base import Unreplicated
from .findings import list_problems
from .loading import load_app
from .output import echo, printable

_EXPECTS_UID: Final = (
    "The command expects a uid, not a name: the first column of `flask devkit-sso sessions list` "
    "shows them"
)


def _check_text(
    _context: click.Context, _parameter: click.Parameter, text: str | None
) -> str | None:
    try:
        (text or "").encode()
    except UnicodeEncodeError:
        raise click.BadParameter("it is not valid UTF-8") from None
    return text


@click.group()
def sessions() -> None:
    """Show who is signed in, and end sessions."""


@sessions.command("list")
@click.argument("uid", required=False, callback=_check_text)
@pass_script_info
def list_sessions(info: ScriptInfo, /, uid: str | None) -> None:
    """List the sessions of the user UID, or of everybody.

    The oldest comes first. For one user, the command reads only that user's sessions; otherwise it
    reads the whole store. The last use is accurate to a minute. Times are in this machine's time
    zone. SESSION is the session's name in the audit trail, with which nobody can sign in.
    """
    _, service = _load_service(info)
    try:
        found = service.sessions.list(uid)
    except StoreUnavailable as error:
        raise click.ClickException(str(error)) from None
    if not found:
        echo(f"No sessions. {_EXPECTS_UID}." if uid else "No sessions.")
        return
    rows = [("UID", "NAME", "ROLE", "SIGNED IN", "LAST USE", "SESSION"), *map(_format_row, found)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        echo("  ".join(cells).rstrip())


@sessions.command("end")
@click.argument("uid", required=False, callback=_check_text)
@click.option(
    "--session",
    "name",
    metavar="NAME",
    callback=_check_text,
    help="End only this session, named as in the list and in the audit trail.",
)
@pass_script_info
def end_sessions(info: ScriptInfo, /, uid: str | None, name: str | None) -> None:
    """End all sessions of the user UID, or a single one, on every worker and host.

    The authentication server is not notified: people who are still signed in there can sign in
    again.
    """
    if (uid is None) == (name is None):
        raise click.UsageError("name either a UID, or one session with --session NAME")
    app, service = _load_service(info)
    try:
        with app.app_context():
            if name is not None:
                _end_one(service, name)
                return
            count = service.end_sessions(str(uid), by="command")
    except Unreplicated as error:
        raise click.ClickException(str(error)) from None
    except StoreUnavailable as error:
        why = str(error).removesuffix(".")
        raise click.ClickException(f"{why}. Some sessions may have ended: try again.") from None
    hint = "" if count else f" {_EXPECTS_UID}."
    echo(f"Ended: {count} session{'' if count == 1 else 's'}.{hint}")


def _end_one(service: SessionService, name: str) -> None:
    session = service.end_session(name)
    if session is None:
        echo(
            "Ended: 0 sessions. The command expects a session's name, as the last column of `flask "
            "devkit-sso sessions list` shows it."
        )
    else:
        echo(f"Ended: 1 session of the uid {printable(session.user.uid)}.")


def _load_service(info: ScriptInfo) -> tuple[Flask, SessionService]:
    """Return the application and its sessions.

    :raises click.ClickException: if settings are invalid: these might not be the sessions of the
        running application, because its store could be another one.
    """
    loaded_app = load_app(info)
    if loaded_app.error:
        raise click.ClickException(f"The application could not be loaded: {loaded_app.error}")
    app, state, loaded = loaded_app.app, loaded_app.state, loaded_app.loaded_settings
    service = state.session_service if state else None
    if app is None or service is None or loaded.errors:
        raise click.ClickException(
            f"There are problems with the settings:\n{list_problems(loaded_app.problems())}"
        )
    if loaded.settings.store_url == MEMORY:
        raise click.ClickException(
            f"{PREFIX}STORE_URL is memory://: each process has its own sessions, and this command "
            "cannot see those of another process"
        )
    return app, service


def _format_row(session: Session) -> tuple[str, ...]:
    user = session.user
    times = [
        datetime.fromtimestamp(time).astimezone().isoformat(" ", "seconds")
        for time in (session.created_at, session.last_used)
    ]
    # A line break would look like another row.
    names = [printable(name).replace("\n", "\ufffd") for name in (user.uid, user.username)]
    return *names, user.role or "-", *times, session.name
