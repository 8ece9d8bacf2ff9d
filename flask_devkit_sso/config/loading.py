"""Loads the settings once, from ``app.config`` and the credentials file.

An invalid setting prevents the application from starting. A missing setting does not: it is logged,
and every login fails with ``not_configured``.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from .credentials import FILE_NAME, REGISTER_COMMAND, SANDBOX_COMMAND, read_credentials, read_secret
from .problem import Problem
from .redirect_uri import is_loopback
from .settings import PREFIX, Settings

APP_CONFIG: Final = "app.config"
CREDENTIALS_FILE: Final = "credentials file"
SECRET_FILE: Final = "secret file"  # noqa: S105 - a name for it

PLAIN_HTTP: Final = (
    "is plain http: use https or, if nobody else can read the network traffic, set "
    f"{PREFIX}INSECURE_HTTP to True"
)

NO_REDIRECT_URI: Final = (
    f"{PREFIX}REDIRECT_URI is missing, and only a loopback host works without it"
)

HOST_MATCHING: Final = (
    f"{PREFIX}REDIRECT_URI is missing, and an application with host_matching needs it: its host is "
    "that of the login routes"
)

_FIELDS: Final = {item.name: item for item in fields(Settings)}

_FIX_FILE: Final = f"Fix the file, or write it again with `{REGISTER_COMMAND}`"

_FIX_SECRET_FILE: Final = (
    f"Fix the file that {PREFIX}CLIENT_SECRET_FILE names: it contains the client secret and "
    "nothing else"
)

_REQUIRED: Final = ("client_id", "client_secret", "server_url", "redirect_uri")
"""Settings that must not be None in ``app.config``: such a None is probably a failed look-up."""


@dataclass(frozen=True, kw_only=True)
class LoadedSettings:
    """The settings of one application, and the problems with them.

    :ivar settings: the settings in force, without the invalid ones.
    :ivar origins: the source of each setting that has a value, :data:`APP_CONFIG`,
        :data:`CREDENTIALS_FILE` or :data:`SECRET_FILE`, by the field's name.
    :ivar errors: problems that prevent the application from starting.
    :ivar warnings: problems that do not.
    :ivar credentials_path: path of the credentials file, or None if it is unknown.
    :ivar secret_path: path of the file with the client secret, or None without one.
    """

    settings: Settings
    origins: Mapping[str, str]
    errors: list[Problem]
    warnings: list[Problem]
    credentials_path: Path | None
    secret_path: Path | None

    def missing(self, *more: str) -> list[Problem]:
        """Return a problem for each missing setting. They share one fix.

        :param more: sentences about other settings that the same fix applies to.
        """
        writes = f", which writes {self.credentials_path}" if self.credentials_path else ""
        fix = (
            f"Run `{REGISTER_COMMAND}`{writes}, or set what is missing in app.config before "
            "init_app, or in the environment (FLASK_DEVKIT_SSO_CLIENT_ID and so on, with "
            "app.config.from_prefixed_env()). To try the application without a server, start "
            f"`{SANDBOX_COMMAND}` and set what it prints"
        )
        sentences = [*map(is_missing, self.settings.missing), *more]
        return [Problem(sentence, fix) for sentence in sentences]


def load_settings(config: Mapping[str, Any], instance_path: str | None) -> LoadedSettings:
    """Load and check all ``DEVKIT_SSO_*`` keys, and the credentials file, which the keys override.

    :param instance_path: the application's instance folder, or None if it is unknown.
    """
    errors: list[Problem] = []
    values: dict[str, Any] = {}
    for key in (key for key in config if isinstance(key, str) and key.startswith(PREFIX)):
        name = key.removeprefix(PREFIX).lower()
        if name not in _FIELDS or key != PREFIX + name.upper():
            known = [PREFIX + name.upper() for name in _FIELDS]
            closest = difflib.get_close_matches(key, known, 1, 0.0)[0]
            errors.append(Problem(f"{key} is not a setting: did you mean {closest}?"))
        elif config[key] is not None or not _may_be_none(name):
            try:
                values[name] = parse_setting(name, config[key])
            except ValueError as error:
                errors.append(Problem(f"{key} {error}"))
    origins = {name: APP_CONFIG for name, value in values.items() if value is not None}

    secret_path = _find_path(values.get("client_secret_file"), instance_path)
    secret_file = read_secret(secret_path) if secret_path else None
    if secret_file is not None and "client_secret" in origins:
        keys = f"{PREFIX}CLIENT_SECRET and {PREFIX}CLIENT_SECRET_FILE"
        errors.append(Problem(f"{keys} are both set: remove one of them"))
        secret_file = None
    named = values.get("credentials_file")
    path = _find_path(named or FILE_NAME, instance_path)
    file = read_credentials(path, required=named is not None) if path else None
    # app.config overrides the credentials file, so the file that it names does too.
    for found, origin, fix in (
        (secret_file, SECRET_FILE, _FIX_SECRET_FILE),
        (file, CREDENTIALS_FILE, _FIX_FILE),
    ):
        if found is None:
            continue
        errors += [Problem(text, fix) for text in found.errors]
        for name, raw in found.values.items():
            try:
                value = parse_setting(name, raw)
            except ValueError as error:
                what = f": {name}" if origin == CREDENTIALS_FILE else ""
                errors.append(Problem(f"{found.path}{what} {error}", fix))
            else:
                if name not in origins and value is not None:
                    values[name], origins[name] = value, origin

    settings = Settings(**{name: values[name] for name in origins})
    errors += _check_together(settings)
    if settings.cookie_name and _bare_name(settings.cookie_name) == _bare_name(
        str(config.get("SESSION_COOKIE_NAME") or "session")
    ):
        errors.append(
            Problem(
                f"{PREFIX}COOKIE_NAME is the name of Flask's own cookie (SESSION_COOKIE_NAME): "
                "choose another one"
            )
        )
    if not errors and not settings.insecure_http:
        for name in origins:
            if is_plain_http(name, values[name]):
                if file is not None and origins[name] == CREDENTIALS_FILE:
                    errors.append(Problem(f"{file.path}: {name} {PLAIN_HTTP}", _FIX_FILE))
                else:
                    errors.append(Problem(f"{PREFIX}{name.upper()} {PLAIN_HTTP}"))
    return LoadedSettings(
        settings=settings,
        origins=origins,
        errors=errors,
        warnings=[
            Problem(text) for found in (secret_file, file) if found for text in found.warnings
        ],
        credentials_path=path,
        secret_path=secret_path,
    )


@dataclass(frozen=True)
class AssignedConfig:
    """What ``app.config`` contains for the extension, by key."""

    values: dict[str, Any] = field(repr=False)

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> AssignedConfig:
        keys = ("SECRET_KEY", "SECRET_KEY_FALLBACKS", "APPLICATION_ROOT")
        return cls(
            {
                # The application may change a list.
                key: tuple(value) if isinstance(value, list) else value
                for key, value in config.items()
                if isinstance(key, str) and (key.startswith(PREFIX) or key in keys)
            }
        )

    def differences(self, other: AssignedConfig) -> list[str]:
        """Return the keys with another value than elsewhere."""
        if self == other:
            return []
        keys = sorted({*self.values, *other.values})
        return [key for key in keys if self.values.get(key) != other.values.get(key)]


def parse_setting(name: str, value: object) -> Any:
    """Parse a value of the setting ``name``. Return None for an empty value.

    :raises ValueError: if it is invalid. The text continues a sentence that begins with the
        setting's name, and does not show the value of a secret.
    """
    return _FIELDS[name].metadata["parse"](value)


def is_plain_http(name: str, value: Any) -> bool:
    """Return whether the setting ``name`` is an ``http://`` URL of a host other than loopback."""
    if not name.endswith(("_url", "_uri")) or not (value or "").lower().startswith("http:"):
        return False
    return not is_loopback(urlsplit(value).hostname)


def is_missing(key: str) -> str:
    """Return a sentence saying that a key is missing."""
    if f"FLASK_{key}" in os.environ:
        return (
            f"{key} is missing, because FLASK_{key} is set but was not read "
            "(call app.config.from_prefixed_env() before init_app)"
        )
    if key in os.environ:
        return f"{key} is missing, because the variable must be called FLASK_{key}"
    return f"{key} is missing"


def _may_be_none(name: str) -> bool:
    return _FIELDS[name].default is None and name not in _REQUIRED


def _find_path(named: str | None, instance_path: str | None) -> Path | None:
    """Return the path of a file that may be named relative to the instance folder, or None without
    a name, or if the folder is unknown."""
    path = Path(instance_path or "", named or "")
    return path if named and (instance_path is not None or path.is_absolute()) else None


def _bare_name(cookie: str) -> str:
    """Return a cookie's name without the prefix that its flags allow (RFC 6265bis)."""
    return re.sub(r"^__(Host|Secure)-", "", cookie, flags=re.IGNORECASE)


def _check_together(settings: Settings) -> list[Problem]:
    found = []
    names = ("validity_url", "validity_field", "validity_key")
    unset = [PREFIX + name.upper() for name in names if getattr(settings, name) is None]
    if 0 < len(unset) < len(names):
        found.append(Problem(f"{' and '.join(unset)} must be set as well: set all three or none"))
    if settings.outage_grace < settings.revalidate_after:
        found.append(
            Problem(
                f"{PREFIX}OUTAGE_GRACE ({settings.outage_grace:g}) must be at least "
                f"{PREFIX}REVALIDATE_AFTER ({settings.revalidate_after:g})"
            )
        )
    hosts = sorted({urlsplit(url).hostname or "" for url in settings.called_urls})
    if settings.tls_hostname is not None and len(hosts) > 1:
        found.append(
            Problem(
                f"{PREFIX}TLS_HOSTNAME is the name of one host, but the URLs of the interfaces "
                f"have several: {', '.join(hosts)}",
                "Use the same host in each of them; only the authorize URL may have another one",
            )
        )
    return found
