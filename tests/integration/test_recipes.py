"""The recipes of docs/recipes.md: accounts and roles."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path

import requests

from ..conftest import SECRET_KEY, wait_until
from ..processes import Person
from .recipes import recipe

DOCUMENT = "recipes.md"
PAGE = {"Accept": "text/html"}


def status(person: Person, url: str) -> int:
    return person.browser.get(url, headers=PAGE, allow_redirects=False, timeout=60).status_code


def test_flask_login_for_local_accounts_as_well(tmp_path: Path) -> None:
    ada, operator = Person("ada"), Person("operator")
    with recipe(DOCUMENT, "Flask-Login for local accounts as well", tmp_path) as running:
        url = running.url
        assert status(ada, url) == 302
        response = requests.get(url, headers={"Accept": "application/json"}, timeout=60)
        assert response.status_code == 401
        assert response.json()["error"] == "login_required"

        form = {"name": "operator", "password": "wrong"}
        post = operator.browser.post
        assert post(f"{url}/local-login", form, timeout=60).status_code == 403
        form["password"] = "correct horse"
        assert post(f"{url}/local-login", form, timeout=60).text == "Hello operator (local-1)"
        assert re.fullmatch(r"Hello ada \(sso-.+\)", ada.sign_in(url).text)
        assert operator.get(url).text == "Hello operator (local-1)"

        post(f"{url}/local-logout", timeout=60, allow_redirects=False)
        assert status(operator, url) == 302
        sign_out(ada, url)
        assert status(ada, url) == 302


def sign_out(person: Person, url: str) -> None:
    done = person.browser.post(
        f"{url}/sso/logout",
        headers={"Sec-Fetch-Site": "same-origin", "Accept": "application/json"},
        timeout=60,
    )
    assert done.json()["server_told"] is True


def test_migrating_from_flask_login(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "accounts.db")) as accounts:
        accounts.executescript(
            """
            CREATE TABLE account (id INTEGER PRIMARY KEY, name TEXT, email TEXT);
            INSERT INTO account (name, email) VALUES ('ada', 'ada@old.example');
            """
        )
        for statement in re.findall("`((?:ALTER|CREATE) [^`]+)`", page()):
            accounts.execute(statement)
        accounts.commit()
    with recipe(DOCUMENT, "Migrating from Flask-Login", tmp_path) as running:
        ada, bob, old = Person("ada"), Person("bob"), Person("ada")
        old.browser.cookies.set("session", flask_login_session("1"))
        assert status(old, running.url) == 302
        for _ in range(2):
            assert ada.sign_in(running.url).text == "Hello ada@old.example"
            sign_out(ada, running.url)
        refused = bob.sign_in(running.url)
        assert refused.status_code == 403
        assert "You have no account here" in refused.text
        # Somebody else who got the name later is not the same person.
        with closing(sqlite3.connect(tmp_path / "accounts.db")) as accounts:
            accounts.execute("UPDATE account SET sso_uid = 'of somebody else'")
            accounts.commit()
        ada.forget()
        assert ada.sign_in(running.url).status_code == 403


def page() -> str:
    from .recipes import sections

    return " ".join(sections(DOCUMENT)["Migrating from Flask-Login"].split())


def flask_login_session(user_id: str) -> str:
    """Return the cookie of somebody who signed in before the migration."""
    from flask import Flask
    from flask.sessions import SecureCookieSessionInterface

    app = Flask("old")
    app.secret_key = SECRET_KEY
    signer = SecureCookieSessionInterface().get_signing_serializer(app)
    assert signer
    cookie = signer.dumps({"_user_id": user_id, "_fresh": True})
    assert isinstance(cookie, str)
    return cookie


def test_flask_sqlalchemy(tmp_path: Path) -> None:
    settings = {"DEVKIT_SSO_REVALIDATE_AFTER": "1"}
    heading = "Flask-SQLAlchemy: accounts with roles of your own"
    with recipe(DOCUMENT, heading, tmp_path, settings=settings) as running:
        url = running.url
        ada, bob = Person("ada"), Person("bob")
        assert ada.sign_in(url).text == "Hello ada"
        assert bob.sign_in(url).text == "Hello bob"
        assert ada.get(f"{url}/people").json() == {"ada": ["Admin", False], "bob": ["User", False]}
        assert bob.get(f"{url}/people").status_code == 403
        assert bob.get(f"{url}/drafts").status_code == 403
        with closing(sqlite3.connect(tmp_path / "instance/accounts.db")) as accounts:
            ((uid,),) = accounts.execute("SELECT uid FROM account WHERE name = 'bob'")
        ada.browser.post(f"{url}/people/{uid}/editor", timeout=60).raise_for_status()
        assert bob.get(f"{url}/drafts").text == "Only for editors"

        # A role that changes at the server reaches the table while bob is signed in.
        running.change_person(username="bob", role="Admin")

        def table() -> object:
            bob.get(url)
            return ada.get(f"{url}/people").json()

        wait_until(lambda: table() == {"ada": ["Admin", False], "bob": ["Admin", True]})
        assert bob.get(f"{url}/people").status_code == 200


def test_flask_admin(tmp_path: Path) -> None:
    with recipe(DOCUMENT, "Flask-Admin", tmp_path) as running:
        url = running.url
        ada, bob = Person("ada"), Person("bob")
        assert bob.get(url).text == "Public"
        paths = ["/admin/", "/admin/article/", "/admin/article/new/"]
        assert [status(bob, url + path) for path in paths] == [302] * 3
        bob.sign_in(url, "/admin/")
        assert [status(bob, url + path) for path in paths] == [403] * 3
        assert "Articles" in ada.sign_in(url, "/admin/").text
        assert [status(ada, url + path) for path in paths] == [200] * 3

        new = f"{url}/admin/article/new/"
        ada.browser.post(new, {"title": "Without a token"}, timeout=60)
        token = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', ada.get(new).text)
        assert token
        form = {"title": "First", "csrf_token": token[1]}
        assert "First" in ada.browser.post(new, form, timeout=60).text
        assert bob.browser.post(new, form, timeout=60).status_code == 403
        with closing(sqlite3.connect(tmp_path / "instance/articles.db")) as articles:
            assert articles.execute("SELECT title FROM article").fetchall() == [("First",)]
