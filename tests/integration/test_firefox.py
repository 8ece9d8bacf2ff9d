"""Signing in with Firefox, through a redirect URI with a fragment."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ..documents import blocks
from .firefox import Tab
from .recipes import Running, serving


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The README's program, at the vendor's form of a redirect URI."""
    folder = tmp_path_factory.mktemp("readme")
    (code,) = blocks("README.md", "python")
    (folder / "app.py").write_text(code, encoding="utf-8")
    with serving(folder, redirect="/#/login") as running:
        yield running


def sign_in(tab: Tab, username: str) -> None:
    tab.fill("#typed_username", username)
    tab.press("Sign in")


def test_a_login_through_a_fragment(program: Running, tab: Tab) -> None:
    tab.goto(f"{program.url}/#/files?x=1")
    sign_in(tab, "ada")
    tab.wait_for_text("Hello ada")
    assert tab.url == f"{program.url}/#/files?x=1"
    # The landing page has run there, and the code is in no address that was requested.
    assert f"{program.url}/sso/callback" in tab.requested
    assert not any("code=" in url for url in tab.requested)
    # Our pages allow no favicon.
    assert [line for line in tab.console if "favicon" not in line] == []
    tab.reload()
    tab.wait_for_text("Hello ada")
    tab.goto(f"{program.url}/admin")
    tab.wait_for_text("Only for Admin")


def test_a_second_person_in_another_profile(program: Running, tab: Tab) -> None:
    tab.goto(f"{program.url}/")
    sign_in(tab, "bob")
    tab.wait_for_text("Hello bob")
    assert tab.evaluate("fetch('/admin').then(response => response.status)") == 403


def test_continue_on_the_landing_page(program: Running, tab: Tab) -> None:
    """Firefox says ``Sec-Fetch-Site: none`` after a click and a redirect, unless it sends a
    Referer. The landing page would appear again and again.

    The landing page has a button if a tab comes back to it at once, as in a loop of redirects.
    """
    tab.goto(f"{program.url}/")
    sign_in(tab, "bob")
    tab.wait_for_text("Hello bob")
    tab.run_first(
        "Object.defineProperty(History.prototype, 'length', { get: () => 2 });"
        "sessionStorage['devkit-sso-landing'] = `${Date.now()} 2`"
    )
    tab.goto(f"{program.url}/?again#/files")
    tab.press("Continue")
    tab.wait_for_text("Hello bob")
    assert tab.url == f"{program.url}/?again#/files"
