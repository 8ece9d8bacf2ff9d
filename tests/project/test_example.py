"""The example application and the sandbox, started as `make demo` does, in Chromium."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from .. import processes
from ..browser import WHOLE_CHROMIUM
from ..conftest import PATIENCE

pytestmark = [
    pytest.mark.browser,
    pytest.mark.checkout,
    pytest.mark.slow,
    pytest.mark.xdist_group("example"),
]

CHROMIUM = WHOLE_CHROMIUM


@pytest.fixture(scope="module")
def demo() -> Iterator[str]:
    """The example application's address."""
    port = processes.free_port()
    ports = ["--app-port", str(port), "--sandbox-port", str(processes.free_port())]
    with subprocess.Popen(
        [sys.executable, "-m", "tools.demo", *ports],
        cwd=processes.ROOT,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout
            while not process.stdout.readline().startswith("Press Ctrl-C"):
                assert process.poll() is None
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(60)


def heading(page: Page, text: str) -> None:
    expect(page.get_by_role("heading", level=1)).to_have_text(text)


def pick(page: Page, username: str) -> None:
    """Sign in at the sandbox."""
    heading(page, "Sign in")
    page.get_by_role("button", name=username).click()


def test_an_admin_reaches_the_requested_page(demo: str, page: Page) -> None:
    console: list[str] = []
    page.on("console", lambda message: console.append(message.text))
    page.on("pageerror", lambda error: console.append(str(error)))
    page.goto(f"{demo}/reports?night=1")
    pick(page, "ada")
    heading(page, "Reports")
    assert page.url == f"{demo}/reports?night=1"
    expect(page.locator(".lead")).to_contain_text("Good evening, ada.")
    page.get_by_role("link", name="Admin").click()
    heading(page, "Admin")
    page.get_by_role("link", name="ada").click()
    heading(page, "Who am I")
    expect(page.locator("dl")).to_contain_text(re.compile(r"Name\s*ada\s*Account id\s*1001"))
    assert console == []


def test_a_user_is_refused_the_admin_page(demo: str, page: Page) -> None:
    page.goto(f"{demo}/admin")
    pick(page, "bob")
    page.wait_for_url(f"{demo}/admin")
    expect(page.locator("main")).to_contain_text("bob")
    expect(page.locator("main")).not_to_contain_text("North Head")
    answer = page.reload()
    assert answer is not None
    assert answer.status == 403
    page.goto(f"{demo}/reports")
    heading(page, "Reports")


def test_names_in_any_script_and_names_that_need_escaping(
    demo: str, context: BrowserContext
) -> None:
    for username in ("王小明", "o'neill", "<b>x</b>"):
        page = context.new_page()
        page.goto(f"{demo}/me")
        heading(page, "Sign in")
        page.get_by_label("Or type any name").fill(username)
        page.get_by_role("button", name="Sign in").click()
        heading(page, "Who am I")
        expect(page.locator("dl")).to_contain_text(f"Name{username}", use_inner_text=False)
        context.clear_cookies()


def test_signing_out_ends_both_sessions(demo: str, page: Page) -> None:
    page.goto(f"{demo}/reports")
    pick(page, "ada")
    heading(page, "Reports")
    page.get_by_role("button", name="Sign out").click()
    expect(page.locator("html")).to_have_attribute("data-outcome", "told")
    # The back button must not show a cached page.
    page.go_back()
    page.wait_for_load_state()
    expect(page.locator("body")).not_to_contain_text("Good evening")
    page.goto(f"{demo}/me")
    pick(page, "bob")  # it requests the page again
    heading(page, "Who am I")
    expect(page.locator("dl")).to_contain_text("bob")


def test_two_tabs_return_to_their_own_pages(demo: str, context: BrowserContext) -> None:
    one, two = context.new_page(), context.new_page()
    one.goto(f"{demo}/reports?tab=1")
    two.goto(f"{demo}/me?tab=2")
    for tab in (one, two):
        heading(tab, "Sign in")
    pick(two, "ada")
    heading(two, "Who am I")
    pick(one, "ada")
    heading(one, "Reports")
    assert (one.url, two.url) == (f"{demo}/reports?tab=1", f"{demo}/me?tab=2")


def test_the_other_name_of_this_host_works_too(demo: str, page: Page) -> None:
    page.goto(demo.replace("127.0.0.1", "localhost") + "/me")
    pick(page, "ada")
    heading(page, "Who am I")
    assert page.url == f"{demo}/me"


# If cookies are blocked, a page explains it, and there is no redirect loop.


def expect_an_explanation(page: Page, documents: list[str]) -> None:
    expect(page.locator("html")).to_have_attribute("data-reason", "cookie_missing")
    heading(page, "The sign-in cookie is missing")
    page.wait_for_timeout(500)
    assert len(documents) < 12, documents


def watch(page: Page) -> list[str]:
    documents: list[str] = []
    page.on(
        "request",
        lambda request: (
            documents.append(request.url) if request.resource_type == "document" else None
        ),
    )
    return documents


@pytest.mark.parametrize("path", ["/reports", "/sso/authorize"])
def test_blocked_cookies(demo: str, browser: Browser, tmp_path: Path, path: str) -> None:
    preferences = tmp_path / "Default" / "Preferences"
    preferences.parent.mkdir()
    blocked = {"profile": {"default_content_setting_values": {"cookies": 2}}}
    preferences.write_text(json.dumps(blocked))
    context = browser.browser_type.launch_persistent_context(
        tmp_path,
        **CHROMIUM,  # type: ignore[arg-type]
    )
    context.set_default_timeout(PATIENCE)
    try:
        page = context.new_page()
        documents = watch(page)
        page.goto(demo + path)
        expect_an_explanation(page, documents)
        assert context.cookies() == []
        # The person does not have to choose a name at the server in vain.
        assert all(url.startswith(demo) for url in documents)
        page.get_by_role("link", name="Sign in again").click()
        expect_an_explanation(page, documents)
    finally:
        context.close()
