"""Calls to the server over TLS: trust, requests, and the number of handshakes."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

import pytest
import trustme

from .. import processes
from ..conftest import CLIENT_ID, CODE, AppMaker, come_back, reason, sign_in, start
from ..scripted import GET_TOKEN, GET_USER_INFO, ScriptedServer

REDIRECT_URI = "https://host.example:8443/#/"


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
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(context)
        context.sni_callback = self._count
        super().__init__(context)

    def _count(self, *_: object) -> None:
        self.handshakes += 1


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
    app = make_app(ca_bundle=ca_bundle)
    for _ in range(20):
        sign_in(app.test_client())
    assert server.paths == [GET_TOKEN, GET_USER_INFO] * 20
    assert (server.handshakes, server.connections) == (1, 1)


def test_an_unknown_ca(
    make_app: AppMaker, server: TLSServer, caplog: pytest.LogCaptureFixture
) -> None:
    client = make_app().test_client()
    response = come_back(client, start(client)["state"])
    assert (response.status_code, reason(response)) == (503, "server_unavailable")
    assert "set DEVKIT_SSO_CA_BUNDLE to its PEM file" in caplog.text
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
    assert f"does it use {scheme} on this port?" in caplog.text
    other.stop()


def yesterday() -> datetime:
    return datetime.now(UTC) - timedelta(days=1)


@pytest.mark.parametrize(
    ("issue", "expected"),
    [
        (lambda ca: ca.issue_cert("auth.example.com"), "not valid for '127.0.0.1'"),
        (lambda ca: ca.issue_cert("127.0.0.1", not_after=yesterday()), "has expired"),
        (lambda ca: trustme.CA().issue_cert("127.0.0.1"), "unable to get local issuer"),
    ],
    ids=["another name", "expired", "another CA"],
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
    assert server.handshakes == 1
    assert server.seen == []
