"""The layers of the package import only lower ones, and the public names are stable."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import flask_devkit_sso

PACKAGE = Path(flask_devkit_sso.__file__).parent

LAYERS = """
errors signals messages bulkhead per_process audit
protocol
users
config
store
session
service
web
extension
cli
testing
""".split()
"""Modules and folders of the package, lowest first: each imports only earlier ones."""


@cache
def modules() -> dict[str, Path]:
    """Return all modules but those of the sandbox, by their dotted names."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts[0] != "sandbox":
            found[".".join(part for part in parts if part != "__init__")] = path
    return found


def imported(name: str, path: Path) -> set[str]:
    """Return the modules of the package that a module imports, by their dotted names."""
    folder = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            assert not any(alias.name.startswith("flask_devkit_sso") for alias in node.names), name
        if isinstance(node, ast.ImportFrom) and node.level:
            base = [part for part in folder if part][: len(folder) - node.level + 1]
            base += node.module.split(".") if node.module else []
            for alias in node.names:
                inner = ".".join([*base, alias.name])
                found.add(inner if inner in modules() else ".".join(base))
    return found


def layer(name: str) -> str:
    return name.partition(".")[0]


def test_each_layer_imports_only_lower_ones() -> None:
    assert {layer(name) for name in modules() if name} == set(LAYERS)
    for name, path in modules().items():
        allowed = LAYERS[: LAYERS.index(layer(name))] if name else LAYERS
        for other in imported(name, path):
            assert layer(other) in allowed or layer(other) == layer(name) != "", (name, other)


def test_there_are_no_import_cycles() -> None:
    left = {name: imported(name, path) - {name} for name, path in modules().items()}
    while free := [name for name, others in left.items() if not others & left.keys()]:
        for name in free:
            del left[name]
    assert left == {}


@pytest.mark.parametrize("name", ["authorization", "contract", "error_codes", "server"])
def test_the_protocol_modules_import_only_the_standard_library(name: str) -> None:
    roots = set()
    for node in ast.walk(ast.parse((PACKAGE / f"protocol/{name}.py").read_text("utf-8"))):
        if isinstance(node, ast.Import):
            roots |= {alias.name.split(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            roots.add(str(node.module).split(".")[0])
    assert roots <= {
        *("__future__", "base64", "collections", "dataclasses", "email", "hashlib", "json", "re"),
        *("typing", "urllib"),
    }


def test_the_sandbox_shares_nothing_with_the_client() -> None:
    for path in (PACKAGE / "sandbox").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                module = node.module or ""
                assert not module.startswith("flask_devkit_sso") or ".sandbox" in module
            if isinstance(node, ast.ImportFrom):
                assert node.level < 2, path
    for name, path in modules().items():
        assert not any(layer(other) == "sandbox" for other in imported(name, path)), name


def test_the_pytest_plugin_imports_the_package_only_on_use() -> None:
    """pytest imports the plugin at each start, in every project of its environment."""
    program = """
import pytest, sys
before = set(sys.modules)
import pytest_devkit_sso
print(*{name.partition(".")[0] for name in set(sys.modules) - before})
"""
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    found = run.stdout.split()
    assert "pytest_devkit_sso" in found
    assert set(found) <= {"pytest_devkit_sso", *sys.stdlib_module_names}


def test_the_public_names() -> None:
    assert set(flask_devkit_sso.__all__) == {
        "ConfigError",
        "DevKitSSO",
        "LoginFailed",
        "LoginRefused",
        "SSOError",
        "ServerError",
        "ServerUnavailable",
        "StoreUnavailable",
        "current_user",
        "logged_out",
        "login_failed",
        "login_required",
        "login_succeeded",
        "passive",
        "public",
        "role_required",
        "session_ended",
        "token_refreshed",
        "user_changed",
    }
    sso = flask_devkit_sso.DevKitSSO()
    for name in (
        "init_app protect on_login account_loader login_url logout_url end_sessions access_token "
        "authorize_blueprint callback_blueprint"
    ).split():
        assert hasattr(sso, name), name
    signals = importlib.import_module("flask_devkit_sso.signals")
    for name in (
        "login_succeeded",
        "login_failed",
        "logged_out",
        "token_refreshed",
        "user_changed",
    ):
        assert getattr(signals, name) is getattr(flask_devkit_sso, name)
    testing = importlib.import_module("flask_devkit_sso.testing")
    assert callable(testing.login_as)
    assert callable(testing.logout)


def test_the_exception_hierarchy() -> None:
    for name in """ConfigError LoginFailed LoginRefused ServerError ServerUnavailable
            StoreUnavailable""".split():
        assert issubclass(getattr(flask_devkit_sso, name), flask_devkit_sso.SSOError)
    assert flask_devkit_sso.ServerError("x").code == 502
    assert flask_devkit_sso.ServerUnavailable("x").code == 503
    errors = importlib.import_module("flask_devkit_sso.errors")
    assert " ".join(errors.REASONS) == (
        "login_expired login_unknown cookie_missing state_missing state_mismatch code_missing "
        "denied authorize_error server_rejected server_unavailable server_answer_invalid refused "
        "cross_site not_configured store_unavailable"
    )


def test_the_catalogues_have_the_same_texts() -> None:
    folder = PACKAGE / "templates/devkit_sso/messages"
    assert {path.name for path in folder.iterdir()} == {"en.toml", "zh.toml"}
    reasons = importlib.import_module("flask_devkit_sso.errors").REASONS
    english, chinese = (
        tomllib.loads((folder / name).read_text("utf-8")) for name in ("en.toml", "zh.toml")
    )
    assert shape(english) == shape(chinese)
    assert list(english["failure"]) == list(chinese["failure"]) == list(reasons)
    for texts in (*english["failure"].values(), *chinese["failure"].values()):
        assert list(texts) == ["title", "message", "advice"]
        assert all(texts.values())
    for texts in (english, chinese):
        titles = [text["title"] for text in texts["failure"].values()]
        assert len(set(titles)) == len(titles)


def shape(texts: Any) -> Any:
    """Return the names of all texts and their placeholders."""
    if isinstance(texts, dict):
        return {name: shape(inner) for name, inner in texts.items()}
    return sorted(re.findall(r"\{(\w+)\}", texts))


@pytest.mark.checkout
def test_every_reason_is_documented() -> None:
    reasons = importlib.import_module("flask_devkit_sso.errors").REASONS
    documented = (PACKAGE.parent / "docs/failures.md").read_text("utf-8")
    _, *sections = re.split(r"^## ", documented, flags=re.MULTILINE)
    described = {name: text for name, _, text in (part.partition("\n") for part in sections)}
    assert [name for name in described if name in reasons] == list(reasons)
    for name in reasons:
        for part in ("**What it means.**", "**How to fix it.**"):
            assert part in described[name], name


def test_the_routes(app: flask_devkit_sso.DevKitSSO) -> None:
    rules = {
        (rule.rule, rule.endpoint)
        for rule in app.url_map.iter_rules()  # type: ignore[attr-defined]
        if rule.endpoint.startswith("devkit_sso_") and "static" not in rule.endpoint
    }
    assert rules == {
        ("/sso/authorize", "devkit_sso_authorize.login"),
        ("/sso/logout", "devkit_sso_authorize.logout"),
        ("/sso/me", "devkit_sso_authorize.me"),
        ("/sso/verify", "devkit_sso_authorize.verify"),
        ("/sso/signed-out", "devkit_sso_authorize.signed_out"),
        ("/sso/callback", "devkit_sso_callback.callback"),
        ("/sso/confirm", "devkit_sso_callback.confirm"),
        ("/sso/landing.js", "devkit_sso_callback.landing_js"),
        ("/sso/onward", "devkit_sso_callback.onward"),
    }
