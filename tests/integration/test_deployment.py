"""The proxies of docs/deployment.md, in front of an application."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from .. import processes
from ..documents import blocks
from ..processes import Person
from .proxies import Place, apache_with, haproxy_with, nginx_with, running, write_certificate
from .recipes import serving

DOCUMENT = "docs/deployment.md"

PAGES = """
from flask import request, url_for
from flask_devkit_sso import current_user, login_required


@app.get("/page")
@login_required
def page():
    return f"{current_user.username} {url_for('page', _external=True)} {request.remote_addr}"
"""

APP = """
from flask import Flask
from flask_devkit_sso import DevKitSSO

app = Flask(__name__)
app.config.from_prefixed_env()
sso = DevKitSSO(app)
"""


def root(place: Place) -> list[str]:
    return nginx_with(place, blocks(DOCUMENT, "nginx")[0])


def nginx(place: Place) -> list[str]:
    return nginx_with(place, blocks(DOCUMENT, "nginx")[1])


def apache(place: Place) -> list[str]:
    (configuration,) = blocks(DOCUMENT, "apache")
    return apache_with(place, configuration)


def haproxy(place: Place) -> list[str]:
    (configuration,) = blocks(DOCUMENT, "haproxy")
    return haproxy_with(place, configuration)


@pytest.mark.parametrize("configure", [root, nginx, apache, haproxy])
@pytest.mark.parametrize("fragment", ["", "#/login"])
def test_people_sign_in_and_out(
    configure: Callable[[Place], list[str]], fragment: str, tmp_path: Path
) -> None:
    prefix = "" if configure is root else "/app"
    (below,) = [block for block in blocks(DOCUMENT, "python") if "ProxyFix" in block]
    (tmp_path / "app.py").write_text((below if prefix else APP) + PAGES)
    ca_bundle = write_certificate(tmp_path)
    port = processes.free_port()
    origin = f"https://127.0.0.1:{port}"
    with serving(tmp_path, redirect=f"{prefix}/sso/callback{fragment}", origin=origin) as app:
        place = Place(
            tmp_path, port, app.url.removeprefix("http://"), plain_port=processes.free_port()
        )
        command = configure(place)
        with running(command, origin, tmp_path / "proxy.log"):
            url = origin + prefix
            forged = {
                "Accept": "text/html",
                "X-Forwarded-For": "192.0.2.1",
                "X-Forwarded-Host": "evil.example",
                "X-Forwarded-Prefix": "/evil",
            }
            ada = Person("ada", ca_bundle=ca_bundle)
            ada.browser.headers.update(forged)
            asked = ada.get(f"{url}/page?a=1", follow=False)
            assert asked.headers["Location"] == f"{prefix}/sso/authorize?next={prefix}/page?a%3D1"
            if fragment:
                # Only a browser can read the code in the fragment.
                page = ada.get(origin + asked.headers["Location"])
                assert f'src="{prefix}/sso/static/leaving.js"' in page.text
                return
            start = ada.get(origin + asked.headers["Location"], follow=False)
            shown = ada.get(ada.response_url(start.headers["Location"]))
            assert shown.url == f"{url}/page?a=1"
            name, address, client = shown.text.split()
            assert name == "ada"
            if prefix:
                # nginx does not pass the port of the tests on.
                assert address.replace(f":{port}", "") == "https://127.0.0.1/app/page"
                assert client == "127.0.0.1"
            ours = [cookie for cookie in ada.browser.cookies if "devkit_sso" in cookie.name]
            assert ours
            assert all(c.name.startswith("__Host-") and c.path == "/" and c.secure for c in ours)
            done = ada.browser.post(
                f"{url}/sso/logout",
                headers={"Accept": "application/json", "Sec-Fetch-Site": "same-origin"},
                timeout=60,
            )
            assert done.json()["server_told"] is True
            assert done.json()["next"] == f"{prefix}/sso/signed-out"
            if configure is root:
                plain = f"http://127.0.0.1:{place.plain_port}/page?a=1"
                found = requests.get(plain, allow_redirects=False, timeout=60)
                assert found.headers["Location"] == f"{origin}/page?a=1"
