"""The certificate of a sandbox that serves https, and the CA that issued it."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

_LIFETIME = datetime.timedelta(days=825)
"""Apple's systems accept no longer one."""


_DAMAGED = (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm, x509.ExtensionNotFound)


class CertificateError(Exception):
    """A certificate cannot be used; the text says why."""


@dataclass(frozen=True)
class Certificate:
    """A certificate, all in PEM.

    :ivar server_pem: private key, certificate, and the CA's certificate, which a TLS server loads.
    :ivar ca_pem: the CA's certificate, which clients trust.
    """

    server_pem: bytes = field(repr=False)
    ca_pem: bytes


def issue(names: Iterable[str]) -> Certificate:
    """Create a CA and let it issue one certificate, for some host names and addresses.

    The CA's private key exists only during this call, so whoever trusts the CA trusts nothing but
    this one certificate.

    :raises ImportError: if trustme is not installed.
    """
    import trustme

    now = datetime.datetime.now(datetime.UTC)
    authority = trustme.CA()
    certificate = authority.issue_cert(
        # The clocks of containers and virtual machines may be slow.
        *names,
        not_before=now - datetime.timedelta(days=1),
        not_after=now + _LIFETIME,
    )
    ca_pem = authority.cert_pem.bytes()
    return Certificate(certificate.private_key_and_cert_chain_pem.bytes() + ca_pem, ca_pem)


def check(server_pem: bytes, names: Iterable[str]) -> Certificate:
    """Return a certificate that was issued earlier.

    :param names: the host names and addresses that it has to name.
    :raises CertificateError: if it is damaged, has expired or does not name a host.
    """
    try:
        key = load_pem_private_key(server_pem, None)
        own, authority = x509.load_pem_x509_certificates(server_pem)
        own.verify_directly_issued_by(authority)
        found = own.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except _DAMAGED:
        raise CertificateError("is damaged") from None
    if key.public_key() != own.public_key():
        raise CertificateError("is damaged")
    until = own.not_valid_after_utc
    if until <= datetime.datetime.now(datetime.UTC):
        raise CertificateError(f"contains a certificate that expired on {until:%Y-%m-%d}")
    named = {str(value) for value in found.get_values_for_type(x509.IPAddress)}
    named.update(found.get_values_for_type(x509.DNSName))
    for name in names:
        if _canonical(name) not in named:
            raise CertificateError(
                f"contains a certificate that does not name {name}, only {', '.join(sorted(named))}"
            )
    return Certificate(server_pem, authority.public_bytes(Encoding.PEM))


def _canonical(name: str) -> str:
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return name.encode("idna").decode().lower()
