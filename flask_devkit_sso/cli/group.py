"""The commands of ``flask devkit-sso``.

They mend an application, so they work where it cannot be created: what ``init_app`` would raise is
collected, and what else keeps it from loading is told by its type and place, since the text of an
exception may hold a secret.
"""

from __future__ import annotations

import re
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import click
from flask import Config, Flask
from flask.cli import NoAppException, ScriptInfo, pass_script_info

from ..config.credentials import (
    COMMAND,
    KEYS,
    MAX_SIZE,
    Credentials,
    follow_links,
    read_credentials,
    write_credentials,
)
from ..config.settings import (
    APP_CONFIG,
    PLAIN_HTTP,
    PREFIX,
    Reading,
    Settings,
    is_plain_http,
    parse_setting,
    read_settings,
)
from ..errors import ConfigError, StoreUnavailable
from ..protocol.contract import INTERFACE_PATHS
from ..service import EXTENSION, MAKE_A_KEY, NO_REDIRECT_URI, State, collecting
from ..session.sessions import Session
from ..web.guard import check_views
from . import check_server as conformance
from . import doctor
from .findings import Findings

_ASKED: Final = {
    "client_id": "Client id",
    "client_secret": "Client secret",
    "server_url": "Server URL",
    "redirect_uri": "Redirect URI",
}

_ENVIRONMENT: Final = "FLASK_DEVKIT_SSO"


@dataclass(frozen=True)
class Loaded:
    """What loading the application came to.

    :ivar app: the application; None when it was not even begun.
    :ivar error: why it could not be loaded; empty when it was.
    """

    app: Flask | None
    error: str = ""

    @property
    def state(self) -> State | None:
        """The extension's part of it."""
        return self.app.extensions.get(EXTENSION) if self.app else None

    @cached_property
    def reading(self) -> Reading:
        """Its settings; without an application those that the environment would give it."""
        if self.state is not None:
            return self.state.reading
        if self.app is not None:
            return read_settings(self.app.config, self.app.instance_path)
        return read_settings(_environment(), None)


def load(info: ScriptInfo) -> Loaded:
    """Load the application as far as that goes."""
    with collecting() as apps:
        try:
            return Loaded(info.load_app())
        except (Exception, SystemExit) as error:  # noqa: BLE001
            return Loaded(apps[-1] if apps else None, _describe(error))


def _environment() -> dict[str, Any]:
    """The settings in the environment, read as ``from_prefixed_env`` does it."""
    config = Config("")
    config.from_prefixed_env(_ENVIRONMENT)
    return {PREFIX + key: value for key, value in config.items()}


def _describe(error: BaseException) -> str:
    if isinstance(error, ConfigError):
        return str(error)
    if isinstance(error, NoAppException):
        if error.__context__ is None or "\n" not in error.message:
            return error.message
        # The message is a traceback, with lines of source.
        error = error.__context__
    kind = type(error).__name__
    if isinstance(error, ImportError) and error.name:
        kind += f" ({error.name})"
    if isinstance(error, SyntaxError):
        return f"{kind} in {error.filename}, line {error.lineno}"
    # Where the application is to be mended, not the depths of what it calls.
    others = [sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")]
    others += ["<", str(Path(__file__).parent.parent)]
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith(tuple(others))]
    frame = (own or frames)[-1]
    return f"{kind} in {frame.filename}, line {frame.lineno}, in {frame.name}"


@click.group("devkit-sso")
def group() -> None:
    """Set up DevKit single sign-on, and look after it."""


def _url_options(function: Callable[..., None]) -> Callable[..., None]:
    for name in reversed(INTERFACE_PATHS):
        help = f"Where it is not {INTERFACE_PATHS[name]} below the server URL. Empty: forget it."
        function = click.option(_option(name), metavar="URL", help=help)(function)
    return function


def _option(name: str) -> str:
    return "--secret-stdin" if name == "client_secret" else f"--{name.replace('_', '-')}"


@group.command()
@click.option("--client-id", metavar="ID")
@click.option("--secret-stdin", is_flag=True, help="Read the client secret from standard input.")
@click.option("--server-url", metavar="URL", help="For example https://auth.example.com")
@click.option("--redirect-uri", metavar="URI", help="As registered at the server, byte for byte.")
@_url_options
@click.option(
    "--file",
    "path",
    metavar="PATH",
    type=click.Path(path_type=Path),
    help="What to write; by default the file that the application reads.",
)
@pass_script_info
def register(
    info: ScriptInfo, /, path: Path | None, secret_stdin: bool, **options: str | None
) -> None:
    """Write the credentials file.

    Asks for what no option gives, with the present values as defaults; where there is no terminal
    to ask at, it takes those. The client secret is asked for without echo, or read from standard
    input (--secret-stdin), or taken from the environment (FLASK_DEVKIT_SSO_CLIENT_SECRET); it is
    never an argument, which other users of the machine could see.
    """
    loaded = load(info)
    _tell_error(loaded)
    can_ask = sys.stdin is not None and sys.stdin.isatty()
    if secret_stdin and (can_ask or sys.stdin is None):
        raise click.UsageError("--secret-stdin reads from a pipe; leave it out to be asked")
    path = path or _path(loaded, can_ask)
    with _not_written(path):
        old = read_credentials(follow_links(path), required=False)
    for problem in old.wrong:
        click.echo(f"The present file will be replaced: {problem}", err=True)

    def check(name: str, value: object) -> str | None:
        parsed: str | None = parse_setting(name, value)
        if is_plain_http(name, parsed) and not loaded.reading.settings.insecure_http:
            raise ValueError(PLAIN_HTTP)
        return parsed

    given: dict[str, object] = {name: value for name, value in options.items() if value is not None}
    from_environment = False
    if secret_stdin:
        given["client_secret"] = _read_secret()
    elif (secret := _environment().get(f"{PREFIX}CLIENT_SECRET", "")) != "":
        given["client_secret"] = secret
        from_environment = True
    values = _present(old, loaded.reading, check)
    for name, value in given.items():
        try:
            values[name] = check(name, value)
        except ValueError as error:
            raise click.UsageError(f"{_ASKED.get(name, _option(name))} {error}") from None
    settings = loaded.reading.settings
    needed = list(_ASKED)
    if all(values.get(name) or getattr(settings, name) for name in INTERFACE_PATHS):
        needed.remove("server_url")
    for name in _ASKED:
        if name == "client_secret" and from_environment:
            # Among the questions, so that who answers them sees that this one is not asked.
            mend = " (unset it to be asked)" if can_ask else ""
            click.echo(f"{_ASKED[name]}: taken from {_ENVIRONMENT}_CLIENT_SECRET{mend}")
        elif can_ask and (name not in given or not values[name]):
            values[name] = _ask(name, values.get(name), name in needed, check)
    missing = [_option(name) for name in needed if not values.get(name)]
    if missing:
        raise click.UsageError(f"there is no terminal to ask at, so give {', '.join(missing)}")

    written = {name: value for name, value in values.items() if value}
    with _not_written(path):
        target = write_credentials(path, written)
    _tell_next(loaded, path, target, written)


@contextmanager
def _not_written(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise click.ClickException(
            f"{path} could not be written ({reason}); nothing has changed"
        ) from None


def _tell_error(loaded: Loaded) -> None:
    if loaded.error:
        click.echo(f"The application could not be loaded: {loaded.error}\n", err=True)


def _path(loaded: Loaded, can_ask: bool) -> Path:
    """Return the path of the file that the application reads."""
    path = loaded.reading.credentials
    if path is not None:
        return path
    click.echo(
        "So its instance folder is not known, where the credentials file belongs. Unless the "
        "application says otherwise, it is the folder `instance` beside its module or package.",
        err=True,
    )
    if not can_ask:
        raise click.UsageError("name the file to write with --file PATH")
    return Path(click.prompt("Path of the credentials file"))


def _read_secret() -> str:
    content = sys.stdin.buffer.read(MAX_SIZE)
    try:
        return content.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise click.UsageError("the client secret on standard input is not UTF-8") from None


def _present(
    old: Credentials, reading: Reading, check: Callable[[str, object], str | None]
) -> dict[str, str | None]:
    """What is there already and right: in the file, else, where it is asked for, in force."""
    values: dict[str, str | None] = {}
    for name in KEYS:
        found = [old.values[name]] if name in old.values else []
        if name in _ASKED:
            found.append(getattr(reading.settings, name) or "")
        for value in found:
            with suppress(ValueError):
                values[name] = values.get(name) or check(name, value)
    return values


def _ask(
    name: str, present: str | None, needed: bool, check: Callable[[str, object], str | None]
) -> str | None:
    hidden = name == "client_secret"
    label = _ASKED[name]
    if hidden and present:
        label += " [Enter keeps the present one]"
    while True:
        answer = click.prompt(
            label,
            default="" if hidden else present or "",
            show_default=not hidden and bool(present),
            hide_input=hidden,
        )
        try:
            value = check(name, answer) or present
        except ValueError as error:
            click.echo(f"  It {error}.")
            continue
        if value or not needed:
            return value
        click.echo("  It is needed.")


def _tell_next(loaded: Loaded, path: Path, target: Path, written: dict[str, str]) -> None:
    reading, state, environment = loaded.reading, loaded.state, _environment()
    owner = "its owner"
    with suppress(KeyError, NotImplementedError):
        owner = target.owner()
    registered = f"\n     client id      {written['client_id']}"
    registered += f"\n     redirect_uri   {written['redirect_uri']}"
    steps = [f"Have this registered at the authentication server, byte for byte:{registered}"]
    if reading.credentials is None:
        steps.append(
            f"Unless the application reads it already, set {PREFIX}CREDENTIALS_FILE to "
            f"{path.absolute()}"
        )
    elif reading.credentials.absolute() != path.absolute():
        steps.append(
            f"Set {PREFIX}CREDENTIALS_FILE to {path.absolute()}: the application reads "
            f"{reading.credentials} now."
        )
    for name, value in written.items():
        wins = reading.origins.get(name) == APP_CONFIG
        if wins and getattr(reading.settings, name) != value:
            key = f"{PREFIX}{name.upper()}"
            steps.append(
                f"Unset FLASK_{key} (in .env and .flaskenv too): it wins over the file."
                if key in environment
                else f"Remove {key} from app.config: it wins over the file."
            )
    if state is not None and "SECRET_KEY" in state.missing:
        steps.append(f"Set SECRET_KEY too, which is missing: {MAKE_A_KEY}.")
    steps.append("Restart the application: it reads the file when it starts.")
    steps.append("See whether all is well: flask devkit-sso show")
    click.echo(f"Written: {target}, for {owner} alone to read.\n\nWhat to do next:")
    for number, step in enumerate(steps, 1):
        click.echo(f"  {number}. {step}")


@group.command()
@click.pass_context
def show(ctx: click.Context) -> None:
    """Show the settings in force and where each comes from.

    Secrets are masked. The exit status is 1 when something is wrong or missing.
    """
    loaded = load(ctx.ensure_object(ScriptInfo))
    _tell_error(loaded)
    if loaded.app is None:
        click.echo(f"These are the settings that the environment ({_ENVIRONMENT}_…) gives:\n")
    reading = loaded.reading
    for item in fields(Settings):
        value, origin = _in_force(reading, item.name)
        if value is None:
            shown = "-"
        elif item.name == "client_secret":
            shown = "(set, not shown)"
        elif isinstance(value, float):
            shown = f"{value:g}"
        else:
            # Before the host and, for redis-py, in the query there may be a password.
            shown = re.sub(r"(?<=://)[^/]*@", "***@", str(value))
            shown = shown if item.repr else re.sub(r"[?].*", "?***", shown)
        click.echo(f"{PREFIX + item.name.upper():28} {origin:18} {shown}")
    if loaded.app is not None:
        key = loaded.app.config.get("SECRET_KEY")
        weak = ", but weak" if loaded.state is not None and loaded.state.weak_key else ""
        shown = f"(set, not shown{weak})" if key else "-"
        click.echo(f"{'SECRET_KEY':28} {APP_CONFIG if key else 'default':18} {shown}")

    problems = [*reading.wrong, *reading.warnings, *_missing(loaded)]
    if not problems and not loaded.error:
        click.echo("\nAll is well.")
    if problems:
        click.echo("\nWhat is wrong or missing:")
        for problem in problems:
            click.echo(f"  - {problem}")
        if reading.settings.missing:
            click.echo(f"\n`{COMMAND}` asks for what is missing and writes the credentials file.")
    ctx.exit(1 if reading.wrong or loaded.error or _missing(loaded) else 0)


def _in_force(reading: Reading, name: str) -> tuple[Any, str]:
    """Return a setting's value, and where it comes from."""
    value = getattr(reading.settings, name)
    if name == "credentials_file":
        value = reading.credentials
    if name in reading.origins:
        return value, reading.origins[name]
    if value is None and name in INTERFACE_PATHS:
        value = reading.settings.interface_url(name)
        return value, "server URL" if value else "default"
    return value, "default"


def _missing(loaded: Loaded) -> list[str]:
    if loaded.app is None:
        return []
    if loaded.state is None:
        return ["Flask-DevKit-SSO is not on this application: call DevKitSSO().init_app(app)"]
    with loaded.app.app_context():
        found = loaded.state.general_problems()
    try:
        check_views(loaded.app)
    except ConfigError as error:
        found.append(str(error))
    if loaded.reading.settings.redirect_uri is None and not loaded.app.debug:
        found.append(NO_REDIRECT_URI)
    return found


@group.group()
def sessions() -> None:
    """Look at who is signed in, and end sessions."""


@sessions.command("list")
@click.argument("uid", required=False)
@pass_script_info
def list_sessions(info: ScriptInfo, /, uid: str | None) -> None:
    """List the sessions of the user UID, or all of them, the oldest first.

    For one user that costs as much as the user has sessions; for all, a walk through the store.
    The last use is written down once a minute. Times are this machine's.
    """
    _, state = _served(info)
    assert state.sessions is not None  # noqa: S101
    try:
        found = state.sessions.list(uid)
    except StoreUnavailable as error:
        raise click.ClickException(str(error)) from None
    if not found:
        click.echo("No sessions.")
        return
    rows = [("UID", "NAME", "ROLE", "SIGNED IN", "LAST USE"), *map(_row, found)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo("  ".join(cells).rstrip())


def _row(session: Session) -> tuple[str, ...]:
    user = session.user
    times = [
        datetime.fromtimestamp(time).astimezone().isoformat(" ", "seconds")
        for time in (session.created, session.used)
    ]
    return _printable(user.uid), _printable(user.username), user.role or "-", *times


def _printable(text: str) -> str:
    """What the server sent must not steer the terminal, nor be more than it can show."""
    encoding = sys.stdout.encoding
    shown = "".join(char if char.isprintable() else "\ufffd" for char in text)
    return shown.encode(encoding, "replace").decode(encoding)


@sessions.command("end")
@click.argument("uid")
@pass_script_info
def end_sessions(info: ScriptInfo, /, uid: str) -> None:
    """End all sessions of the user UID, on every worker and host.

    The authentication server is not told: who is still signed in there can sign in again.
    """
    app, state = _served(info)
    try:
        with app.app_context():
            count = state.end_sessions(uid)
    except StoreUnavailable as error:
        raise click.ClickException(f"{error} Some sessions may have ended: do it again.") from None
    hint = "" if count else " (is it a UID, as `flask devkit-sso sessions list` shows them?)"
    click.echo(f"Ended: {count} session{'' if count == 1 else 's'}{hint}.")


def _served(info: ScriptInfo) -> tuple[Flask, State]:
    """Return the application as it serves people: with settings amiss its store is another one."""
    loaded = load(info)
    if loaded.error:
        raise click.ClickException(f"The application could not be loaded: {loaded.error}")
    app, state = loaded.app, loaded.state
    if app is None or state is None or state.sessions is None or loaded.reading.wrong:
        problems = [*loaded.reading.wrong, *_missing(loaded)]
        raise click.ClickException("\n".join(["The settings are not right:", *problems]))
    if loaded.reading.settings.store_url == "memory://":
        raise click.ClickException(
            f"{PREFIX}STORE_URL is memory://: each process has sessions of its own, and this "
            "command does not see those of another"
        )
    return app, state


@group.command("doctor")
@click.pass_context
def examine(ctx: click.Context) -> None:
    """Check everything from here to the server.

    Settings, redirect URI, store, name, connection, certificate, clock, and what the server answers
    to requests that it has to refuse; what is wrong comes with its mend. Run it as the user that
    the application runs as. The exit status is 1 when something is wrong.
    """
    loaded = load(ctx.ensure_object(ScriptInfo))
    found = Findings()
    if loaded.error:
        found.wrong("application", f"could not be loaded: {loaded.error}")
    doctor.examine(found, loaded.app, loaded.reading, _missing(loaded))
    ctx.exit(1 if found.wrong_count else 0)


@group.command()
@click.pass_context
def check_server(ctx: click.Context) -> None:
    """Test an authentication server.

    It is tested against the protocol, interface by interface.

    Provisional: what it tests and prints may change until version 1.0.

    It is for the people who write or run such a server, so it needs no application: settings in
    the environment (FLASK_DEVKIT_SSO_SERVER_URL and so on) will do. First comes what needs nobody.
    Then it prints addresses to open in a browser, and asks for the address that the browser was
    sent back to, which is read without echo; Enter skips that part, and so does an empty standard
    input. At last it names the DEVKIT_SSO_BINDING that fits.

    What the protocol leaves open is a note. The exit status is 1 when something is wrong. Sections
    are those of docs/protocol.md.
    """
    loaded = load(ctx.ensure_object(ScriptInfo))
    reading = loaded.reading
    server, redirect_uri = reading.settings.server, reading.settings.redirect_uri
    if loaded.app or not (server and redirect_uri):
        _tell_error(loaded)
    if loaded.app is None:
        click.echo(f"The settings are those that the environment ({_ENVIRONMENT}_…) gives.")
    if reading.wrong:
        raise click.ClickException("\n".join(["The settings are not right:", *reading.wrong]))
    if server is None or redirect_uri is None:
        missing = reading.settings.missing + ([] if redirect_uri else [f"{PREFIX}REDIRECT_URI"])
        raise click.ClickException(f"Missing: {', '.join(missing)}. `{COMMAND}` asks for it.")
    found = Findings()
    conformance.check(found, server, redirect_uri, reading.settings, _way_back)
    ctx.exit(1 if found.wrong_count else 0)


def _way_back(text: str) -> str:
    """Ask for the address that a browser was sent back to; empty: it was not, or nobody answers."""
    if sys.stdin is None:
        return ""
    if sys.stdin.isatty():
        answer: str = click.prompt(text, default="", show_default=False, hide_input=True)
        return answer.strip()
    click.echo(f"{text}:")
    return sys.stdin.readline().strip()
