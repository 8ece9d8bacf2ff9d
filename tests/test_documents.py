"""The programs and console lines of README and docs, executed as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import expect, sync_playwright

from . import processes
from .browser import CHROMIUM
from .processes import Person

pytestmark = [pytest.mark.checkout, pytest.mark.slow]


def blocks(document: str, language: str) -> list[str]:
    text = (processes.ROOT / document).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def commands(document: str) -> list[str]:
    lines = "".join(blocks(document, "console")).splitlines()
    assert all(line.startswith("$ ") for line in lines)
    return [line.removeprefix("$ ") for line in lines]


def test_the_readme_begins_with_a_whole_program() -> None:
    text = (processes.ROOT / "README.md").read_text(encoding="utf-8")
    first_screen = text.splitlines()[:40]
    assert "## What it does not do" in first_screen
    (program,) = blocks("README.md", "python")
    assert len(program.split()) < 80


def test_the_lines_to_export_are_those_that_the_sandbox_prints() -> None:
    first, *exports, key, run = commands("README.md")
    assert first == "python -m flask_devkit_sso.sandbox"
    with processes.sandbox() as exported:
        printed = [line for line in exported["text"].splitlines() if line.startswith("export ")]
    port = exported["SERVER_URL"].rpartition(":")[2]
    shown = [
        line.replace(exported["CLIENT_SECRET"], "sandbox-...").replace(f":{port}", ":9000")
        for line in printed
    ]
    assert shown == exports
    assert key.startswith("export FLASK_SECRET_KEY=$(python -c ")
    assert run == "flask run"


@contextmanager
def the_readmes_program(folder: Path, *, leave_out: str = " ") -> Iterator[str]:
    """Run it as README says, beside a sandbox; yields its address.

    On another port than 5000, which may be taken here.
    """
    (program,) = blocks("README.md", "python")
    (folder / "app.py").write_text(program, encoding="utf-8")
    port = processes.free_port()
    url = f"http://127.0.0.1:{port}"
    *_, key, run = commands("README.md")
    uris = [f"--redirect-uri={url}/#/login", f"--redirect-uri={url}/sso/callback"]
    with processes.sandbox(*uris) as exported:
        lines = [line for line in exported["text"].splitlines() if line.startswith("export ")]
        lines = [line for line in lines if f"_{leave_out}=" not in line]
        with (
            (folder / "log").open("wb") as log,
            subprocess.Popen(
                ["/bin/sh", "-ec", "\n".join([*lines, key, f"exec {run} --port {port}"])],
                cwd=folder,
                env=processes.environment()
                | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
                stdout=log,
                stderr=log,
            ) as process,
        ):
            try:
                processes.wait_for(url, process)
                yield url
            finally:
                process.terminate()
                process.wait(30)


PEOPLE = {"ada": "Only for Admin", "bob": "", "anybody": ""}
"""Who may sign in, and what they see on the page for Admin."""


@pytest.mark.browser
def test_the_readmes_program_signs_people_in(tmp_path: Path) -> None:
    with the_readmes_program(tmp_path) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(**CHROMIUM)  # type: ignore[arg-type]
        for username, sees in PEOPLE.items():
            page = browser.new_context().new_page()
            page.goto(f"{url}/")
            page.get_by_label("Or type any name").fill(username)
            page.get_by_role("button", name="Sign in").click()
            expect(page.locator("body")).to_have_text(f"Hello {username}")
            answer = page.goto(f"{url}/admin")
            assert answer
            assert answer.status == (200 if sees else 403)
            assert sees in page.inner_text("body")
        browser.close()


def test_the_readmes_program_works_without_a_redirect_uri_on_this_machine(tmp_path: Path) -> None:
    with the_readmes_program(tmp_path, leave_out="REDIRECT_URI") as url:
        for username, sees in PEOPLE.items():
            person = Person(username)
            assert person.sign_in(url).text == f"Hello {username}"
            answer = person.get(f"{url}/admin")
            assert answer.status_code == (200 if sees else 403)
            assert sees in answer.text
            person.close()


def test_the_docs_about_testing_are_a_test_module(tmp_path: Path) -> None:
    """Run by pytest as a project of its own, which finds the plugin by its entry point."""
    module = "\n".join(blocks("docs/testing.md", "python"))
    (tmp_path / "test_reports.py").write_text(module, encoding="utf-8")
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        env=processes.environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert re.search(r"^3 passed", run.stdout, re.MULTILINE), run.stdout
