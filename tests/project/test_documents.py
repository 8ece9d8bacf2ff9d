"""Execute the blocks of README and docs unchanged.

test_front_end_docs runs the blocks of the front-end pages.
"""

from __future__ import annotations

import ast
import configparser
import json
import logging
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import pytest
import requests
import trustme
from flask import Flask
from playwright.sync_api import Browser, expect

from flask_devkit_sso import LoginRefused, ServerError, ServerUnavailable
from flask_devkit_sso.testing import login_as
from pytest_devkit_sso import Sandbox

from .. import documents, processes
from ..browser import WHOLE_CHROMIUM
from ..cli.place import CANARY, KEY, Place
from ..cli.terminal import Terminal
from ..documents import DOCUMENTS, blocks, every_block, shows
from ..processes import Person

pytestmark = [pytest.mark.checkout, pytest.mark.slow]

CHROMIUM = WHOLE_CHROMIUM

ELSEWHERE = {
    ("docs/bindings.md", "python"),
    ("docs/commands.md", "console"),
    ("docs/failures.md", "jinja"),
    # make release runs the same commands.
    ("docs/offline.md", "console"),
    ("docs/offline.md", "text"),
    # make integration runs them.
    ("docs/deployment.md", "apache"),
    ("docs/deployment.md", "haproxy"),
    ("docs/forward_auth.md", "caddyfile"),
    ("docs/landing.md", "html"),
    ("docs/landing.md", "js"),
    ("docs/landing.md", "python"),
    ("docs/landing.md", "text"),
    ("docs/quickstart.md", "console"),
    # test_public_names starts an application with it.
    ("docs/settings.md", "python"),
    ("docs/sessions.md", "html"),
    ("docs/sessions.md", "js"),
    ("docs/sessions.md", "python"),
    ("docs/testing.md", "bash"),
    ("docs/testing.md", "python"),
    ("docs/writing_a_server.md", "bash"),
    ("docs/writing_a_server.md", "sql"),
}
"""Blocks with a separate test, which fails if there are more of them."""

READ_ONLY = {
    # The exception hierarchy.
    ("docs/api.md", "text"),
    # A sample of the log; test_pages checks the real lines.
    ("docs/failures.md", "text"),
    # An address that only a server can create.
    ("docs/protocol.md", "text"),
    # A diagram.
    ("docs/sessions.md", "text"),
}

FOR_SPHINX = {"{include}", "{toctree}"}


def check_yaml(text: str) -> None:
    """Parse the file, because not every machine has Docker or Traefik."""
    import yaml

    assert isinstance(yaml.safe_load(text), dict)


def check_ini(text: str) -> None:
    """Parse the file, because not every machine has systemd or uWSGI."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(text)
    assert parser.sections()


def check_nginx(text: str) -> None:
    """Parse the file, because not every machine has nginx.

    The parser, by nginx's authors, knows the context and the arguments of every directive.
    """
    import crossplane

    path = Path("app.conf")
    path.write_text(f"events {{}}\nhttp {{\n{text}}}\n")
    parsed = crossplane.parse(str(path), strict=True)
    assert parsed["status"] == "ok", parsed["errors"]


def check_console(text: str) -> None:
    """Run the commands in an application's folder, and compare the output that a block shows."""
    Place(Path.cwd())
    for command, expected in transcript(text):
        assert shows(play(command), expected or "…\n")


CHECKS: dict[str, Callable[[str], object]] = {
    "console": check_console,
    "ini": check_ini,
    "json": json.loads,
    "nginx": check_nginx,
    "toml": tomllib.loads,
    "yaml": check_yaml,
}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_block_is_checked(
    document: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if document.startswith("docs/recipes"):
        # make integration runs them.
        return
    for language, text in every_block(document):
        taken = (document, language) in ELSEWHERE | READ_ONLY or language in FOR_SPHINX
        if language == "python" and not taken:
            assert document in PROGRAMS
        elif not taken:
            CHECKS[language](text)


def test_every_listed_block_exists() -> None:
    there = {(name, language) for name in DOCUMENTS for language, _ in every_block(name)}
    assert ELSEWHERE | READ_ONLY | {(name, "python") for name in PROGRAMS} <= there


def transcript(text: str) -> list[tuple[str, str]]:
    """Return each command of a console block with its output."""
    found = re.findall(r"^\$ ((?:.*\\\n)*.*)\n((?:(?!\$ ).*\n)*)", text, re.MULTILINE)
    assert "".join(f"$ {command}\n{shown}" for command, shown in found) == text
    return found


def play(command: str, **environment: str) -> str:
    """Run a command of a document in this folder; return its output."""
    # The path of the secret in a container.
    Path("client_secret").write_text(f"{CANARY}\n")
    done = subprocess.run(
        ["/bin/sh", "-ec", command.replace("/run/secrets/", "./")],
        env=shell_environment() | KEY | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def shell_environment() -> dict[str, str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return processes.environment() | {"PATH": path, "PYTHONDONTWRITEBYTECODE": "1"}


# Run each program, and check what its page says about it.


def signs_in(names: dict[str, Any]) -> None:
    client = names["app"].test_client()
    assert client.get("/", headers={"Accept": "text/html"}).location == "/sso/authorize?next=/"
    login_as(client, "ada", role="Admin")
    assert client.get("/").text == "Hello ada"
    assert client.get("/admin").text == "Only for Admin"


def fail(error: Exception) -> NoReturn:
    raise error


def has_every_public_name(names: dict[str, Any]) -> None:
    app: Flask = names["app"]
    client = app.test_client()
    with pytest.raises(LoginRefused):
        login_as(client, "eve", role=None)
    assert client.get("/color").location == "/sso/authorize?next=/color"
    assert client.get("/menu").json == {"sign_in": "/sso/authorize?next=/color"}
    login_as(client, "ada", uid="1001")
    names["login_succeeded"].send(app, user=names["User"]("1001", "ada", "User"))
    assert client.get("/color").text == "green"
    assert client.get("/menu").json == {"name": "ada", "sign_out": "/sso/logout"}
    assert client.get("/profile").json["is_admin"] is False
    assert client.get("/unread").json == {"unread": 3}
    # Nobody listens at the server's address.
    assert client.get("/files").json["error"] == "server_unavailable"

    admin = app.test_client()
    assert "Admin" in admin.get("/admin/help").text
    login_as(admin, "bob", role="Admin", uid="1002")
    ada, renamed = (names["User"]("1001", name, "User") for name in ("ada", "Ada"))
    names["user_changed"].send(app, user=renamed, before=ada)
    names["token_refreshed"].send(app, user=renamed)
    assert admin.get("/people").json == ["Ada", "bob"]
    assert client.post("/admin/people/1001/end-sessions").status_code == 403
    assert admin.post("/admin/people/1001/end-sessions").json == {"ended": 1}
    dismissed = app.test_cli_runner().invoke(args=["dismiss", "1001"])
    assert dismissed.output == "0 sessions have ended.\n"
    assert admin.post("/sso/logout", headers={"Sec-Fetch-Site": "same-origin"}).status_code == 303

    shown = client.get("/sso/callback?code=1&state=2")
    assert (shown.status_code, shown.json["error"]) == (400, "login_unknown")
    assert names["failures"]["login_unknown"] == 1
    app.view_functions["menu"] = partial(fail, ServerError("why", "8500"))
    assert client.get("/menu").json == {"error": "server_rejected", "server_code": "8500"}
    app.view_functions["menu"] = partial(fail, ServerUnavailable("why"))
    assert client.get("/menu").json == {"error": "server_unavailable"}
    with pytest.raises(SystemExit, match="DEVKIT_SSO_TIMEOUT"):
        names["create_another"]({"DEVKIT_SSO_TIMEOUT": "soon"})


def is_healthy(names: dict[str, Any]) -> None:
    app: Flask = names["app"]
    app.add_url_rule("/other", "other", lambda: "other")
    app.before_request(names["check_token"])
    client = app.test_client()
    assert client.get("/healthz").text == "ok"
    assert client.get("/static/none").status_code == 404
    assert client.get("/other").location == "/sso/authorize?next=/other"


def answers_by_itself(names: dict[str, Any]) -> None:
    Path("templates/devkit_sso").mkdir(parents=True)
    Path("templates/sorry.html").write_text("{{ reason }} {{ reference }}")
    client = names["app"].test_client()
    answer = client.get("/sso/callback?code=1&state=2")
    assert answer.status_code == 400
    assert re.fullmatch("login_unknown [0-9a-f]{8}", answer.text)
    (base,) = blocks("docs/failures.md", "jinja")
    Path("templates/devkit_sso/base.html").write_text(base)
    page = client.get("/sso/signed-out").text
    assert '<link rel="stylesheet" href="/static/site.css">' in page
    assert re.search(r"<main>\s*<h1>You are not signed in</h1>", page)
    assert re.search(r'<html lang="en" data-outcome="unknown">\s*<head>', page)
    assert page.count("default-src") == 1


def forgets(names: dict[str, Any]) -> None:
    clients = [names["app"].test_client() for _ in range(2)]
    for client in clients:
        login_as(client, "ada", uid="1001")
    assert names["forget"]("1001") == 2
    assert names["forget"]("1001") == 0


def has_an_audit_trail(names: dict[str, Any]) -> None:
    loggers = [logging.getLogger(f"flask_devkit_sso{name}") for name in ("", ".audit")]
    try:
        answer = names["app"].test_client().get("/sso/callback?code=1&state=2")
        assert answer.status_code == 400
        (line,) = Path("audit.jsonl").read_text("utf-8").splitlines()
        (example,) = blocks("docs/audit.md", "json")
        assert list(json.loads(line)) == list(json.loads(example))
        assert json.loads(line)["reference"] in answer.text
    finally:
        for logger in loggers:
            for handler in logger.handlers[:]:
                logger.removeHandler(handler)
                handler.close()
        loggers[0].setLevel(logging.NOTSET)


def has_a_factory(names: dict[str, Any]) -> None:
    signs_in(names)
    client = names["create_app"]().test_client()
    login_as(client, "bob")
    assert client.get("/reports").text == "Hello bob"
    assert client.get("/admin").status_code == 403
    login_as(client, "ada", role="Admin")
    assert client.get("/admin").text == "Only for Admin"
    # Twice, because one object serves several applications.
    assert names["create_app"]() is not client.application


PROGRAMS: dict[str, Callable[[dict[str, Any]], None]] = {
    "README.md": signs_in,
    "docs/api.md": has_every_public_name,
    "docs/audit.md": has_an_audit_trail,
    "docs/deployment.md": is_healthy,
    "docs/failures.md": answers_by_itself,
    "docs/privacy.md": forgets,
    "docs/quickstart.md": has_a_factory,
}


@pytest.mark.parametrize("document", PROGRAMS)
def test_a_program(document: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = "\n".join(blocks(document, "python"))
    url = "http://127.0.0.1:9"
    with calls_of(document) as called:
        names = documents.run(
            program, monkeypatch, tmp_path, name=document, DEVKIT_SSO_SERVER_URL=url
        )
        PROGRAMS[document](names)
    written = {node.name for node in ast.walk(ast.parse(program)) if isinstance(node, FUNCTIONS)}
    assert written - called == set(), "these examples are never run"


@contextmanager
def calls_of(file: str) -> Iterator[set[str]]:
    """Yield the names of the functions of a file that have been called in this thread."""
    called = set()

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_filename == file:
            called.add(frame.f_code.co_name)

    sys.setprofile(note)
    try:
        yield called
    finally:
        sys.setprofile(None)


def test_the_readme_begins_with_a_complete_program() -> None:
    text = (processes.ROOT / "README.md").read_text(encoding="utf-8")
    first_screen = text.splitlines()[:40]
    assert "## What it does not do" in first_screen
    (program,) = blocks("README.md", "python")
    assert len(program.split()) < 80
    assert blocks("docs/quickstart.md", "python")[0] == program


def test_the_readme_links_to_every_page() -> None:
    text = (processes.ROOT / "README.md").read_text(encoding="utf-8")
    pages = set(DOCUMENTS) - {"README.md", "docs/index.md"}
    assert set(re.findall(r"\((docs/\w+\.md)\)", text)) == pages


def quickstart() -> list[str]:
    """Return the console blocks of the quickstart, without the first one.

    The first block installs the package, which the core suite does with the wheel.
    """
    _, *rest = found = blocks("docs/quickstart.md", "console")
    assert len(found) == 6
    return rest


def test_the_sandbox_prints_what_the_quickstart_shows() -> None:
    (_, _), (command, shown) = transcript(quickstart()[0])
    assert command == "python -m flask_devkit_sso.sandbox"
    with processes.sandbox() as exported:
        pass
    port = exported["SERVER_URL"].rpartition(":")[2]
    assert shows(exported["text"].replace(f":{port}", ":9000"), shown)


def test_the_quickstarts_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Register at a terminal, then check the result."""
    *_, register, bundle, show = quickstart()
    monkeypatch.chdir(tmp_path)
    terminal = Terminal(Place(tmp_path), "register")
    try:
        for label, value in re.findall(r"^([CSR][^:]*): ?(.*)$", register, re.MULTILINE):
            terminal.expect(f"{label}: ")
            terminal.type(f"{value or CANARY}\n")
        assert terminal.close() == 0
    finally:
        terminal.process.kill()
        terminal.process.wait()
    ((command, shown),) = transcript(register)
    assert command == "flask devkit-sso register"
    assert shows(terminal.shown.replace("\r\n", "\n"), shown)

    ((command, shown),) = transcript(show)
    assert shows(play(command), shown)
    trustme.CA().cert_pem.write_to_path("private-ca.pem")
    ((trust, _),) = transcript(bundle)
    printed = play(f"{trust.replace('/etc/ssl/', '')}\n{command}")
    assert "DEVKIT_SSO_CA_BUNDLE          app.config         private-ca.pem\n" in printed


@contextmanager
def the_readmes_program(folder: Path, *, leave_out: str = " ") -> Iterator[str]:
    """Run the program with a sandbox, as in the quickstart; yields its address.

    The port differs from the quickstart's 5000, which may be in use.
    """
    (program,) = blocks("README.md", "python")
    (folder / "app.py").write_text(program, encoding="utf-8")
    port = processes.free_port()
    url = f"http://127.0.0.1:{port}"
    (key, _), (run, _) = transcript(quickstart()[1])
    assert key.startswith("export FLASK_SECRET_KEY=$(python -c ")
    assert run == "flask run"
    uris = [f"--redirect-uri={url}/#/login", f"--redirect-uri={url}/sso/callback"]
    with processes.sandbox(*uris) as exported:
        lines = [line for line in exported["text"].splitlines() if line.startswith("export ")]
        lines = [line for line in lines if f"_{leave_out}=" not in line]
        with (
            (folder / "log").open("wb") as log,
            subprocess.Popen(
                ["/bin/sh", "-ec", "\n".join([*lines, key, f"exec {run} --port {port}"])],
                cwd=folder,
                env=shell_environment(),
                stdout=log,
                stderr=log,
            ) as process,
        ):
            try:
                processes.wait_for(url, process)
                yield url
            finally:
                process.terminate()
                process.wait(60)


FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)

PEOPLE = {"ada": "Only for Admin", "bob": "", "anybody": ""}
"""The people, and what each sees on the page for Admin."""


@pytest.mark.browser
def test_the_readmes_program_signs_people_in(browser: Browser, tmp_path: Path) -> None:
    with the_readmes_program(tmp_path) as url:
        for username, sees in PEOPLE.items():
            context = browser.new_context()
            page = context.new_page()
            page.goto(f"{url}/")
            page.get_by_label("Or type any name").fill(username)
            page.get_by_role("button", name="Sign in").click()
            expect(page.locator("body")).to_have_text(f"Hello {username}")
            answer = page.goto(f"{url}/admin")
            assert answer
            assert answer.status == (200 if sees else 403)
            assert sees in page.inner_text("body")
            context.close()


def test_the_readmes_program_works_without_a_redirect_uri_on_this_machine(tmp_path: Path) -> None:
    with the_readmes_program(tmp_path, leave_out="REDIRECT_URI") as url:
        for username, sees in PEOPLE.items():
            person = Person(username)
            assert person.sign_in(url).text == f"Hello {username}"
            answer = person.get(f"{url}/admin")
            assert answer.status_code == (200 if sees else 403)
            assert sees in answer.text
            person.close()


def test_the_sandbox_options_in_the_docs(devkit_sso_sandbox: Sandbox) -> None:
    (block,) = blocks("docs/testing.md", "bash")
    for line in block.splitlines():
        curl, url, option, body = shlex.split(line)
        assert (curl, option) == ("curl", "--json")
        there = url.replace("http://127.0.0.1:9000", devkit_sso_sandbox.url)
        json_type = {"Content-Type": "application/json"}
        requests.post(there, data=body, headers=json_type, timeout=60).raise_for_status()


def test_the_tests_in_the_docs_pass(tmp_path: Path) -> None:
    """Run the blocks with pytest as a separate project, which finds the plugin by its entry point.

    A block that begins with a file name becomes that file; the others form one module.
    """
    files = {"app.py": blocks("README.md", "python"), "test_reports.py": []}
    for block in blocks("docs/testing.md", "python"):
        named = re.match(r"# (\w+\.py)\n", block)
        files.setdefault(named[1] if named else "test_reports.py", []).append(block)
    for name, parts in files.items():
        (tmp_path / name).write_text("\n".join(parts), encoding="utf-8")
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        env=processes.environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert re.search(r"^6 passed", run.stdout, re.MULTILINE), run.stdout
