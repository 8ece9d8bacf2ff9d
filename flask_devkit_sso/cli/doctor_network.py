"""The checks of ``doctor`` on the connection to the server: host name, port and TLS."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final
from urllib.parse import urlsplit

from ..config.problem import Problem
from ..config.redirect_uri import is_loopback
from ..config.settings import PREFIX, Settings
from ..protocol.transport import tls_context
from .findings import Findings

EXPIRES_SOON: Final = 14 * 86400.0
"""A certificate that expires within this many seconds is a warning."""

SHOW_HINT: Final = "`flask devkit-sso show` shows where each setting comes from"

_TRUST_CA: Final = f"set {PREFIX}CA_BUNDLE to the PEM file of that CA"

_CERTIFICATE_PROBLEMS: Final = {
    9: Problem("is not valid yet", "Compare the clocks of both machines"),
    10: Problem("has expired", "Ask the people who run the server to renew it"),
    18: Problem(
        "is self-signed", f"If it is the right one, set {PREFIX}CA_BUNDLE to a PEM file of it"
    ),
    19: Problem("is from a CA that is not trusted here", f"If you trust the CA, {_TRUST_CA}"),
    20: Problem(
        "is from a CA that is not trusted here, or the server omits an intermediate certificate",
        f"If you trust the CA, {_TRUST_CA}; or have the server send the whole chain",
    ),
    62: Problem(
        "is for another name",
        f"Use one of its names in {PREFIX}SERVER_URL. Only a subjectAltName counts, not the common "
        "name",
    ),
    64: Problem("is for another address", f"Use one of its names in {PREFIX}SERVER_URL"),
}
"""Problems by OpenSSL's X509_V_ERR_… number. Each text continues "the certificate"."""


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
    found.ok(f"name {host}", f"resolves to {', '.join(addresses)}")
    subject = f"connection to {host}, port {port}"
    try:
        connection = socket.create_connection((host, port), settings.timeout)
    except OSError as error:
        reason = "timed out" if isinstance(error, TimeoutError) else error.strerror or "failed"
        found.error(
            subject,
            reason,
            "Check that the server is running, that it uses this port, and that no firewall blocks "
            "the connection",
        )
        return False
    with connection:
        found.ok(subject, "open")
        if scheme == "https":
            return _check_tls(found, connection, host, port, settings.ca_bundle)
    if is_loopback(host):
        found.ok(f"TLS of {host}", "plain http, which nobody else can read on loopback")
    else:
        found.warning(f"TLS of {host}", "plain http: other people may read secrets", "Use https")
    return True


def _resolve(host: str, port: int, timeout: float) -> list[str]:
    addresses: list[str] = []

    def resolve() -> None:
        # Otherwise the thread would print the exception that an unknown name raises.
        with suppress(OSError, UnicodeError):
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            addresses.extend(dict.fromkeys(str(address[0]) for *_, address in found))

    # Name resolution has no timeout, and a daemon thread does not keep the process alive.
    resolving = threading.Thread(target=resolve, daemon=True)
    resolving.start()
    resolving.join(timeout)
    return list(addresses)


def _check_tls(
    found: Findings, connection: socket.socket, host: str, port: int, ca_bundle: str | None
) -> bool:
    subject = f"TLS of {host}, port {port}"
    trusted = f"trusted CAs: {ca_bundle or 'those of the system'}"
    try:
        with tls_context(ca_bundle).wrap_socket(connection, server_hostname=host) as tls:
            certificate = tls.getpeercert() or {}
            version = tls.version()
    except ssl.SSLCertVerificationError as error:
        unknown = Problem(
            f"is not accepted ({error.verify_message})", "Ask the people who run the server"
        )
        problem = _CERTIFICATE_PROBLEMS.get(error.verify_code, unknown)
        found.error(subject, f"the certificate {problem.text} ({trusted})", problem.fix)
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
