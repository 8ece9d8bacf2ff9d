"""The checks of ``doctor`` on the connection to the server: host name, port and TLS."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final
from urllib.parse import urlsplit

from ..config.redirect_uri import is_loopback
from ..config.settings import PREFIX, Settings
from ..protocol.connecting import Address, connect, resolve
from ..protocol.trust import Trust
from .findings import Findings

EXPIRES_SOON: Final = 14 * 86400.0
"""A certificate that expires within this many seconds is a warning."""

SHOW_HINT: Final = "`flask devkit-sso show` shows where each setting comes from"


def check_origin(found: Findings, scheme: str, netloc: str, settings: Settings) -> bool:
    """Check host name, connection and TLS, and return whether requests can be sent."""
    parts = urlsplit(f"{scheme}://{netloc}")
    host, port = parts.hostname or "", parts.port or (443 if scheme == "https" else 80)
    addresses = _resolve(host, port, settings.timeout)
    if not addresses:
        found.error(
            f"name {host}",
            "DNS does not know it or does not respond",
            f"Check {PREFIX}SERVER_URL for a typing error, and this machine's resolver. "
            f"{SHOW_HINT}",
        )
        return False
    found.ok(f"name {host}", f"resolves to {', '.join(address.ip for address in addresses)}")
    connection = _connect(found, host, port, addresses, settings.timeout)
    if connection is None:
        return False
    with connection:
        if scheme == "https":
            return _check_tls(found, connection, host, port, settings.trust)
    if is_loopback(host):
        found.ok(f"TLS of {host}", "plain http, which nobody else can read on loopback")
    else:
        found.warning(f"TLS of {host}", "plain http: other people may read secrets", "Use https")
    return True


def _resolve(host: str, port: int, timeout: float) -> list[Address]:
    addresses: list[Address] = []

    def find() -> None:
        # Otherwise the thread would print the exception that an unknown name raises.
        with suppress(OSError):
            addresses.extend(resolve(host, port))

    # Name resolution has no timeout, and a daemon thread does not keep the process alive.
    resolving = threading.Thread(target=find, daemon=True)
    resolving.start()
    resolving.join(timeout)
    return list(addresses)


def _connect(
    found: Findings, host: str, port: int, addresses: list[Address], timeout: float
) -> socket.socket | None:
    """Connect to each address, because a call only shows that one of them works."""
    subject = f"connection to {host}, port {port}"

    def attempt(address: Address) -> socket.socket | str:
        try:
            return connect([address], timeout)
        except TimeoutError:
            return "timed out"
        except OSError as error:
            return error.strerror or "failed"

    with ThreadPoolExecutor(len(addresses)) as threads:
        results = list(threads.map(attempt, addresses))
    opened = [result for result in results if isinstance(result, socket.socket)]
    failures = {
        address.ip: result
        for address, result in zip(addresses, results, strict=True)
        if isinstance(result, str)
    }
    for connection in opened[1:]:
        connection.close()
    if not opened:
        found.error(
            subject,
            ", ".join(dict.fromkeys(failures.values())),
            "Check that the server is running, that it uses this port, and that no firewall blocks "
            "the connection",
        )
        return None
    # A server on this machine often listens on IPv4 only, although localhost has an IPv6 address.
    if failures and not is_loopback(host):
        reasons = ", ".join(f"{ip} {reason}" for ip, reason in failures.items())
        found.warning(
            subject,
            f"open, but not at each of its addresses: {reasons}",
            "Calls use another address, but may begin later. Have the address repaired, or removed "
            "from DNS",
        )
    else:
        found.ok(subject, "open")
    return opened[0]


def _check_tls(
    found: Findings, connection: socket.socket, host: str, port: int, trust: Trust
) -> bool:
    subject = f"TLS of {host}, port {port}"
    trusted = f"trusted CAs: {trust.ca_bundle or 'those of the system'}"
    name = trust.expected_name(host)
    if name != host:
        trusted = f"for {name}, {trusted}"
    try:
        with trust.create_context().wrap_socket(connection, server_hostname=name) as tls:
            certificate = tls.getpeercert() or {}
            version = tls.version()
    except ssl.SSLError as error:
        problem = trust.explain(error, host)
        is_certificate = isinstance(error, ssl.SSLCertVerificationError)
        found.error(
            subject, f"{problem.text} ({trusted})" if is_certificate else problem.text, problem.fix
        )
        return False
    except OSError:
        found.error(
            subject,
            "the handshake failed",
            "Check that the server uses https on this port, with TLS 1.2 or newer",
        )
        return False
    expires = ssl.cert_time_to_seconds(str(certificate["notAfter"]))
    day = datetime.fromtimestamp(expires, UTC).date()
    if expires - time.time() < EXPIRES_SOON:
        found.warning(subject, f"the certificate expires on {day}", "Have it renewed before that")
    else:
        found.ok(subject, f"{version}, the certificate is valid until {day} ({trusted})")
    return True
