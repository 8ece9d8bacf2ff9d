"""The settings: their names, defaults and meaning.

Each field of :class:`Settings` carries its parser and its description, from which the table in
docs/settings.md is generated.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final
from urllib.parse import urlsplit

from ..protocol.contract import INTERFACE_PATHS
from ..protocol.server import Server, Validity
from ..protocol.trust import Trust
from . import values
from .credentials import FILE_NAME

PREFIX: Final = "DEVKIT_SSO_"


def _setting(default: Any, parse: Callable[[Any], Any], doc: str, *, secret: bool = False) -> Any:
    return field(default=default, repr=not secret, metadata={"parse": parse, "doc": doc})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings in force for one application. Times are in seconds.

    The field ``name`` belongs to the key ``DEVKIT_SSO_NAME``.
    """

    client_id: str | None = _setting(None, values.text, "The client id registered at the server.")
    client_secret: str | None = _setting(None, values.text, "The client secret.", secret=True)
    client_secret_file: str | None = _setting(
        None,
        values.text,
        "Path of a file that contains the client secret and nothing else, such as a mounted "
        "secret. It may be relative to the instance folder. Set this or "
        "`DEVKIT_SSO_CLIENT_SECRET`, not both.",
    )
    server_url: str | None = _setting(
        None,
        values.server_url,
        "URL of the authentication server, such as `https://auth.example.com`. It may have a path.",
    )
    authorize_url: str | None = _setting(
        None, values.url, "URL of the authorize interface, if it is not below the server URL."
    )
    token_url: str | None = _setting(
        None, values.url, "URL of the getToken interface, if it is not below the server URL."
    )
    user_info_url: str | None = _setting(
        None, values.url, "URL of the getUserInfo interface, if it is not below the server URL."
    )
    refresh_url: str | None = _setting(
        None, values.url, "URL of the refreshToken interface, if it is not below the server URL."
    )
    logout_url: str | None = _setting(
        None, values.url, "URL of the logout interface, if it is not below the server URL."
    )
    validity_url: str | None = _setting(
        None,
        values.url,
        "URL of the user validity interface. The protocol does not define it: ask the people who "
        "run the server, and set all three of `DEVKIT_SSO_VALIDITY_…` or none.",
    )
    validity_field: str | None = _setting(
        None, values.token, "Name of the field that lists the users in a validity request."
    )
    validity_key: str | None = _setting(
        None, values.validity_key, "What identifies a user there: `uid` or `username`."
    )
    redirect_uri: str | None = _setting(
        None,
        values.redirect_uri,
        "Address to which the server redirects the browser after a login. It is sent byte for "
        "byte as registered there, and its scheme determines the cookies' flags. If it is unset, "
        "the callback's own URL is used, but only on a loopback host.",
    )
    credentials_file: str | None = _setting(
        None,
        values.text,
        "Path of the credentials file, which must exist. It may be relative to the instance "
        f"folder. If it is unset, `{FILE_NAME}` in the instance folder is read if it exists.",
    )
    url_prefix: str = _setting(
        "/sso",
        values.prefix,
        "Path below which the extension registers its routes. No request reaches the application's "
        "own views there.",
    )
    binding: str = _setting(
        "state",
        values.binding,
        "How a login is bound to the browser that started it: by `state`; by a nonce in the "
        "`redirect_uri`, for a server that drops `state`; or, for a server that accepts neither, "
        "by asking the person to `confirm`.",
    )
    pkce: bool = _setting(
        False,
        values.flag,
        "Adds `code_challenge` (S256) and `code_verifier`. It does not replace the binding.",
    )
    login_ttl: float = _setting(600.0, values.seconds, "How long a login may take.")
    cookie_name: str | None = _setting(
        None,
        values.token,
        "Base name of the extension's cookies, which must not be Flask's `SESSION_COOKIE_NAME`. If "
        "it is unset, it is derived from the installation.",
    )
    store_url: str = _setting(
        "sqlite:///devkit_sso.db",
        values.store_url,
        "Where sessions are stored: SQLite (a path may be relative to the instance folder) for the "
        "workers of one host, `redis://`, `rediss://`, `redis+sentinel://`, `rediss+sentinel://` "
        "or `postgresql://` for workers on many hosts. `memory://` works only with debug or "
        "testing.",
        secret=True,
    )
    session_lifetime: float = _setting(
        43200.0, values.seconds, "How long a session can last, even if it is in use."
    )
    idle_timeout: float = _setting(
        1800.0, values.seconds, "How long a session lasts without a request."
    )
    revalidate_after: float = _setting(
        300.0,
        values.seconds,
        "Maximum age of the server's last answer about a user. A user who is disabled at the "
        "server loses access within this time.",
    )
    outage_grace: float = _setting(
        900.0,
        values.seconds,
        "Maximum age of that answer while the server cannot be asked. It must be at least "
        "`DEVKIT_SSO_REVALIDATE_AFTER`.",
    )
    ca_bundle: str | None = _setting(
        None,
        values.pem_file,
        "PEM file with the CAs to trust for the server, instead of the system's. If the file "
        "changes, it is loaded again.",
    )
    tls_hostname: str | None = _setting(
        None,
        values.host_name,
        "The name that the server's certificate must have, if the application reaches the server "
        "by another name or by its address. The URLs of all interfaces but authorize must then "
        "have the same host.",
    )
    timeout: float = _setting(5.0, values.seconds, "Deadline for a complete call to the server.")
    insecure_http: bool = _setting(
        False,
        values.flag,
        "Allows `http://` URLs of hosts other than loopback. A warning is logged at each start.",
    )
    after_login_url: str = _setting(
        "/",
        values.path,
        "Where the browser goes after a login if no particular page was requested.",
    )
    after_logout_url: str | None = _setting(
        None,
        values.path_or_url,
        "Where the browser goes after a logout. If it is unset, to the signed-out page.",
    )
    clear_session: bool = _setting(
        True,
        values.flag,
        "Clears Flask's `session` when the person changes: at a logout, at the login of somebody "
        "else, and once the person's session has ended.",
    )
    app_name: str | None = _setting(
        None, values.text, "The application's name, which the extension's pages show."
    )
    logo_url: str | None = _setting(
        None,
        values.path,
        "Path of the application's logo on this site, such as `/static/logo.svg`. The extension's "
        "pages show it 32 pixels high.",
    )

    @property
    def server(self) -> Server | None:
        """The server's URLs and the client's credentials, or None if any of them is missing."""
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
        """Return the URL of an interface: its own setting or, without one, a path below the server
        URL."""
        own: str | None = getattr(self, name)
        if own is None and self.server_url is not None:
            return self.server_url + INTERFACE_PATHS[name]
        return own

    @property
    def called_urls(self) -> list[str]:
        """The URLs of the interfaces that the application itself calls, as far as they are known.

        The browser opens authorize.
        """
        names = [name for name in INTERFACE_PATHS if name != "authorize_url"]
        urls = [*map(self.interface_url, names), self.validity_url]
        return [url for url in urls if url is not None]

    @property
    def trust(self) -> Trust:
        """Which certificates are accepted for the server."""
        hosts = [urlsplit(url).hostname for url in self.called_urls]
        return Trust(self.ca_bundle, hosts[0] if hosts else None, self.tls_hostname)

    @property
    def callback_path(self) -> str:
        """The path of the callback route, without the path of a mount point."""
        return f"{self.url_prefix}/callback"

    @cached_property
    def installation(self) -> str:
        """A short hash of server URL, client id and redirect URI.

        It separates the cookies and records of different installations.
        """
        parts = (self.server_url, self.client_id, self.redirect_uri)
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]

    @property
    def missing(self) -> list[str]:
        """The keys of required settings that have no value."""
        names = [name for name in ("client_id", "client_secret") if getattr(self, name) is None]
        if any(self.interface_url(name) is None for name in INTERFACE_PATHS):
            names.append("server_url")
        return [PREFIX + name.upper() for name in names]
