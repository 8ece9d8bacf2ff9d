"""The settings: read once from ``app.config``, checked, frozen.

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
from typing import Any, Final
from urllib.parse import urlsplit

from .contract import INTERFACE_PATHS
from .errors import ConfigError

PREFIX: Final = "DEVKIT_SSO_"
MIN_SECRET_KEY: Final = 16
"""Bytes."""

_PLACEHOLDER: Final = re.compile(
    r"change.?me|replace.?me|your.?secret|secret.?key|placeholder|not.?secret|example|insecure",
    re.IGNORECASE,
)
"""What a long key out of some tutorial holds."""

_LATER: Final = {"CREDENTIALS_FILE"}
"""Names of the public surface that this version does not carry out: refused, never ignored."""


class _Wrong(ValueError):
    """A value that a parser refuses; the text follows the key's name."""


def _text(value: object) -> str | None:
    """A string, or an int as its decimal text: ``from_prefixed_env`` makes ints of digits."""
    if isinstance(value, int) and not isinstance(value, bool):
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


def _url(value: object, *, fragment: bool = False, query: bool = True) -> str | None:
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
        raise _Wrong("must be an absolute URL, like https://auth.example.com")
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
    return _url(value, fragment=True)


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
        raise _Wrong(f"must be True or False, not {_kind(value)}")
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
                f"is no readable PEM file of certificates ({type(error).__name__})"
            ) from None
    return text


def _kind(value: object) -> str:
    return "null" if value is None else type(value).__name__


def _setting(default: Any, parse: Callable[[Any], Any], doc: str, *, secret: bool = False) -> Any:
    return field(default=default, repr=not secret, metadata={"parse": parse, "doc": doc})


@dataclass(frozen=True)
class Validity:
    """How the server is asked whether a user is valid (docs/protocol.md section 5)."""

    url: str
    field: str
    key: str


@dataclass(frozen=True, kw_only=True)
class Server:
    """What is known of the authentication server, and of us there; complete but for
    ``validity``, which is None where nobody has told how to ask."""

    client_id: str
    client_secret: str = field(repr=False)
    authorize_url: str
    token_url: str
    user_info_url: str
    refresh_url: str
    logout_url: str
    validity: Validity | None


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


def read_settings(config: Mapping[str, Any]) -> Settings:
    """Read and check all ``DEVKIT_SSO_*`` keys.

    :raises ConfigError: naming every wrong one, and what to do about it.
    """
    known = {PREFIX + item.name.upper(): item for item in fields(Settings)}
    wrong: list[str] = []
    values: dict[str, Any] = {}
    for key in (key for key in config if isinstance(key, str) and key.startswith(PREFIX)):
        if key.removeprefix(PREFIX) in _LATER:
            wrong.append(f"{key} is not supported by this version yet: remove it")
        elif key not in known:
            near = difflib.get_close_matches(key, known, 1, 0.0)[0]
            wrong.append(f"{key} is not a setting: did you mean {near}?")
        else:
            item = known[key]
            if config[key] is None and item.default is None and item.name not in _REQUIRED:
                continue
            try:
                value = item.metadata["parse"](config[key])
            except _Wrong as error:
                wrong.append(f"{key} {error}")
            else:
                values[item.name] = item.default if value is None else value
    if not wrong:
        settings = Settings(**values)
        wrong = _check_http(settings) + _check_together(settings)
        if not wrong:
            return settings
    raise ConfigError("\n".join(wrong))


_REQUIRED: Final = ("client_id", "client_secret", "server_url", "redirect_uri")
"""Where None is the result of a lookup that failed, not a choice."""


def _check_http(settings: Settings) -> list[str]:
    if settings.insecure_http:
        return []
    urls = {name: settings.interface_url(name) for name in INTERFACE_PATHS}
    if settings.server_url:
        urls = {"server_url": settings.server_url} | {
            name: getattr(settings, name) for name in INTERFACE_PATHS
        }
    urls |= {
        name: getattr(settings, name)
        for name in ("validity_url", "redirect_uri", "after_logout_url")
    }
    return [
        f"{PREFIX}{name.upper()} is plain http: use https, or on a network that nobody else can "
        "read set DEVKIT_SSO_INSECURE_HTTP to True"
        for name, url in urls.items()
        if url and url.startswith("http:") and not is_loopback(urlsplit(url).hostname)
    ]


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

    :raises ConfigError: for a key that is neither str nor bytes.
    """
    key = config.get("SECRET_KEY")
    if not key:
        return []
    keys = [key, *(config.get("SECRET_KEY_FALLBACKS") or ())]
    if not all(isinstance(item, str | bytes) and item for item in keys):
        raise ConfigError("SECRET_KEY and SECRET_KEY_FALLBACKS must be strings or bytes")
    return [item.encode() if isinstance(item, str) else item for item in keys]


def is_weak(secret_key: bytes) -> bool:
    """Tell whether a key is too short, or a placeholder out of some tutorial."""
    if len(secret_key) < MIN_SECRET_KEY or len(set(secret_key)) < 5:
        return True
    return bool(_PLACEHOLDER.search(secret_key.decode(errors="replace")))
