"""The recipes of docs/recipes_front_ends.md, in a browser."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests
from playwright.sync_api import Page, expect

from .. import processes
from .firefox import Tab
from .recipes import MODULES, Running, recipe, serving, write

DOCUMENT = "recipes_front_ends.md"
FRAGMENT = "/sso/callback#/login"


def sign_in(page: Page, username: str) -> None:
    page.get_by_label("Or type any name").fill(username)
    page.get_by_role("button", name="Sign in").click()


def add_static(folder: Path, file: str) -> None:
    """Copy a library into a recipe's folder ``static``."""
    (folder / "static").mkdir()
    shutil.copy(MODULES / file, folder / "static")


def end_session(page: Page, running: Running) -> None:
    """End the session from elsewhere, as another tab does."""
    response = page.request.post(
        f"{running.url}/sso/logout",
        headers={"Sec-Fetch-Site": "same-origin", "Accept": "application/json"},
    )
    assert response.json()["server_told"] is True


def test_htmx(tmp_path: Path, page: Page) -> None:
    add_static(tmp_path, "htmx.org/dist/htmx.min.js")
    with recipe(DOCUMENT, "htmx", tmp_path, redirect=FRAGMENT) as running:
        page.goto(f"{running.url}/reports/7")
        sign_in(page, "ada")
        expect(page.locator("h1")).to_have_text("Report 7 of ada")
        expect(page.locator("p")).to_have_text("News for ada")
        # The next fragment leads to the login, and the login back to the page.
        end_session(page, running)
        sign_in(page, "bob")
        expect(page.locator("h1")).to_have_text("Report 7 of bob")
        expect(page.locator("p")).to_have_text("News for bob")
        assert page.url == f"{running.url}/reports/7"


def test_flask_socketio(tmp_path: Path, page: Page) -> None:
    add_static(tmp_path, "socket.io-client/dist/socket.io.min.js")
    settings = {"DEVKIT_SSO_REVALIDATE_AFTER": "1"}
    with recipe(
        DOCUMENT, "Flask-SocketIO", tmp_path, redirect=FRAGMENT, settings=settings
    ) as running:
        anonymous = requests.get(f"{running.url}/socket.io/?EIO=4&transport=polling", timeout=60)
        sid = anonymous.text.partition('"sid":"')[2].partition('"')[0]
        poll = f"{running.url}/socket.io/?EIO=4&transport=polling&sid={sid}"
        requests.post(poll, data="40", timeout=60)
        assert requests.get(poll, timeout=60).text.startswith("44"), "an error of Socket.IO"

        page.goto(running.url)
        sign_in(page, "bob")
        page.get_by_role("textbox").fill("hello")
        page.get_by_role("button", name="Say").click()
        expect(page.locator("li")).to_have_text(["bob (User): hello"])
        # An event asks again: another role counts on the connection that is open.
        running.change_person(username="bob", role="Admin")
        said = page.locator("li", has_text="bob (Admin): hello")

        def say_again() -> None:
            page.get_by_role("button", name="Say").click()

        for _ in range(100):
            say_again()
            page.wait_for_timeout(100)
            if said.count():
                break
        expect(said.first).to_be_visible()
        # The end of the session ends the connection, and the page goes to the login.
        end_session(page, running)
        expect(page.get_by_label("Or type any name")).to_be_visible()


def test_dash(tmp_path: Path, page: Page) -> None:
    with recipe(DOCUMENT, "Dash", tmp_path, redirect=FRAGMENT) as running:
        for path in ("/_dash-layout", "/_dash-dependencies", "/assets/sign-in.js"):
            response = requests.get(running.url + path, headers={"Accept": "*/*"}, timeout=60)
            assert response.status_code == 401
        page.goto(running.url)
        sign_in(page, "ada")
        page.locator("#text").fill("x")
        expect(page.locator("#greeting")).to_have_text("ada (Admin) wrote: x")
        end_session(page, running)
        page.locator("#text").fill("xy")
        sign_in(page, "bob")
        expect(page.locator("#greeting")).to_have_text("bob (User) wrote: ")


@contextmanager
def vite(folder: Path) -> Iterator[str]:
    """Run Vite's dev server with the recipe; yields its address. Flask is started later."""
    (folder / "node_modules").symlink_to(MODULES)
    port, flask_port = processes.free_port(), processes.free_port()
    (folder / "flask-port").write_text(str(flask_port))
    command = ["node", "node_modules/vite/bin/vite.js", "--host=127.0.0.1", "--strictPort"]
    environment = processes.environment() | {"FLASK_URL": f"http://127.0.0.1:{flask_port}"}
    with (
        (folder / "vite.log").open("wb") as log,
        subprocess.Popen(
            [*command, f"--port={port}"], cwd=folder, env=environment, stdout=log, stderr=log
        ) as process,
    ):
        try:
            processes.wait_for(f"http://127.0.0.1:{port}/", process)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def test_vite(tmp_path: Path, page: Page, tab: Tab) -> None:
    write(DOCUMENT, "Vite", tmp_path)
    with vite(tmp_path) as url:
        flask_port = int((tmp_path / "flask-port").read_text())
        with serving(tmp_path, port=flask_port, redirect=FRAGMENT, origin=url):
            page.goto(f"{url}/#/files")
            sign_in(page, "ada")
            expect(page.locator("h1")).to_have_text("Hello ada")
            tab.goto(url)
            tab.fill("#typed_username", "bob")
            tab.click("Sign in")
            tab.wait_for_text("Hello bob")
            assert not any("code=" in requested for requested in tab.requested)
            build = ["node", "node_modules/vite/bin/vite.js", "build"]
            subprocess.run(build, cwd=tmp_path, check=True, capture_output=True, timeout=120)
            built = requests.get(f"http://127.0.0.1:{flask_port}/", timeout=60).text
            assert 'src="/assets/index' in built
