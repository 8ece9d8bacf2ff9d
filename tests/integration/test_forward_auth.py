"""The configurations of docs/forward_auth.md protect a folder and a program written in PHP."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace

import pytest
import requests

from .. import processes
from ..documents import blocks
from ..processes import Person
from .proxies import Place, nginx_with, running, write_certificate
from .recipes import Running, serving

DOCUMENT = "docs/forward_auth.md"

APP = """
from flask import Flask
from flask_devkit_sso import DevKitSSO, login_required

app = Flask(__name__)
app.config.from_prefixed_env()
DevKitSSO(app)


@app.get("/")
@login_required
def home():
    return "home"


@app.route("/<path:path>")
def everything(path):
    return f"everything {path}"
"""
"""An application that would answer every path."""

PROGRAM = """<?php
foreach (["UID", "USERNAME", "ROLE"] as $name) {
    echo rawurldecode($_SERVER["HTTP_X_DEVKIT_SSO_$name"] ?? "none"), "\\n";
}
"""


def nginx(place: Place, mistake: tuple[str, str] | None = None) -> list[str]:
    """Write nginx's configuration, and return its command.

    :param mistake: a text in the document, and another one to write instead.
    """
    (configuration,) = blocks(DOCUMENT, "nginx")
    if mistake:
        assert mistake[0] in configuration
        configuration = configuration.replace(*mistake)
    return nginx_with(place, configuration)


def caddy(place: Place) -> list[str]:
    """Write Caddy's configuration, and return its command."""
    (configuration,) = blocks(DOCUMENT, "caddyfile")
    filled = place.fill_in(configuration)
    certificate = f"{place.folder}/app.example.com"
    filled = filled.replace(
        "app.example.com {\n",
        f"https://127.0.0.1:{place.port} {{\n\ttls {certificate}.pem {certificate}.key\n",
        1,
    )
    # No administration interface, no port 80 and no files in the home directory.
    options = "{\n\tadmin off\n\tauto_https disable_redirects\n"
    options += f"\tstorage file_system {place.folder}/caddy\n}}\n"
    file = place.folder / "Caddyfile"
    file.write_text(options + filled)
    return ["/usr/bin/caddy", "run", "--config", str(file), "--adapter", "caddyfile"]


@dataclass
class Site:
    url: str
    ca_bundle: str
    app: Running
    place: Place
    kind: Callable[[Place], list[str]]

    def person(self, username: str, *, signs_in: bool = True) -> Person:
        person = Person(username, ca_bundle=self.ca_bundle)
        person.browser.headers["Accept"] = "text/html"
        if signs_in:
            person.sign_in(self.url, "/files/hello.txt")
        return person


@pytest.fixture(scope="module", params=[nginx, caddy])
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    configure: Callable[[Place], list[str]] = request.param
    folder = tmp_path_factory.mktemp("forward")
    (folder / "app.py").write_text(APP)
    (folder / "reports.php").write_text(PROGRAM)
    (folder / "protected/files").mkdir(parents=True)
    (folder / "protected/files/hello.txt").write_text("hello")
    ca_bundle = write_certificate(folder)
    port, program = processes.free_port(), f"127.0.0.1:{processes.free_port()}"
    url = f"https://127.0.0.1:{port}"
    with ExitStack() as stack:
        app = stack.enter_context(serving(folder, origin=url))
        place = Place(folder, port, app.url.removeprefix("http://"), program)
        php = ["/usr/bin/php", "-S", program, str(folder / "reports.php")]
        stack.enter_context(running(php, f"http://{program}", folder / "php.log"))
        stack.enter_context(running(configure(place), url, folder / "proxy.log"))
        yield Site(url, ca_bundle, app, place, configure)


def test_people_sign_in_and_see_the_file(site: Site) -> None:
    person = site.person("bob", signs_in=False)
    answer = person.get(f"{site.url}/files/hello.txt?a=1&b=%20", follow=False)
    assert answer.status_code == 302
    assert answer.headers["Location"] == "/sso/authorize?next=/files/hello.txt?a%3D1%26b%3D%2520"
    start = person.get(site.url + answer.headers["Location"], follow=False)
    answer = person.get(person.response_url(start.headers["Location"]))
    assert answer.text == "hello"
    assert answer.url == f"{site.url}/files/hello.txt?a=1&b=%20"
    form = person.browser.post(f"{site.url}/files/hello.txt", data={"a": "b" * 9000}, timeout=60)
    script = {"Sec-Fetch-Dest": "empty"}
    if site.kind is nginx:
        found = requests.get(
            f"{site.url}/files/hello.txt", headers=script, verify=site.ca_bundle, timeout=60
        )
        assert (found.status_code, found.history) == (401, [])
    # Caddy's file server takes a POST for a GET.
    assert form.status_code in (200, 405)


def test_only_the_role_sees_the_program(site: Site) -> None:
    ada, bob = site.person("ada"), site.person("bob")
    assert bob.get(f"{site.url}/reports/").status_code == 403
    uid, name, role = ada.get(f"{site.url}/reports/").text.split()
    assert (name, role) == ("ada", "Admin")
    assert uid.isalnum()
    site.app.change_person(username="ada", role="User")
    # The next login learns it.
    try:
        again = site.person("ada")
        assert again.get(f"{site.url}/reports/").status_code == 403
    finally:
        site.app.change_person(username="ada", role="Admin")


@pytest.mark.parametrize("separator", "-_.")
def test_headers_of_the_client_do_not_arrive(site: Site, separator: str) -> None:
    names = ("X-DevKit-SSO-Uid", "X-DevKit-SSO-Username", "X-DevKit-SSO-Role", "x-devkit-sso-role")
    forged = {name.replace("-", separator): "forged" for name in names}
    answer = requests.get(
        f"{site.url}/reports/",
        headers=forged,
        verify=site.ca_bundle,
        timeout=60,
        allow_redirects=False,
    )
    assert answer.status_code == 302
    ada = site.person("ada")
    expected = ada.get(f"{site.url}/reports/").text
    assert "ada\nAdmin" in expected
    found = ada.browser.get(f"{site.url}/reports/", headers=forged, timeout=60)
    assert found.text == expected


def test_the_client_cannot_change_where_a_login_returns(site: Site) -> None:
    forged = {
        "X-Original-URI": "/evil",
        "X-Forwarded-Uri": "/evil",
        "X-Forwarded-Host": "evil.example",
    }
    person = site.person("bob", signs_in=False)
    answer = person.browser.get(
        f"{site.url}/files/hello.txt", headers=forged, timeout=60, allow_redirects=False
    )
    assert answer.headers["Location"] == "/sso/authorize?next=/files/hello.txt"


@pytest.mark.parametrize("site", [nginx], indirect=True)
@pytest.mark.parametrize("asked", ["/sso/verify?role=Admin", "/sso/verify/", "/sso/verified"])
def test_a_mistake_in_nginx_lets_nobody_pass(site: Site, asked: str) -> None:
    """The application would answer every path, if it saw this one."""
    port = processes.free_port()
    folder = site.place.folder / str(port)
    folder.mkdir()
    for file in site.place.folder.glob("app.example.com.*"):
        (folder / file.name).write_bytes(file.read_bytes())
    mistake = ("auth_request /_verify_admin;", f"auth_request {asked};")
    command = nginx(replace(site.place, folder=folder, port=port), mistake)
    with running(command, f"https://127.0.0.1:{port}", folder / "proxy.log"):
        ada = site.person("ada")
        assert ada.get(f"{site.url}/reports/").status_code == 200
        found = ada.get(f"https://127.0.0.1:{port}/reports/")
        assert (found.status_code, found.headers["Retry-After"]) == (503, "5")
        assert "auth request unexpected status: 404" in (folder / "nginx.log").read_text()
