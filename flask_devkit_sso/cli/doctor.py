"""Looks at everything between an application and its authentication server, the nearest first.

What is far is not looked at through what is near and broken: without a name no connection is
tried, without TLS nothing is sent.
"""

from __future__ import annotations

import os
import secrets
import socket
import ssl
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from flask import Flask
from werkzeug.exceptions import HTTPException
from werkzeug.routing import RequestRedirect

from ..config.credentials import COMMAND
from ..config.settings import PREFIX, Reading, Settings, is_loopback
from ..errors import ServerError, ServerUnavailable, StoreUnavailable
from ..protocol import contract
from ..protocol.server import Server
from ..protocol.transport import Transport, tls_context
from ..service import EXTENSION, State
from ..store.base import Store
from ..store.sqlite import MemoryStore, SQLiteStore
from .findings import Findings

EXPIRES_SOON: Final = 14 * 86400.0
"""Seconds that a certificate should have left."""

CLOCK_DIFFERENCE: Final = 60.0
"""Seconds that two clocks may differ unmentioned."""

_MADE_UP: Final = "made-up-by-doctor"

_SHOW: Final = "`flask devkit-sso show` tells where each setting comes from"

_SETTINGS: Final = {
    "8201": f"run `{COMMAND}`, or have this client registered at the server",
    "8204": f"run `{COMMAND}` with the secret that is registered at the server",
    "8207": "have the value registered at the server, byte for byte",
}
"""The codes that tell of a wrong setting, with the mend."""

_CERTIFICATE: Final = {
    9: ("is not valid yet", "compare the clocks of both machines"),
    10: ("has expired", "the people who run the server renew it"),
    18: (
        "is signed by itself",
        f"set {PREFIX}CA_BUNDLE to a PEM file of it, if it is the right one",
    ),
    19: ("is of a CA that is not trusted here", f"set {PREFIX}CA_BUNDLE to that CA's PEM file"),
    20: (
        "is of a CA that is not trusted here, or the server leaves an intermediate one out",
        f"set {PREFIX}CA_BUNDLE to that CA's PEM file, or have the server send the whole chain",
    ),
    62: ("is for another name", f"use a name that it is for in {PREFIX}SERVER_URL"),
    64: ("is for another address", f"use a name that it is for in {PREFIX}SERVER_URL"),
}
"""OpenSSL's X509_V_ERR_… numbers: what is the matter with the certificate, and the mend."""


def examine(found: Findings, app: Flask | None, reading: Reading, missing: list[str]) -> None:
    """Look at everything.

    :param missing: what keeps everybody from signing in, as sentences.
    """
    settings = reading.settings
    state: State | None = app.extensions.get(EXTENSION) if app else None
    _settings(found, reading, missing)
    if app is None:
        found.warning("settings", "only those in the environment are known, for want of the rest")
    if app is not None and state is not None:
        _secret_key(found, app, state)
        _redirect_uri(found, app, state)
        if state.store is not None:
            _store(found, state.store, settings)
        _credentials_folder(found, reading, state.store)
    _proxies(found)
    server = settings.server
    if reading.wrong or server is None:
        found.warning(
            "server", "not looked at, since the settings are not right", "begin with those"
        )
    else:
        _server(found, server, settings)


def _settings(found: Findings, reading: Reading, missing: list[str]) -> None:
    for problem in [*reading.wrong, *missing]:
        named = PREFIX in problem and problem.endswith("is missing")
        found.wrong("settings", problem, f"run `{COMMAND}`" if named else "")
    for problem in reading.warnings:
        found.warning("settings", problem)
    if not reading.wrong and not missing and not reading.settings.missing:
        sources = " and ".join(sorted(set(reading.origins.values()))) or "the defaults"
        found.ok("settings", f"nothing is wrong or missing; they come from {sources}")
    path = _credentials_file(reading)
    if path is not None:
        found.ok("credentials file", f"{path}, mode {_mode(path.stat().st_mode)}")


def _credentials_file(reading: Reading) -> Path | None:
    """Return the path of the file that is read; None where there is none.

    Also where anything is wrong: what is wrong with the file has been told of then.
    """
    path = reading.credentials
    return path if path is not None and not reading.wrong and path.is_file() else None


def _mode(mode: int) -> str:
    return f"{stat.S_IMODE(mode):04o}"


def _secret_key(found: Findings, app: Flask, state: State) -> None:
    if state.weak_key and (app.debug or app.testing):
        found.warning("SECRET_KEY", "is weak, which only debug and testing put up with")
    elif not state.weak_key and "SECRET_KEY" not in state.missing:
        found.ok("SECRET_KEY", "set, and long enough")


def _redirect_uri(found: Findings, app: Flask, state: State) -> None:
    what, uri, prefix = "redirect_uri", state.settings.redirect_uri, state.settings.url_prefix
    if uri is None:
        return
    urls = app.url_map.bind("localhost")
    callback = urls.build("devkit_sso_callback.callback")
    path = unquote(urlsplit(uri).path) or "/"
    if uri.startswith("https:") and is_loopback(urlsplit(uri).hostname):
        found.warning(
            what,
            f"{uri} is https on this machine",
            "the application, or a proxy in front of it, has to speak https there; else http://",
        )
    if path == callback:
        found.ok(what, f"{uri} leads to the callback")
    elif path.endswith(callback):
        found.warning(
            what,
            f"{uri} leads to the callback only if the application is mounted at "
            f"{path.removesuffix(callback)}",
            f"else its path has to be {callback} ({PREFIX}URL_PREFIX is {prefix})",
        )
    elif _is_served(urls, path):
        found.ok(what, f"{uri} leads to a page of the application, so to the landing page")
    elif "#" in uri:
        found.warning(
            what,
            f"{uri} leads to no page of the application",
            "that is right only for a front end that another server serves, or an application "
            "that is mounted below a path",
        )
    else:
        found.wrong(
            what,
            f"{uri} leads to no page of the application",
            f"its path has to be the callback's, {callback} ({PREFIX}URL_PREFIX is {prefix})",
        )


def _is_served(urls: Any, path: str) -> bool:
    try:
        urls.match(path, "GET")
    except RequestRedirect:
        return True
    except HTTPException:
        return False
    return True


def _store(found: Findings, store: Store, settings: Settings) -> None:
    if isinstance(store, MemoryStore):
        found.warning("store", "in memory, for tests: it ends with the process")
        return
    key = f"{settings.installation}:probe:{secrets.token_hex(8)}"
    try:
        store.add(key, "probe", expires=time.time() + 60)
        row = store.read(key)
        removed = store.remove(key)
    except StoreUnavailable as error:
        found.wrong(
            "store",
            str(error).rstrip("."),
            "look at the disk's free space and the rights of file and folder, and who you are now"
            if isinstance(store, SQLiteStore)
            else f"look at {PREFIX}STORE_URL (host, password, number), and at that Redis's log",
        )
        return
    if row is None or (row.data, removed) != ("probe", "probe"):
        found.wrong("store", "what was written is not what is read", "compare the hosts' clocks")
        return
    if isinstance(store, SQLiteStore):
        found.ok("store", f"{store.path} can be written and read")
        _modes(found, store.path, "change sessions", "read who is signed in")
        _modes(found, store.path.parent, "change sessions")
    else:
        found.ok("store", "Redis can be written and read")


def _credentials_folder(found: Findings, reading: Reading, store: Store | None) -> None:
    path = _credentials_file(reading)
    # With the store's file in it, it has been looked at.
    looked_at = store.path.parent if isinstance(store, SQLiteStore) else None
    if path is not None and path.parent != looked_at:
        _modes(found, path.parent, "put another credentials file there")


def _modes(found: Findings, path: Path, writers: str, readers: str = "") -> None:
    """Look at who may write to a path, and if that does harm read it, and what they can do then."""
    # Windows has no such bits.
    if os.name != "posix":
        return
    what, mode = f"mode of {path}", path.stat().st_mode
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        found.wrong(what, f"{_mode(mode)}: every user can {writers}", "chmod o-w")
    elif mode & (stat.S_IWGRP | stat.S_IWOTH):
        found.warning(what, f"{_mode(mode)}: other users can {writers}", "chmod go-w")
    elif readers and mode & (stat.S_IRGRP | stat.S_IROTH):
        found.warning(what, f"{_mode(mode)}: others can {readers}", "chmod go-r")
    else:
        found.ok(what, _mode(mode))


def _proxies(found: Findings) -> None:
    names = ("http_proxy", "https_proxy", "all_proxy")
    # Not the values: a proxy's URL may hold a password.
    there = sorted(name for name in os.environ if name.lower() in names and os.environ[name])
    if there:
        found.ok("proxies", f"{', '.join(there)}: set, and ignored; the server is called directly")
    else:
        found.ok("proxies", "none in the environment; they would be ignored")


def _server(found: Findings, server: Server, settings: Settings) -> None:
    called = [server.token_url, server.user_info_url, server.refresh_url, server.logout_url]
    reached = {
        origin: _reach(found, origin, settings)
        for origin in dict.fromkeys(urlsplit(url)[:2] for url in called)
    }
    transport = Transport(ca_bundle=settings.ca_bundle, timeout=settings.timeout)
    for name, url, body, refusal in _questions(server, settings):
        if reached[urlsplit(url)[:2]]:
            _ask(found, transport, name, url, body, refusal)


def _reach(found: Findings, origin: tuple[str, str], settings: Settings) -> bool:
    """Look for a server's name, a connection and TLS; tell whether there is any use in going on."""
    scheme, netloc = origin
    parts = urlsplit(f"{scheme}://{netloc}")
    host, port = parts.hostname or "", parts.port or (443 if scheme == "https" else 80)
    addresses = _resolve(host, port, settings.timeout)
    if not addresses:
        found.wrong(
            f"name {host}",
            "DNS does not know it, or does not answer",
            f"look at {PREFIX}SERVER_URL for a slip, and at this machine's resolver; {_SHOW}",
        )
        return False
    found.ok(f"name {host}", f"is {', '.join(addresses)}")
    what = f"connection to {host}, port {port}"
    try:
        connection = socket.create_connection((host, port), settings.timeout)
    except OSError as error:
        reason = "no answer" if isinstance(error, TimeoutError) else error.strerror or "failed"
        found.wrong(
            what, reason, "does the server run, is it this port, does a firewall let it pass?"
        )
        return False
    with connection:
        found.ok(what, "open")
        if scheme == "https":
            return _tls(found, connection, host, port, settings)
    if is_loopback(host):
        found.ok(f"TLS of {host}", "plain http, which on loopback nobody else can read")
    else:
        found.warning(
            f"TLS of {host}", "plain http: secrets may travel readable for others", "use https"
        )
    return True


def _resolve(host: str, port: int, timeout: float) -> list[str]:
    answers: list[str] = []

    def ask() -> None:
        # What it raises for a name that is not known would be printed by the thread.
        with suppress(OSError, UnicodeError):
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            answers.extend(dict.fromkeys(str(address[0]) for *_, address in found))

    # No timeout covers the resolver, and a daemon keeps no process from ending.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(timeout)
    return list(answers)


def _tls(
    found: Findings, connection: socket.socket, host: str, port: int, settings: Settings
) -> bool:
    what = f"TLS of {host}, port {port}"
    trusted = settings.ca_bundle or "the system's CAs"
    try:
        with tls_context(settings.ca_bundle).wrap_socket(connection, server_hostname=host) as tls:
            certificate = tls.getpeercert() or {}
            version = tls.version()
    except ssl.SSLCertVerificationError as error:
        text, mend = _CERTIFICATE.get(
            error.verify_code, (f"is not accepted ({error.verify_message})", "ask its people")
        )
        found.wrong(what, f"the certificate {text} (trusted are {trusted})", mend)
        return False
    except OSError:
        found.wrong(
            what,
            "the handshake failed",
            "does the server speak https on this port, in TLS 1.2 or newer?",
        )
        return False
    until = ssl.cert_time_to_seconds(str(certificate["notAfter"]))
    day = datetime.fromtimestamp(until, UTC).date()
    if until - time.time() < EXPIRES_SOON:
        found.warning(what, f"the certificate expires on {day}", "have it renewed before that")
    else:
        found.ok(what, f"{version}, the certificate is good until {day} (trusted are {trusted})")
    return True


def _questions(
    server: Server, settings: Settings
) -> Iterator[tuple[str, str, bytes, frozenset[str]]]:
    """Return each interface, its URL, a request with something made up, and the right refusals."""
    client_id = server.client_id
    token = contract.token_request(
        client_id=client_id,
        client_secret=server.client_secret,
        code=_MADE_UP,
        redirect_uri=settings.redirect_uri or "http://localhost/",
    )
    access = contract.access_token_request(client_id=client_id, access_token=_MADE_UP)
    refresh = contract.refresh_request(client_id=client_id, refresh_token=_MADE_UP)
    yield "getToken", server.token_url, token, frozenset({"8202"})
    yield "getUserInfo", server.user_info_url, access, frozenset({"8205"})
    yield "refreshToken", server.refresh_url, refresh, frozenset({"8206"})
    # Some servers say yes to every logout (docs/protocol.md, "What standard servers do besides").
    yield "logout", server.logout_url, access, frozenset({"8205", "2000"})


def _ask(
    found: Findings, transport: Transport, name: str, url: str, body: bytes, right: frozenset[str]
) -> None:
    before = time.time()
    try:
        reply = transport.post(url, body)
    except (ServerUnavailable, ServerError) as error:
        mend = f"is {url} right, its scheme and port too? If so, look at the server's own log"
        found.wrong(name, str(error.description).rstrip("."), mend)
        return
    middle = (before + time.time()) / 2
    code = "2000"
    try:
        contract.envelope_data(reply, name)
    except (ServerUnavailable, ServerError) as error:
        code = getattr(error, "server_code", None) or ""
        if not code:
            found.wrong(
                name,
                str(error.description).rstrip("."),
                f"does {url} lead to the authentication server? {_SHOW}",
            )
            return
    if code in right:
        found.ok(name, f"answers as it should to what is made up ({code})")
        if name == "getToken":
            found.note(
                "not asked",
                "whether the client secret and the redirect URI are right, if the server looks at "
                "the code first: a login shows it, or flask devkit-sso check-server",
            )
    elif code in _SETTINGS:
        found.wrong(name, f"{code}, {contract.ERRORS[code]}", _SETTINGS[code])
    elif code == "2000":
        found.wrong(name, "says yes to what is made up", "this is no server to sign people in at")
    else:
        text = contract.ERRORS.get(code, "a code that the protocol does not have")
        found.warning(
            name,
            f"{code}, {text}; to be expected was {' or '.join(sorted(right))}",
            "`flask devkit-sso check-server` says more",
        )
    if name == "getToken":
        _clock(found, reply.headers.get("Date"), middle)


def _clock(found: Findings, date: str | None, here: float) -> None:
    try:
        there = parsedate_to_datetime(date or "").timestamp()
    except (ValueError, OverflowError):
        found.ok("clock", "the server does not tell its time")
        return
    # The header has whole seconds.
    difference = here - there - 0.5
    if abs(difference) > CLOCK_DIFFERENCE:
        found.warning(
            "clock",
            f"{abs(difference):.0f} seconds {'ahead of' if difference > 0 else 'behind'} the "
            "server's",
            "let both machines set their clocks by NTP",
        )
    else:
        found.ok("clock", "the server's is the same, give or take a minute")
