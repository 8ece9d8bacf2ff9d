"""Calls to the server over TLS: trust, requests, and the number of handshakes."""

from __future__ import annotations

import io
import ipaddress
import json
import logging
import ssl
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.x509.oid import NameOID

from flask_devkit_sso import DevKitSSO

from .. import processes
from ..conftest import CLIENT_ID, CODE, AppMaker, come_back, reason, sign_in, start
from ..scripted import ADA, GET_TOKEN, GET_USER_INFO, TOKEN, Handler, ScriptedServer

REDIRECT_URI = "https://host.example:8443/#/"
LOOPBACK = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca_bundle(ca: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    ca.cert_pem.write_to_path(str(path))
    return str(path)


class TLSServer(ScriptedServer):
    """Counts the handshakes that clients begin."""

    def __init__(self, certificate: trustme.LeafCert) -> None:
        self.handshakes = 0
        self.names: list[str | None] = []
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        # Otherwise OpenSSL refuses to load a weak certificate.
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
        certificate.configure_cert(context)
        context.sni_callback = self._count
        # As many servers do, it prefers what the package does not speak.
        context.set_alpn_protocols(["h2", "http/1.1"])
        super().__init__(context)

    def _count(self, _: object, name: str | None, *__: object) -> None:
        self.handshakes += 1
        self.names.append(name)


@pytest.fixture
def serve() -> Iterator[Callable[[trustme.LeafCert], TLSServer]]:
    servers: list[TLSServer] = []

    def serve_it(certificate: trustme.LeafCert) -> TLSServer:
        servers.append(TLSServer(certificate))
        return servers[-1]

    yield serve_it
    for server in servers:
        server.stop()


@pytest.fixture
def server(ca: trustme.CA, serve: Callable[[trustme.LeafCert], TLSServer]) -> TLSServer:
    return serve(ca.issue_cert("127.0.0.1"))


def test_the_bytes_on_the_wire(make_app: AppMaker, server: TLSServer, ca_bundle: str) -> None:
    """Compare the requests with docs/protocol.md sections 1 and 2, with a fragment."""
    app = make_app(redirect_uri=REDIRECT_URI, ca_bundle=ca_bundle)
    client = app.test_client()
    location = client.get("/sso/authorize", base_url="https://host.example:8443").location
    head, _, state = location.partition("&state=")
    assert head == (
        f"{server.url}/sso/oauth2/authorize?client_id=20221017000000001"
        "&redirect_uri=https%3A%2F%2Fhost.example%3A8443%2F%23%2F&response_type=code"
    )
    response = client.post(
        "/sso/callback",
        json={"code": [CODE], "state": [state]},
        headers={"Origin": "https://host.example:8443"},
        base_url="https://host.example:8443",
    )
    assert response.json == {"next": "/"}
    exchange, question = server.seen
    assert (exchange.method, exchange.path) == ("POST", "/sso/oauth2/getToken")
    assert exchange.headers["content-type"] == "application/json"
    assert exchange.body == (
        b'{"client_id": "20221017000000001", "grant_type": "authorization_code",'
        b' "client_secret": "canary-client-secret-e41d",'
        b' "authorization_code": "d6eda491b5b2166e16bd",'
        b' "redirect_uri": "https://host.example:8443/#/"}'
    )
    assert set(exchange.headers) == {
        "accept",
        "accept-encoding",
        "content-length",
        "content-type",
        "host",
        "user-agent",
    }
    assert (question.method, question.path) == ("POST", "/sso/oauth2/getUserInfo")
    assert question.body == (
        b'{"client_id": "20221017000000001", "access_token": "canary-access-token-1f6a"}'
    )
    assert set(question.headers) == set(exchange.headers)


def test_a_login_at_a_sandbox_with_a_ca_of_its_own(make_app: AppMaker) -> None:
    redirect_uri = "https://localhost/sso/callback"
    with processes.sandbox("--tls", "--redirect-uri", redirect_uri) as exported:
        assert exported["CLIENT_ID"] == CLIENT_ID
        app = make_app(**{name.lower(): v for name, v in exported.items() if name != "text"})
        client = app.test_client()
        authorize_url = client.get(
            "/sso/authorize?next=/private", base_url="https://localhost"
        ).location
        assert authorize_url.startswith(exported["SERVER_URL"] + "/sso/oauth2/authorize?")
        assert parse_qs(urlsplit(authorize_url).query)["redirect_uri"] == [redirect_uri]
        person = processes.Person("ada", ca_bundle=exported["CA_BUNDLE"])
        back = person.response_url(authorize_url)
        person.close()
        # If getToken had sent another redirect_uri, the sandbox would have refused the code.
        assert back.startswith(redirect_uri + "?code=")
        response = client.get(back)
        assert (response.status_code, response.location) == (303, "/private")
        page = client.get("/private", base_url="https://localhost")
        assert page.text == "private ada"
        signed_out = client.post(
            "/sso/logout",
            base_url="https://localhost",
            headers={"Sec-Fetch-Site": "same-origin", "Accept": "application/json"},
        )
        assert signed_out.json["server_told"] is True


def test_twenty_logins_need_one_handshake(
    make_app: AppMaker, server: TLSServer, ca_bundle: str
) -> None:
    app, answer, protocols = make_app(ca_bundle=ca_bundle), server.answers[GET_TOKEN], []

    def notes_the_protocol(handler: Handler) -> None:
        protocols.append(handler.connection.selected_alpn_protocol())
        answer(handler)

    server.answers[GET_TOKEN] = notes_the_protocol
    for _ in range(20):
        sign_in(app.test_client())
    assert set(protocols) == {"http/1.1"}
    assert server.paths == [GET_TOKEN, GET_USER_INFO] * 20
    assert (server.handshakes, server.connections) == (1, 1)


def test_decrypted_bytes_after_a_response_are_not_the_next_one(
    make_app: AppMaker, server: TLSServer, ca_bundle: str
) -> None:
    """One TLS record contains a response, which fills the client's buffer, and another one."""

    def sends_two(handler: Handler) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
        size = io.DEFAULT_BUFFER_SIZE - len(head % 1000)
        other = json.dumps(ADA | {"data": {"uid": "u-2", "username": "eve"}}).encode()
        handler.wfile.write(
            head % size + json.dumps(TOKEN).encode().ljust(size) + head % len(other) + other
        )

    server.answers[GET_TOKEN] = sends_two
    client = make_app(ca_bundle=ca_bundle).test_client()
    sign_in(client)
    assert client.get("/who").json["username"] == "ada"
    assert server.connections == 2


def certificate_of(
    ca: trustme.CA,
    *names: x509.GeneralName,
    key: CertificateIssuerPrivateKeyTypes | None = None,
    names_issuers_key: bool = False,
) -> trustme.LeafCert:
    """Issue a certificate without the extensions that trustme adds.

    :param names_issuers_key: whether it has the extension that Python 3.13 and later require.
    """
    issuer = x509.load_pem_x509_certificate(ca.cert_pem.bytes())
    ca_key = serialization.load_pem_private_key(ca.private_key_pem.bytes(), None)
    key = key or ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateBuilder()
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    if names_issuers_key:
        identifier = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier.value),
            critical=False,
        )
    certificate = (
        builder.subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")]))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(yesterday())
        .not_valid_after(datetime.now(UTC) + timedelta(days=1))
        .sign(cast(ec.EllipticCurvePrivateKey, ca_key), hashes.SHA256())
    )
    return trustme.LeafCert(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        ),
        certificate.public_bytes(serialization.Encoding.PEM),
        [],
    )


def test_a_common_name_is_not_enough(
    make_app: AppMaker,
    ca: trustme.CA,
    ca_bundle: str,
    serve: Callable[[trustme.LeafCert], TLSServer],
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = serve(certificate_of(ca, names_issuers_key=True))
    url = server.url.replace("127.0.0.1", "localhost")
    client = make_app(server_url=url, ca_bundle=ca_bundle).test_client()
    assert reason(come_back(client, start(client)["state"])) == "server_unavailable"
    assert "the certificate is for another name" in caplog.text
    assert "Only a subjectAltName counts, not the common name" in caplog.text
    assert server.handshakes == 1
    assert server.seen == []


def test_a_ca_bundle_that_is_unreadable_for_a_while(
    make_app: AppMaker, server: TLSServer, ca_bundle: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It disappears after the application has started, and before the first call."""
    client = make_app(ca_bundle=ca_bundle, server_url=server.url).test_client()
    file = Path(ca_bundle)
    certificates = file.read_bytes()
    for damage in (file.unlink, lambda: file.write_text("no PEM"), lambda: file.write_text("")):
        damage()
        caplog.clear()
        assert reason(come_back(client, start(client)["state"])) == "server_unavailable"
        assert "DEVKIT_SSO_CA_BUNDLE cannot be read (" in caplog.text
        assert not any(record.exc_info for record in caplog.records)
    file.write_bytes(certificates)
    sign_in(client)
    assert server.handshakes == 1


def test_an_unknown_ca(
    make_app: AppMaker, server: TLSServer, caplog: pytest.LogCaptureFixture
) -> None:
    client = make_app().test_client()
    response = come_back(client, start(client)["state"])
    assert (response.status_code, reason(response)) == (503, "server_unavailable")
    assert "set DEVKIT_SSO_CA_BUNDLE to the PEM file of that CA" in caplog.text
    assert server.handshakes == 1
    assert server.seen == []


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_wrong_scheme_is_reported(
    make_app: AppMaker, server: TLSServer, scheme: str, caplog: pytest.LogCaptureFixture
) -> None:
    other = server if scheme == "http" else ScriptedServer()
    netloc = urlsplit(other.url).netloc
    client = make_app(server_url=f"{scheme}://{netloc}").test_client()
    assert reason(come_back(client, start(client)["state"])) == "server_unavailable"
    expected = {
        "http": "does it use http on this port?",
        "https": "Check that the server uses https on this port",
    }
    assert expected[scheme] in caplog.text
    other.stop()


def yesterday() -> datetime:
    return datetime.now(UTC) - timedelta(days=1)


@pytest.mark.parametrize(
    ("issue", "expected"),
    [
        (
            lambda ca: ca.issue_cert("auth.example.com"),
            "or set DEVKIT_SSO_TLS_HOSTNAME to one if the server can only be reached as 127.0.0.1",
        ),
        (lambda ca: ca.issue_cert("127.0.0.1", not_after=yesterday()), "has expired"),
        (
            lambda ca: trustme.CA().issue_cert("127.0.0.1"),
            "add the PEM file of that CA to the file in DEVKIT_SSO_CA_BUNDLE",
        ),
        (
            lambda ca: certificate_of(ca, LOOPBACK, key=rsa.generate_private_key(65537, 1024)),
            "has a key that is too short",
        ),
    ],
    ids=["another name", "expired", "another CA", "weak key"],
)
def test_a_refused_certificate(
    make_app: AppMaker,
    ca: trustme.CA,
    ca_bundle: str,
    serve: Callable[[trustme.LeafCert], TLSServer],
    caplog: pytest.LogCaptureFixture,
    issue: Callable[[trustme.CA], trustme.LeafCert],
    expected: str,
) -> None:
    server = serve(issue(ca))
    client = make_app(server_url=server.url, ca_bundle=ca_bundle).test_client()
    response = come_back(client, start(client)["state"])
    assert (response.status_code, reason(response)) == (503, "server_unavailable")
    assert expected in caplog.text
    assert "set DEVKIT_SSO_CA_BUNDLE" not in caplog.text, "it is set"
    assert server.handshakes == 1
    assert server.seen == []


def test_a_certificate_that_python_3_13_refuses(
    make_app: AppMaker,
    ca: trustme.CA,
    ca_bundle: str,
    serve: Callable[[trustme.LeafCert], TLSServer],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It has no key identifier of its CA. Earlier versions of Python get the flag of that one."""
    create = ssl.create_default_context

    def strict(*args: Any, **kwargs: Any) -> ssl.SSLContext:
        context = create(*args, **kwargs)
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        return context

    monkeypatch.setattr(ssl, "create_default_context", strict)
    server = serve(certificate_of(ca, x509.DNSName("localhost")))
    url = server.url.replace("127.0.0.1", "localhost")
    client = make_app(server_url=url, ca_bundle=ca_bundle).test_client()
    assert reason(come_back(client, start(client)["state"])) == "server_unavailable"
    assert "does not follow RFC 5280 (Missing Authority Key Identifier)" in caplog.text
    assert server.seen == []


HOSTNAME = "auth.example.com"


def test_a_server_that_is_reached_by_another_name(
    make_app: AppMaker,
    ca: trustme.CA,
    ca_bundle: str,
    serve: Callable[[trustme.LeafCert], TLSServer],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """DEVKIT_SSO_TLS_HOSTNAME replaces the name to expect, and no other check."""
    server = serve(ca.issue_cert(HOSTNAME))
    trusted = {"server_url": server.url, "ca_bundle": ca_bundle}
    public = f"https://{HOSTNAME}/authorize"
    sign_in(make_app(**trusted, tls_hostname=HOSTNAME, authorize_url=public).test_client())
    assert server.names == [HOSTNAME]
    assert server.seen[0].headers["host"] == urlsplit(server.url).netloc
    refused = {
        "is not for sso.example.com, the name in DEVKIT_SSO_TLS_HOSTNAME": trusted
        | {"tls_hostname": "sso.example.com"},
        "is not trusted here": {"server_url": server.url, "tls_hostname": HOSTNAME},
        "is for another address": trusted,
    }
    server.seen.clear()
    for expected, settings in refused.items():
        caplog.clear()
        client = make_app(DevKitSSO(), **settings).test_client()
        assert reason(come_back(client, start(client)["state"])) == "server_unavailable"
        assert expected in caplog.text
    assert server.seen == []


def test_a_ca_bundle_that_changes(
    make_app: AppMaker,
    ca: trustme.CA,
    ca_bundle: str,
    server: TLSServer,
    serve: Callable[[trustme.LeafCert], TLSServer],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """New CAs count at once. If the file cannot be loaded, the old ones stay, not the system's."""
    new_ca, file = trustme.CA(), Path(ca_bundle)
    app = make_app(server_url=server.url, ca_bundle=ca_bundle)
    sign_in(app.test_client())
    for damage in (file.unlink, lambda: file.write_text("no PEM"), lambda: file.write_text("")):
        damage()
        caplog.clear()
        for _ in range(2):
            sign_in(app.test_client())
        errors = [found for found in caplog.records if found.levelno == logging.ERROR]
        assert len(errors) == 1, "once for each change"
        assert "DEVKIT_SSO_CA_BUNDLE has changed and cannot be loaded" in errors[0].getMessage()
    assert server.handshakes == 1, "the connection is still in use"
    new_ca.cert_pem.write_to_path(ca_bundle)
    client = app.test_client()
    response = come_back(client, start(client)["state"])
    assert reason(response) == "server_unavailable", "the old CA is no longer trusted"
    assert server.handshakes == 2, "the old connection is not used any more"
    ca.cert_pem.write_to_path(ca_bundle)
    sign_in(client)
