"""Which certificates are accepted for the server, and why one is not.

No text contains anything that the server sent: OpenSSL identifies each problem by a number or name.
"""

from __future__ import annotations

import logging
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from ..per_process import no_fork

log: Final = logging.getLogger("flask_devkit_sso")

_BUNDLE: Final = "DEVKIT_SSO_CA_BUNDLE"
_URL: Final = "DEVKIT_SSO_SERVER_URL"
_HOSTNAME: Final = "DEVKIT_SSO_TLS_HOSTNAME"

_NOT_YET, _EXPIRED, _SELF_SIGNED, _ROOT_UNKNOWN = 9, 10, 18, 19
_ISSUER_UNKNOWN: Final = (2, 20, 21)
_WEAK_KEY: Final = (66, 67)
_WEAK_SIGNATURE: Final = 68
_NOT_STRICT: Final = (24, 79, *range(80, 95))
_OTHER_NAME, _OTHER_ADDRESS = 62, 64
# OpenSSL's numbers X509_V_ERR_…. Those in _NOT_STRICT are the rules of RFC 5280 that Python checks
# since version 3.13 (VERIFY_X509_STRICT).

_NOT_TLS: Final = {
    "HTTP_REQUEST",
    "PACKET_LENGTH_TOO_LONG",
    "RECORD_LAYER_FAILURE",
    "UNKNOWN_PROTOCOL",
    "WRONG_VERSION_NUMBER",
}
_OLD_TLS: Final = {"TLSV1_ALERT_PROTOCOL_VERSION", "UNSUPPORTED_PROTOCOL"}
_NOTHING_IN_COMMON: Final = {
    "DH_KEY_TOO_SMALL",
    "NO_SHARED_CIPHER",
    "SSLV3_ALERT_HANDSHAKE_FAILURE",
    "SSL/TLS_ALERT_HANDSHAKE_FAILURE",
    "TLSV1_ALERT_INSUFFICIENT_SECURITY",
}
# Names of OpenSSL's errors.


class TLSProblem(NamedTuple):
    """Why TLS with the server fails, as a clause without a capital, and how to fix it."""

    text: str
    fix: str


@dataclass(frozen=True)
class Trust:
    """Which certificates are accepted.

    :ivar ca_bundle: path of a PEM file that replaces the system's CAs, or None.
    :ivar host: the only host to which ``hostname`` applies.
    :ivar hostname: the name that its certificate must have instead of ``host``, or None.
    """

    ca_bundle: str | None = None
    host: str | None = None
    hostname: str | None = None

    def expected_name(self, host: str) -> str:
        """Return the name or address that the certificate of a host must have.

        Neither a dot at the end nor the zone of an IPv6 address is part of it.
        """
        name = self._other_name(host) or host
        return name.removesuffix(".").partition("%")[0]

    def _other_name(self, host: str) -> str | None:
        return self.hostname if host == self.host else None

    def create_context(self) -> ssl.SSLContext:
        """Return a new TLS context.

        A certificate must have its host's name as a subjectAltName (RFC 9525 section 2). The
        protocol is HTTP/1.1, which a server of another protocol can refuse (RFC 7301).

        :raises OSError: if the CA file cannot be read. The system's CAs never replace it.
        """
        context = ssl.create_default_context(cafile=self.ca_bundle)
        context.hostname_checks_common_name = False
        context.set_alpn_protocols(["http/1.1"])
        return context

    def explain(self, error: ssl.SSLError, host: str) -> TLSProblem:
        """Return why a handshake with a host failed, and how to fix it."""
        if isinstance(error, ssl.SSLCertVerificationError):
            text, fix = self._explain_certificate(error, host)
            return TLSProblem(f"the certificate {text}", fix)
        reason = error.reason or ""
        if reason in _NOT_TLS:
            return TLSProblem(
                "the handshake failed, because the response is not TLS",
                "Check that the server uses https on this port",
            )
        if reason in _OLD_TLS:
            return TLSProblem(
                "the handshake failed, because the server supports only versions of TLS before 1.2",
                "Ask the people who run the server to enable TLS 1.2 or newer",
            )
        if reason in _NOTHING_IN_COMMON:
            return TLSProblem(
                "the handshake failed, because the server accepts none of the ciphers, or wants a "
                "certificate of the client",
                "Ask the people who run the server. The package has no client certificate",
            )
        if reason == "TLSV13_ALERT_CERTIFICATE_REQUIRED":
            return TLSProblem(
                "the handshake failed, because the server wants a certificate of the client",
                "Ask the people who run the server. The package has no client certificate",
            )
        if reason == "TLSV1_UNRECOGNIZED_NAME":
            return TLSProblem(
                f"the handshake failed, because the server has no certificate for "
                f"{self.expected_name(host)}",
                f"Use one of its names in {_URL}, or set {_HOSTNAME} to one",
            )
        return TLSProblem(
            "the handshake failed",
            "Check that the server uses https on this port, with TLS 1.2 or newer",
        )

    def _explain_certificate(
        self, error: ssl.SSLCertVerificationError, host: str
    ) -> tuple[str, str]:
        code, message = error.verify_code, error.verify_message
        if code == _NOT_YET:
            return "is not valid yet", "Compare the clocks of both machines"
        if code == _EXPIRED:
            renew = "Ask the people who run the server to renew it"
            return "has expired", f"{renew}. If it is still valid, that of its CA has expired"
        if code == _SELF_SIGNED:
            return "is self-signed", f"If it is the right one, {self._add('a PEM file of it')}"
        if code == _ROOT_UNKNOWN or code in _ISSUER_UNKNOWN:
            return self._explain_issuer(code)
        if code in (_OTHER_NAME, _OTHER_ADDRESS):
            return self._explain_name(code, host)
        if code in _WEAK_KEY:
            return (
                f"or that of its CA has a key that is too short ({message})",
                "Have it issued again with an RSA key of at least 2048 bits, or an EC key",
            )
        if code == _WEAK_SIGNATURE:
            return (
                f"has a weak signature, such as one with SHA-1 ({message})",
                "Have it issued again with SHA-256",
            )
        if code in _NOT_STRICT:
            return (
                f"or that of its CA does not follow RFC 5280 ({message})",
                "Have both issued again as RFC 5280 requires. Python 3.13 and later check this",
            )
        return f"is not accepted ({message})", "Ask the people who run the server"

    def _explain_issuer(self, code: int) -> tuple[str, str]:
        where = f"not in {_BUNDLE}" if self.ca_bundle else "not trusted here"
        trust = f"If you trust the CA, {self._add('the PEM file of that CA')}"
        if code == _ROOT_UNKNOWN:
            return f"is from a CA that is {where}", trust
        return (
            f"is from a CA that is {where}, or the server omits an intermediate certificate",
            f"{trust}; or have the server send the whole chain",
        )

    def _explain_name(self, code: int, host: str) -> tuple[str, str]:
        only = "Only a subjectAltName counts, not the common name"
        if self._other_name(host):
            return (
                f"is not for {self.expected_name(host)}, the name in {_HOSTNAME}",
                f"Set {_HOSTNAME} to one of the certificate's names. {only}",
            )
        what = "address" if code == _OTHER_ADDRESS else "name"
        fix = f"Use one of its names in {_URL}, or set {_HOSTNAME} to one if the server can only be"
        return f"is for another {what}", f"{fix} reached as {host}. {only}"

    def _add(self, what: str) -> str:
        if self.ca_bundle:
            return f"add {what} to the file in {_BUNDLE}"
        return f"set {_BUNDLE} to {what}"


class TLSContexts:
    """The TLS context of one process, which is replaced if the CA file changes.

    :raises OSError: if the CA file cannot be read.
    """

    def __init__(self, trust: Trust) -> None:
        self._trust = trust
        # Before it is loaded, so that a change in between is noticed.
        self._version = self._read_version()
        self.current = trust.create_context()

    def has_changed(self) -> bool:
        """Replace the context if the CA file has changed and can be loaded. Return whether that was
        done. Otherwise the old context stays."""
        version = self._read_version()
        if version == self._version:
            return False
        self._version = version
        try:
            with no_fork:
                self.current = self._trust.create_context()
        except OSError as error:
            log.error(
                "%s has changed and cannot be loaded (%s). The CAs that were loaded before stay in "
                "use.",
                _BUNDLE,
                type(error).__name__,
            )
            return False
        log.info("%s has changed, and was loaded again", _BUNDLE)
        return True

    def _read_version(self) -> tuple[int, ...] | None:
        """Return what changes whenever the CA file does, or None if it cannot be found."""
        if self._trust.ca_bundle is None:
            # The system's CAs change with the system's updates, after which programs are restarted.
            return None
        try:
            found = Path(self._trust.ca_bundle).stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
