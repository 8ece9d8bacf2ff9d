"""Every public name has an example in the documentation, and a test runs that example.

test_documents runs the programs of the pages below and checks that each of their functions is
called. It also runs the tests on docs/testing.md. tests/cli runs the commands.
"""

from __future__ import annotations

import ast
import re
import tomllib
from dataclasses import fields
from pathlib import Path

import click
import pytest
import trustme
from flask import Flask

import flask_devkit_sso
from flask_devkit_sso.cli.group import group
from flask_devkit_sso.config.settings import PREFIX, Settings

from ..conftest import SECRET_KEY
from ..documents import blocks, every_block
from ..processes import ROOT

pytestmark = [pytest.mark.checkout, pytest.mark.slow]

PROGRAMS = ["docs/api.md", "docs/testing.md"]


def used(document: str) -> set[str]:
    """Return the names and attributes that the programs of a page use."""
    nodes = list(ast.walk(ast.parse("\n".join(blocks(document, "python")))))
    names = {node.id for node in nodes if isinstance(node, ast.Name)}
    # Fixtures are used by their names.
    names |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    return names | {f".{node.attr}" for node in nodes if isinstance(node, ast.Attribute)}


def public_names() -> set[str]:
    """Return what the API reference lists; attributes begin with a dot."""
    text = (ROOT / "docs/api.md").read_text("utf-8")
    entries = set(re.findall(r"^#{3,4} `([\w.]+)`$", text, re.MULTILINE))
    # The class is known by its fixture.
    entries -= {"Sandbox"}
    members = {f".{name.rpartition('.')[2]}" for name in entries if "." in name}
    current_user = {f".{name}" for name in re.findall(r"^\| `(\w+)` \| ", text, re.MULTILINE)}
    assert {".uid", ".account"} <= current_user
    assert {".protect", ".calls"} <= members
    return (
        {name for name in entries if "." not in name}
        | members
        | current_user
        | set(flask_devkit_sso.__all__)
        | {".reason", ".next", ".reference", ".server_code", ".url", ".client_id", ".client_secret"}
    )


def test_every_public_name_has_an_example_that_is_run() -> None:
    shown = set().union(*map(used, PROGRAMS))
    missing = sorted(public_names() - shown)
    assert missing == [], (
        f"write an example for each into docs/api.md or docs/testing.md: {missing}"
    )


def test_every_setting_has_an_example_that_is_run(tmp_path: Path) -> None:
    """Start an application with the configuration file on docs/settings.md."""
    (credentials,) = blocks("docs/settings.md", "toml")
    (tmp_path / "devkit_sso.toml").write_text(credentials, encoding="utf-8")
    (tmp_path / "client_secret").write_text("canary", encoding="utf-8")
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "private-ca.pem"))
    (text,) = blocks("docs/settings.md", "python")
    for folder in ("/run/secrets/", "/etc/ssl/"):
        text = text.replace(folder, f"{tmp_path}/")
    (tmp_path / "config.py").write_text(text, encoding="utf-8")
    app = Flask("tests", instance_path=str(tmp_path))
    app.config["SECRET_KEY"] = SECRET_KEY
    app.config.from_pyfile(str(tmp_path / "config.py"))
    flask_devkit_sso.DevKitSSO(app)
    location = app.test_client().get("/sso/authorize?next=/").location
    assert location.startswith("https://auth.example.com/login?client_id=20221017000000001&")

    shown = {key for key in app.config if key.startswith(PREFIX)}
    shown |= {f"{PREFIX}{name.upper()}" for name in tomllib.loads(credentials)}
    missing = sorted({f"{PREFIX}{item.name.upper()}" for item in fields(Settings)} - shown)
    assert missing == [], f"set each in the example on docs/settings.md: {missing}"


def commands() -> list[str]:
    """Return the commands of the group, those of its groups with both names."""
    found = []
    for name, command in group.commands.items():
        inner = command.commands if isinstance(command, click.Group) else {"": None}
        found += [f"flask devkit-sso {name} {sub}".strip() for sub in inner]
    return found


def test_every_command_has_an_example_that_is_run() -> None:
    shown = "\n".join(text for _, text in every_block("docs/commands.md"))
    missing = [name for name in commands() if not re.search(rf"^\$ {name}\b", shown, re.MULTILINE)]
    assert missing == [], f"show each in a console block of docs/commands.md: {missing}"
