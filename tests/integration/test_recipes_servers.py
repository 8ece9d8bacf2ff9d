"""The recipes of docs/recipes_servers.md."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from .. import processes
from ..conftest import SECRET_KEY
from ..documents import ROOT
from ..processes import Person
from .recipes import recipe, write

DOCUMENT = "recipes_servers.md"
JSON = {"Accept": "application/json"}


def test_apiflask(tmp_path: Path) -> None:
    with recipe(DOCUMENT, "APIFlask", tmp_path) as running:
        url = running.url
        for method in ("GET", "POST"):
            # The body is invalid, too, but nobody learns that before they are signed in.
            path = "/reports/7" if method == "GET" else "/reports"
            response = requests.request(method, url + path, json={}, headers=JSON, timeout=60)
            assert response.status_code == 401
            assert response.json()["error"] == "login_required"
            assert response.json()["login_url"].startswith("/sso/authorize")
        ada, bob = Person("ada"), Person("bob")
        assert ada.sign_in(url, "/reports/7").json() == {"id": 7, "author": "ada"}
        assert bob.sign_in(url, "/reports/7").json() == {"id": 7, "author": "bob"}

        def create(person: Person, body: object) -> requests.Response:
            return person.browser.post(f"{url}/reports", json=body, headers=JSON, timeout=60)

        assert create(bob, {"id": 8}).status_code == 403
        assert create(bob, {"id": 8}).json() == {"error": "forbidden", "roles": ["Admin"]}
        assert create(ada, {"id": "x"}).status_code == 422
        assert create(ada, {"id": 8}).json() == {"id": 8, "author": "ada"}
        described = requests.get(f"{url}/openapi.json", timeout=60).json()
        (scheme,) = described["components"]["securitySchemes"].values()
        assert scheme["name"] in {cookie.name for cookie in ada.browser.cookies}
        assert {"401", "403"} <= set(described["paths"]["/reports"]["post"]["responses"])


def test_mounted_in_fastapi(tmp_path: Path) -> None:
    command = ("-m", "uvicorn", "main:api", "--port", "PORT")
    redirect = "/app/sso/callback"
    heading = "Mounted in FastAPI"
    with recipe(DOCUMENT, heading, tmp_path, *command, redirect=redirect) as running:
        api = f"{running.url}/api/greeting"
        refused = requests.get(api, timeout=60)
        assert refused.status_code == 401
        assert refused.json()["detail"]["login_url"].startswith("/app/sso/authorize")
        ada = Person("ada")
        page = ada.get(f"{running.url}/app/", follow=False)
        assert page.status_code == 401  # no page load: requests accepts */*
        assert ada.sign_in(f"{running.url}/app", "/app/").text == "Hello ada"
        assert ada.get(api).json() == {"text": "Hello ada"}
        done = ada.browser.post(
            f"{running.url}/app/sso/logout",
            headers=JSON | {"Sec-Fetch-Site": "same-origin"},
            timeout=60,
        )
        assert done.json()["server_told"] is True
        assert ada.get(api).status_code == 401


# Apache with mod_wsgi

APACHE = """
ServerRoot "/srv"
PidFile "/srv/apache.pid"
ErrorLog "/srv/log"
ServerName 127.0.0.1
Listen 127.0.0.1:{port}
LoadModule mpm_event_module {modules}/mod_mpm_event.so
LoadModule authz_core_module {modules}/mod_authz_core.so
LoadModule alias_module {modules}/mod_alias.so
LoadModule wsgi_module {modules}/mod_wsgi.so
WSGISocketPrefix "/srv/wsgi"
{user}
Include "/srv/apache.conf"
"""
"""What a distribution's own configuration of Apache contains."""

MODULES = "/usr/lib/apache2/modules"


@pytest.fixture(scope="module")
def site() -> Iterator[Path]:
    """The recipe's ``/srv``, with copies of a virtual environment and of the package.

    Apache's workers do not run as root, so they may be unable to read this checkout and pytest's
    temporary folders.
    """
    folder = Path(tempfile.mkdtemp(prefix="devkit-sso-apache-"))
    try:
        folder.chmod(0o755)
        shutil.copytree(ROOT / ".venv-apache", folder / "venv", symlinks=True)
        shutil.copytree(ROOT / "flask_devkit_sso", folder / "flask_devkit_sso")
        write(DOCUMENT, "Apache with mod_wsgi", folder)
        for path in folder.iterdir():
            if path.is_file():
                path.write_text(path.read_text().replace("/srv", str(folder)))
        yield folder
    finally:
        shutil.rmtree(folder)


def test_apache_with_mod_wsgi(site: Path) -> None:
    port = processes.free_port()
    url = f"http://127.0.0.1:{port}"
    user = "User www-data\nGroup www-data" if os.geteuid() == 0 else ""
    text = APACHE.format(port=port, modules=MODULES, user=user).replace("/srv", str(site))
    (site / "base.conf").write_text(text)
    callbacks = {name: f"{url}/{name}/sso/callback" for name in ("one", "two")}
    with processes.sandbox(*(f"--redirect-uri={uri}" for uri in callbacks.values())) as exported:
        for name, uri in callbacks.items():
            config = {
                "SECRET_KEY": f"{SECRET_KEY} {name}",
                "DEVKIT_SSO_CLIENT_ID": exported["CLIENT_ID"],
                "DEVKIT_SSO_CLIENT_SECRET": exported["CLIENT_SECRET"],
                "DEVKIT_SSO_SERVER_URL": exported["SERVER_URL"],
                "DEVKIT_SSO_REDIRECT_URI": uri,
            }
            instance = site / "instance" / name
            instance.mkdir(parents=True)
            lines = [f"{key} = {value!r}\n" for key, value in config.items()]
            (instance / "config.py").write_text("".join(lines))
            if os.geteuid() == 0:
                shutil.chown(instance, "www-data")
        command = ["/usr/sbin/apache2", "-f", str(site / "base.conf"), "-DFOREGROUND"]
        with subprocess.Popen(command) as process:
            try:
                processes.wait_for(url, process)
                signs_in_at_both(url)
            except AssertionError as error:
                error.add_note((site / "log").read_text(errors="replace")[-5000:])
                raise
            finally:
                process.terminate()
                process.wait(60)


def signs_in_at_both(url: str) -> None:
    ada = Person("ada")
    for name in ("one", "two"):
        page = ada.sign_in(f"{url}/{name}", f"/{name}/")
        assert page.text == f"Hello ada, this is {name}"
    assert ada.get(f"{url}/one/").text == "Hello ada, this is one"
    # Each application has a session of its own.
    done = ada.browser.post(
        f"{url}/one/sso/logout",
        headers=JSON | {"Sec-Fetch-Site": "same-origin"},
        timeout=60,
    )
    assert done.json()["server_told"] is True
    assert ada.browser.get(f"{url}/one/", headers=JSON, timeout=60).status_code == 401
    assert ada.get(f"{url}/two/").text == "Hello ada, this is two"
