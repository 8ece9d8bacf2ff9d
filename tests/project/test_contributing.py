"""CONTRIBUTING.md names only what exists, and .editorconfig and pre-commit are usable."""

from __future__ import annotations

import ast
import re
import xml.etree.ElementTree as ET

import pytest

from ..processes import ROOT

pytestmark = [pytest.mark.checkout, pytest.mark.slow]


@pytest.fixture
def text() -> str:
    return (ROOT / "CONTRIBUTING.md").read_text("utf-8")


def definitions(path: str) -> set[str]:
    """Return the functions, classes and constants of a module, and methods as ``Class.method``."""
    found = set()
    for node in ast.parse((ROOT / path).read_text("utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.add(node.target.id)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{m.name}" for m in node.body if isinstance(m, ast.FunctionDef)}
    return found


def test_every_file_exists(text: str) -> None:
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text)
    assert len(links) > 30
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_definition_exists(text: str) -> None:
    """A name belongs to the last link before it."""
    path, checked = "", 0
    # The text of a link is the file's own name, such as [`web/login.py`](…).
    text = re.sub(r"\[[^]]*\]\(", "](", text)
    for linked, name in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)|`([A-Za-z_]\w*(?:\.\w+)?)`", text):
        path = linked or path
        if name and path.endswith(".py"):
            assert name in definitions(path), (path, name)
            checked += 1
    assert checked > 25


def test_every_command_exists(text: str) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    commands = re.findall(r"make ([a-z-]+)", text)
    assert {"quick", "lint", "test", "demo"} <= set(commands) <= set(targets)


def test_the_diagram_names_every_layer() -> None:
    picture = ET.parse(ROOT / "docs/images/layers.svg")
    names = {element.text for element in picture.iter("{http://www.w3.org/2000/svg}text")}
    folders = {path.parent.name for path in (ROOT / "flask_devkit_sso").glob("*/__init__.py")}
    assert folders | {"service", "extension", "testing"} <= names


def test_pre_commit_runs_make_lint() -> None:
    # Only part of the development requirements.
    import yaml

    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))
    ((hook,),) = [repo["hooks"] for repo in config["repos"]]
    assert hook["entry"] == "make --silent lint"
    assert hook["language"] == "system"
