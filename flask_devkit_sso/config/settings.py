"""The settings: read once from ``app.config`` and the credentials file, checked, frozen.

What is *wrong* is an error at once; what is *missing* lets the application start and is told to
whoever meets it. Each field of :class:`Settings` carries its key, default and explanation, so that
the documentation is made from the same place.
"""

from __future__ import annotations

import difflib
import hashlib
import ipaddress
import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from ..errors import ConfigError
from ..protocol.contract import INTERFACE_PATHS
from ..protocol.server import Server, Validity
from .credentials import COMMAND, NAME, Credentials, read_credentials

PREFIX: Final = "DEVKIT_SSO_"
MIN_SECRET_KEY: Final = 16
"""Bytes."""

_PLACEHOLDER: Final = re.compile(
    r"change.?me|replace.?me|your.?secret|secret.?key|placeholder|not.?secret|example|insecure",
    re.IGNORECASE,
)
"""What a long key out of some tutorial holds."""


class _Wrong(ValueError):
    """A value that a parser refuses; the text follows the key's name."""


def _text(value: object) -> str | None:
    """A string, or an int as its decimal text: ``from_prefixed_env`` makes ints of digits."""
    if isinstance(value, int) and not isinstance(value, bool):
        # Python turns no int of more than some thousand digits into text.
        if abs(value) >= 10**100:
            raise _Wrong("has more than a hundred digits: quote it")
        value = str(value)
    if not isinstance(value, str):
        raise _Wrong(
            f"must be a string, not {_kind(value)}: quote it (in the environment as '\"…\"')"
        )
    if value != value.strip() or not value.isprintable():
        raise _Wrong("has a space or control character at an end or inside: remove it")
    return value or None


def _token(value: object) -> str | None:
    text = _text(value)
    if text and not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", text):
        raise _Wrong("may hold letters, digits, - and _ only, 64 of them at most")
    return text


def _url(
    value: object,
    *,
    fragment: bool = False,
    query: bool = True,
    example: str = "https://auth.example.com",
) -> str | None:
    text = _text(value)
    if text is None:
        return None
    if not re.fullmatch(r"[!-~]+", text):
        raise _Wrong("must be ASCII without spaces: write the host name in its xn-- form")
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise _Wrong("is no URL") from None
    if parts.scheme not in ("http", "https") or not host:
        raise _Wrong(f"must be an absolute URL, like {example}")
    if parts.username is not None or "\\" in text:
        raise _Wrong("must hold neither a user name nor a backslash")
    if "#" in text and not fragment:
        raise _Wrong("must not have a fragment (#…)")
    if parts.query and not query:
        raise _Wrong("must not have a query (?…)")
    return text


def _server_url(value: object) -> str | None:
    text = _url(value, query=False)
    return text.rstrip("/") if text else None


def _redirect_uri(value: object) -> str | None:
    # Checked but never changed: it is sent byte for byte (docs/protocol.md, "Around it").
    return _url(value, fragment=True, example="https://app.example.com/#/login")


def _after_login(value: object) -> str | None:
    text = _text(value)
    if text and not re.fullmatch(r"/(?![/\\])[!-\[\]-~]*", text):
        raise _Wrong("must be a path on this site, like /start")
    return text


def _after_logout(value: object) -> str | None:
    text = _text(value)
    return _after_login(value) if text is None or text.startswith("/") else _url(text)


def _prefix(value: object) -> str:
    text = _text(value)
    if not text or not re.fullmatch(r"(/[A-Za-z0-9._~-]+)+", text):
        raise _Wrong("must be a path like /sso, without a slash at its end")
    return text


def _seconds(value: object) -> float:
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _Wrong(f"must be a number of seconds or a timedelta, not {_kind(value)}")
    if not 0 < value <= 10 * 365 * 86400:
        raise _Wrong("must be above zero, and no more than ten years")
    return float(value)


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise _Wrong(
            f"must be True or False, not {_kind(value)} (in the environment true or false, in "
            "lower case)"
        )
    return value


def _binding(value: object) -> str:
    if value not in ("state", "redirect_uri", "confirm"):
        raise _Wrong('must be "state", "redirect_uri" or "confirm"')
    return str(value)


def _validity_key(value: object) -> str:
    if value not in ("uid", "username"):
        raise _Wrong('must be "uid" or "username"')
    return str(value)


def _store_url(value: object) -> str | None:
    text = _text(value)
    if text is None:
        return None
    # redis-py parses its URLs; what it would pass over in silence is refused here.
    redis = r"rediss?://[^/?#]+(/[0-9]*)?([?][^#]*)?"
    if text != "memory://" and not re.fullmatch(rf"sqlite:///[^?#]*[^/?#]|{redis}", text):
        if re.match(r"rediss?://.*@", text):
            raise _Wrong(
                "must be like redis://user:password@host:6379/0, with what is special in the "
                "password percent-encoded: %2F for /, %3F for ?, %23 for #, %25 for %, %40 for @"
            )
        raise _Wrong(
            "must be sqlite:///file, sqlite:////absolute/path/of/file, redis://host:6379/0, "
            "rediss://host:6379/0 or memory://"
        )
    return text


def _pem_file(value: object) -> str | None:
    text = _text(value)
    if text is not None:
        try:
            ssl.create_default_context(cafile=text)
        except OSError as error:
            raise _Wrong(
                f"is no readable PEM file of certificates: {text} ({type(error).__name__})"
            ) from None
    return text


def _kind(value: object) -> str:
    return "null" if value is None else type(value).__name__


def _setting(default: Any, parse: Callable[[Any], Any], doc: str, *, secret: bool = False) -> Any:
    return field(default=default, repr=not secret, metadata={"parse": parse, "doc": doc})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings in force for one application. Times are in seconds.

    The field ``name`` is the key ``DEVKIT_SSO_NAME``.
    """

    client_id: str | None = _setting(None, _text, "The client id, as the server registered it.")
    client_secret: str | None = _setting(None, _text, "The client secret.", secret=True)
    server_url: str | None = _setting(
        None, _server_url, "The authentication server: `https://auth.example.com`, may have a path."
    )
    authorize_url: str | None = _setting(
        None, _url, "URL of the authorize interface; else below the server URL."
    )
    token_url: str | None = _setting(
        None, _url, "URL of the getToken interface; else below the server URL."
    )
    user_info_url: str | None = _setting(
        None, _url, "URL of the getUserInfo interface; else below the server URL."
    )
    refresh_url: str | None = _setting(
        None, _url, "URL of the refreshToken interface; else below the server URL."
    )
    logout_url: str | None = _setting(
        None, _url, "URL of the logout interface; else below the server URL."
    )
    validity_url: str | None = _setting(
        None,
        _url,
        "URL of the user validity interface. The contract does not know it: ask the people who run "
        "the server, and set all three of `DEVKIT_SSO_VALIDITY_…` or none.",
    )
    validity_field: str | None = _setting(
        None, _token, "Name of the field that holds the users asked about."
    )
    validity_key: str | None = _setting(
        None, _validity_key, "What names a user there: `uid` or `username`."
    )
    redirect_uri: str | None = _setting(
        None,
        _redirect_uri,
        "Where the server sends the browser back to, as registered there; sent byte for byte. Its "
        "scheme decides the cookies' flags. Unset, it is the callback's own URL, but only while "
        "the request's host is a loopback one.",
    )
    credentials_file: str | None = _setting(
        None,
        _text,
        "Path of the credentials file, which must then be there. A relative one is below the "
        f"instance folder. Unset, `{NAME}` in the instance folder is read if it is there.",
    )
    url_prefix: str = _setting("/sso", _prefix, "Path below which the extension's routes are.")
    binding: str = _setting(
        "state",
        _binding,
        "How a login is bound to the browser that started it: by `state`; by a nonce in the "
        "`redirect_uri`, for a server that drops `state`; or, for one that takes neither, by the "
        "person, who is asked to `confirm`.",
    )
    pkce: bool = _setting(
        False, _flag, "Adds `code_challenge` (S256) and `code_verifier`; never the binding."
    )
    login_ttl: float = _setting(600.0, _seconds, "How long a started login may take.")
    cookie_name: str | None = _setting(
        None, _token, "Base name of the extension's cookies; unset, made from the installation."
    )
    store_url: str = _setting(
        "sqlite:///devkit_sso.db",
        _store_url,
        "Where sessions are kept: SQLite (a relative path is below the instance folder) for the "
        "workers of one host, `redis://` or `rediss://` for those of many; `memory://` works with "
        "debug or testing only.",
        secret=True,
    )
    session_lifetime: float = _setting(
        43200.0, _seconds, "How long a session may last, however busy."
    )
    idle_timeout: float = _setting(1800.0, _seconds, "How long a session lasts without a request.")
    revalidate_after: float = _setting(
        300.0,
        _seconds,
        "How old the server's answer about a user may be: so long does it take until a user who "
        "was disabled there is out here.",
    )
    outage_grace: float = _setting(
        900.0,
        _seconds,
        "How old that answer may be while the server cannot be asked; counted from the answer, "
        "and at least `DEVKIT_SSO_REVALIDATE_AFTER`.",
    )
    ca_bundle: str | None = _setting(
        None, _pem_file, "PEM file of the CAs to trust for the server, in place of the system's."
    )
    timeout: float = _setting(5.0, _seconds, "Deadline for one whole call of the server.")
    insecure_http: bool = _setting(
        False, _flag, "Allows `http://` beyond loopback; warned of at each start."
    )
    after_login_url: str = _setting(
        "/", _after_login, "Where a login leads that was not asked for by a page."
    )
    after_logout_url: str | None = _setting(
        None, _after_logout, "Where a logout leads; unset, to the signed-out page."
    )

    @property
    def server(self) -> Server | None:
        """What a login needs to know of the server; None while any of it is missing."""
        if self.client_id is None or self.client_secret is None:
            return None
        urls = {name: self.interface_url(name) for name in INTERFACE_PATHS}
        known = {name: url for name, url in urls.items() if url is not None}
        if len(known) < len(urls):
            return None
        validity = None
        if self.validity_url and self.validity_field and self.validity_key:
            validity = Validity(self.validity_url, self.validity_field, self.validity_key)
        return Server(
            client_id=self.client_id, client_secret=self.client_secret, validity=validity, **known
        )

    def interface_url(self, name: str) -> str | None:
        """Return the URL of an interface: its own setting, else below the server URL."""
        own: str | None = getattr(self, name)
        if own is None and self.server_url is not None:
            return self.server_url + INTERFACE_PATHS[name]
        return own

    @property
    def installation(self) -> str:
        """Hash of (server URL, client id, redirect_uri): sessions of another one are unknown."""
        parts = (self.server_url, self.client_id, self.redirect_uri)
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]

    @property
    def secure(self) -> bool:
        """Whether browsers reach us by https, so that cookies can insist on it."""
        return (self.redirect_uri or "").startswith("https://")

    @property
    def missing(self) -> list[str]:
        """The keys without which nobody can sign in."""
        urls = [name for name in INTERFACE_PATHS if self.interface_url(name) is None]
        names = [name for name in ("client_id", "client_secret") if getattr(self, name) is None] + (
            ["server_url"] if urls else []
        )
        return [PREFIX + name.upper() for name in names]


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What reading the settings came to.

    :ivar settings: those in force; what is wrong is left out of them.
    :ivar origins: where each that is not a default comes from, :data:`APP_CONFIG` or
        :data:`CREDENTIALS_FILE`, by the field's name.
    :ivar wrong: what stops the application, each with its mend.
    :ivar warnings: what does not.
    :ivar credentials: the credentials file; None when its path is not known.
    """

    settings: Settings
    origins: Mapping[str, str]
    wrong: list[str]
    warnings: list[str]
    credentials: Path | None


APP_CONFIG: Final = "app.config"
CREDENTIALS_FILE: Final = "credentials file"

_FIELDS: Final = {item.name: item for item in fields(Settings)}

_MEND_FILE: Final = f". Mend the file, or write it anew with `{COMMAND}`"

_REQUIRED: Final = ("client_id", "client_secret", "server_url", "redirect_uri")
"""Where None is the result of a lookup that failed, not a choice."""


def read_settings(config: Mapping[str, Any], instance_path: str | None) -> Reading:
    """Read and check all ``DEVKIT_SSO_*`` keys, and below them the credentials file.

    :param instance_path: the application's instance folder; None when it is not known.
    """
    wrong: list[str] = []
    values: dict[str, Any] = {}
    for key in (key for key in config if isinstance(key, str) and key.startswith(PREFIX)):
        name = key.removeprefix(PREFIX).lower()
        if name not in _FIELDS or key != PREFIX + name.upper():
            known = [PREFIX + name.upper() for name in _FIELDS]
            near = difflib.get_close_matches(key, known, 1, 0.0)[0]
            wrong.append(f"{key} is not a setting: did you mean {near}?")
        elif config[key] is not None or not _may_be_none(name):
            try:
                values[name] = parse_setting(name, config[key])
            except ValueError as error:
                wrong.append(f"{key} {error}")
    origins = {name: APP_CONFIG for name, value in values.items() if value is not None}

    file = _find_credentials(values.get("credentials_file"), instance_path)
    if file is not None:
        wrong += [problem + _MEND_FILE for problem in file.wrong]
        for name, found in file.values.items():
            try:
                value = parse_setting(name, found)
            except ValueError as error:
                wrong.append(f"{file.place(file.lines.get(name))} {name} {error}{_MEND_FILE}")
            else:
                if name not in origins and value is not None:
                    values[name], origins[name] = value, CREDENTIALS_FILE

    settings = Settings(**{name: values[name] for name in origins})
    wrong += _check_together(settings)
    if not wrong and not settings.insecure_http:
        for name in origins:
            if is_plain_http(name, values[name]):
                if file is not None and origins[name] == CREDENTIALS_FILE:
                    place = file.place(file.lines.get(name))
                    wrong.append(f"{place} {name} {PLAIN_HTTP}{_MEND_FILE}")
                else:
                    wrong.append(f"{PREFIX}{name.upper()} {PLAIN_HTTP}")
    return Reading(
        settings=settings,
        origins=origins,
        wrong=wrong,
        warnings=file.warnings if file else [],
        credentials=file.path if file else None,
    )


def parse_setting(name: str, value: object) -> Any:
    """Check a value of the setting ``name``; return it as it is used, None for no value.

    :raises ValueError: whose text follows the setting's name, and never shows the value.
    """
    return _FIELDS[name].metadata["parse"](value)


PLAIN_HTTP: Final = (
    "is plain http: use https, or on a network that nobody else can read set "
    f"{PREFIX}INSECURE_HTTP to True"
)


def is_plain_http(name: str, value: Any) -> bool:
    """Tell whether the setting ``name`` is an ``http://`` URL beyond loopback."""
    if not name.endswith(("_url", "_uri")) or not (value or "").startswith("http:"):
        return False
    return not is_loopback(urlsplit(value).hostname)


def _may_be_none(name: str) -> bool:
    return _FIELDS[name].default is None and name not in _REQUIRED


def _find_credentials(named: str | None, instance_path: str | None) -> Credentials | None:
    path = Path(instance_path or "", named or NAME)
    if instance_path is None and not path.is_absolute():
        return None
    return read_credentials(path, required=named is not None)


def _check_together(settings: Settings) -> list[str]:
    wrong = []
    names = ("validity_url", "validity_field", "validity_key")
    unset = [PREFIX + name.upper() for name in names if getattr(settings, name) is None]
    if 0 < len(unset) < len(names):
        wrong.append(f"{' and '.join(unset)} must be set too: the three belong together")
    if settings.outage_grace < settings.revalidate_after:
        wrong.append(
            f"{PREFIX}OUTAGE_GRACE ({settings.outage_grace:g}) must be at least "
            f"{PREFIX}REVALIDATE_AFTER ({settings.revalidate_after:g})"
        )
    return wrong


def is_loopback(host: str | None) -> bool:
    """Tell whether a host name or address (without port) is this machine itself."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def read_secret_keys(config: Mapping[str, Any]) -> list[bytes]:
    """Return ``SECRET_KEY`` and then ``SECRET_KEY_FALLBACKS``; empty when there is no key.

    :raises ConfigError: for a key that is neither str nor bytes, and for fallbacks without a list:
        each character of a string would be a key.
    """
    key, fallbacks = config.get("SECRET_KEY"), config.get("SECRET_KEY_FALLBACKS") or []
    if not isinstance(fallbacks, list | tuple):
        raise ConfigError(
            "SECRET_KEY_FALLBACKS must be a list of keys: in the environment as JSON, "
            """FLASK_SECRET_KEY_FALLBACKS='["…"]'"""
        )
    if not key:
        return []
    keys = [key, *fallbacks]
    if not all(isinstance(item, str | bytes) and item for item in keys):
        raise ConfigError("SECRET_KEY and SECRET_KEY_FALLBACKS must be strings or bytes")
    return [item.encode() if isinstance(item, str) else item for item in keys]


def is_weak(secret_key: bytes) -> bool:
    """Tell whether a key is too short, or a placeholder out of some tutorial."""
    if len(secret_key) < MIN_SECRET_KEY or len(set(secret_key)) < 5:
        return True
    return bool(_PLACEHOLDER.search(secret_key.decode(errors="replace")))
