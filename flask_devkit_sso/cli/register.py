"""``flask devkit-sso register``: writes the credentials file."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import click
from flask.cli import ScriptInfo, pass_script_info

from ..config.credentials import (
    KEYS,
    MAX_SIZE,
    Credentials,
    follow_links,
    read_credentials,
    write_credentials,
)
from ..config.loading import (
    APP_CONFIG,
    PLAIN_HTTP,
    SECRET_FILE,
    LoadedSettings,
    is_plain_http,
    parse_setting,
)
from ..config.secret_key import CREATE_KEY
from ..config.settings import PREFIX, Settings
from ..protocol.contract import INTERFACE_PATHS
from .loading import (
    ENVIRONMENT,
    LoadedApp,
    load_app,
    print_loading_error,
    read_environment,
)
from .output import echo

_PROMPTS: Final = {
    "client_id": "Client id",
    "client_secret": "Client secret",
    "server_url": "Server URL",
    "redirect_uri": "Redirect URI",
}
"""What the command asks for, in this order."""

_PLACEHOLDER: Final = "HOST"
_HOST: Final = "the host at which people open the application"

Parser = Callable[[str, object], str | None]
"""Takes a setting's name and value, and returns the value as it is written to the file. Raises
ValueError for an invalid value."""


def _url_options(function: Callable[..., None]) -> Callable[..., None]:
    for name, path in reversed(INTERFACE_PATHS.items()):
        help = f"If it is not {path} below the server URL. An empty value removes it."
        function = click.option(_option(name), metavar="URL", help=help)(function)
    return function


def _option(name: str) -> str:
    return "--secret-stdin" if name == "client_secret" else f"--{name.replace('_', '-')}"


@click.command()
@click.option("--client-id", metavar="ID")
@click.option("--secret-stdin", is_flag=True, help="Read the client secret from standard input.")
@click.option("--server-url", metavar="URL", help="For example https://auth.example.com")
@click.option(
    "--redirect-uri",
    metavar="URI",
    help="As registered at the server. Proposed: https://HOST/sso/callback#/login",
)
@_url_options
@click.option(
    "--file",
    "path",
    metavar="PATH",
    type=click.Path(path_type=Path),
    help="The file to write. By default, the one that the application reads.",
)
@pass_script_info
def register(
    info: ScriptInfo, /, path: Path | None, secret_stdin: bool, **options: str | None
) -> None:
    """Write the credentials file.

    The command asks for each value that is not given as an option, with the current value as the
    default. Without a terminal, it uses the current values. It reads the client secret from
    standard input (--secret-stdin), takes it from the environment (FLASK_DEVKIT_SSO_CLIENT_SECRET),
    or asks for it without showing it. The secret is never an argument, because other users of the
    machine could see it.
    """
    loaded_app = load_app(info)
    print_loading_error(loaded_app)
    loaded = loaded_app.loaded_settings
    has_terminal = sys.stdin.isatty()
    if secret_stdin and has_terminal:
        raise click.UsageError("--secret-stdin reads from a pipe: omit it to type the secret")
    path = path or _find_path(loaded, has_terminal)
    with _reporting_failed_writes(path):
        previous = read_credentials(follow_links(path), required=False)
    for error in previous.errors:
        echo(f"The current file will be replaced: {error}", error=True)

    given: dict[str, object] = {name: value for name, value in options.items() if value is not None}
    secret_variable = read_environment().get(f"{PREFIX}CLIENT_SECRET", "")
    uses_variable = not secret_stdin and secret_variable != ""
    if secret_stdin:
        given["client_secret"] = _read_secret()
    elif uses_variable:
        given["client_secret"] = secret_variable

    parse = _create_parser(loaded.settings)
    prompts = dict(_PROMPTS)
    if loaded.origins.get("client_secret") == SECRET_FILE and not (secret_stdin or uses_variable):
        # It takes precedence over the credentials file, which needs no copy of it.
        echo(f"{prompts.pop('client_secret')}: in {loaded.secret_path}")
    values = _current_values(previous, loaded.settings, parse, prompts)
    for name, value in given.items():
        try:
            values[name] = parse(name, value)
        except ValueError as error:
            raise click.UsageError(f"{_PROMPTS.get(name, _option(name))} {error}") from None
    required = _required(values, loaded.settings, prompts)
    for name, label in prompts.items():
        if name == "client_secret" and uses_variable:
            # Say so in place of the prompt, because the variable may be left over from earlier.
            hint = " (unset it to type the secret)" if has_terminal else ""
            echo(f"{label}: taken from {ENVIRONMENT}_CLIENT_SECRET{hint}")
        elif has_terminal and (name not in given or not values[name]):
            if name == "redirect_uri" and not values.get(name):
                echo(
                    f"Proposed: https://{_PLACEHOLDER}{loaded.settings.callback_path}#/login, with "
                    f"{_HOST} instead of {_PLACEHOLDER}"
                )
            values[name] = _ask(name, values.get(name), name in required, parse)
    missing = [_option(name) for name in required if not values.get(name)]
    if missing:
        raise click.UsageError(f"there is no terminal to ask at: add {', '.join(missing)}")

    written = {name: value for name, value in values.items() if value}
    with _reporting_failed_writes(path):
        target = write_credentials(path, written)
    echo(f"Wrote {target}, readable only by {_owner(target)}.\n\nNext steps:")
    for number, step in enumerate(_next_steps(loaded_app, path, written), 1):
        echo(f"  {number}. {step}")


@contextmanager
def _reporting_failed_writes(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise click.ClickException(
            f"{path} could not be written ({reason}); nothing has changed"
        ) from None


def _find_path(loaded: LoadedSettings, has_terminal: bool) -> Path:
    """Return the path of the file that the application reads, or ask for it."""
    if loaded.credentials_path is not None:
        return loaded.credentials_path
    echo(
        "The credentials file belongs in the application's instance folder, which is unknown now. "
        "By default it is the folder `instance` beside the application's module or package.",
        error=True,
    )
    if not has_terminal:
        raise click.UsageError("name the file to write with --file PATH")
    return Path(click.prompt("Path of the credentials file"))


def _read_secret() -> str:
    content = sys.stdin.buffer.read(MAX_SIZE)
    try:
        secret = content.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise click.UsageError("the client secret on standard input is not UTF-8") from None
    if not secret:
        raise click.UsageError("standard input contains no client secret")
    return secret


def _create_parser(settings: Settings) -> Parser:
    def parse(name: str, value: object) -> str | None:
        parsed: str | None = parse_setting(name, value)
        if is_plain_http(name, parsed) and not settings.insecure_http:
            raise ValueError(PLAIN_HTTP)
        if name == "redirect_uri" and parsed and urlsplit(parsed).netloc == _PLACEHOLDER:
            raise ValueError(f"must name {_HOST} instead of {_PLACEHOLDER}")
        return parsed

    return parse


def _current_values(
    previous: Credentials, settings: Settings, parse: Parser, prompts: Iterable[str]
) -> dict[str, str | None]:
    """Return the valid values of the file. For what the command asks for, the settings in force
    count too."""
    values: dict[str, str | None] = {}
    for name in KEYS:
        found = [previous.values[name]] if name in previous.values else []
        if name in prompts:
            found.append(getattr(settings, name) or "")
        for value in found:
            with suppress(ValueError):
                values[name] = values.get(name) or parse(name, value)
    return values


def _required(
    values: dict[str, str | None], settings: Settings, prompts: Iterable[str]
) -> list[str]:
    """Return the names of values that must not be empty. The server URL may be if each interface
    has its own."""
    has_urls = all(values.get(name) or getattr(settings, name) for name in INTERFACE_PATHS)
    return [name for name in prompts if name != "server_url" or not has_urls]


def _ask(name: str, current: str | None, required: bool, parse: Parser) -> str | None:
    is_secret = name == "client_secret"
    label = _PROMPTS[name]
    if is_secret and current:
        label += " [Enter keeps the current one]"
    while True:
        typed = click.prompt(
            label,
            default="" if is_secret else current or "",
            show_default=not is_secret and bool(current),
            hide_input=is_secret,
        )
        try:
            value = parse(name, typed) or current
        except ValueError as error:
            echo(f"  It {error}.")
            continue
        if value or not required:
            return value
        echo("  It is required.")


def _owner(path: Path) -> str:
    # In a container, the user may have no name. Windows has no such owners.
    with suppress(KeyError, NotImplementedError):
        return path.owner()
    return "its owner"


def _next_steps(loaded_app: LoadedApp, path: Path, written: dict[str, str]) -> list[str]:
    loaded, environment = loaded_app.loaded_settings, read_environment()
    registered = f"\n     client id      {written['client_id']}"
    registered += f"\n     redirect_uri   {written['redirect_uri']}"
    steps = [f"Have this registered at the authentication server, byte for byte:{registered}"]
    if loaded.credentials_path is None:
        steps.append(
            f"Unless the application already reads this file, set {PREFIX}CREDENTIALS_FILE to "
            f"{path.absolute()}."
        )
    elif loaded.credentials_path.absolute() != path.absolute():
        steps.append(
            f"Set {PREFIX}CREDENTIALS_FILE to {path.absolute()}: the application reads "
            f"{loaded.credentials_path} now."
        )
    for name, value in written.items():
        is_overridden = loaded.origins.get(name) == APP_CONFIG
        if is_overridden and getattr(loaded.settings, name) != value:
            key = f"{PREFIX}{name.upper()}"
            steps.append(
                f"Unset FLASK_{key} (in .env and .flaskenv too): it takes precedence over the file."
                if key in environment
                else f"Remove {key} from app.config: it takes precedence over the file."
            )
    if loaded_app.state is not None and not loaded_app.state.has_secret_key:
        steps.append(f"Set SECRET_KEY, which is missing. {CREATE_KEY}.")
    steps.append("Restart the application, which reads the file when it starts.")
    steps.append("Check the settings: flask devkit-sso show")
    return steps
