"""Applications that the commands load although they are incomplete."""

from __future__ import annotations

import re
import tomllib

import pytest

from .place import CANARY, WRITTEN, Place

# Applications that fail to load, and what is printed about it.
BROKEN = {
    "none": ("", "Failed to find Flask application"),
    "import": ("import no_such_module_at_all", "ModuleNotFoundError (no_such_module_at_all) in"),
    "name": (f"from flask import no_such_name  # {CANARY}", "ImportError (flask) in"),
    "syntax": (f"x = '{CANARY}", "SyntaxError in"),
    "raises": (f"raise RuntimeError('{CANARY}')", "RuntimeError in"),
    "variable": ("import os; os.environ['NO_SUCH_VARIABLE']", "KeyError in"),
    "exits": (f"import sys; sys.exit('{CANARY}')", "SystemExit in"),
    "argument": ("def create_app(x): ...", "Detected factory 'create_app' in module"),
    "factory raises": (f"def create_app(): 1/0  # {CANARY}", "ZeroDivisionError in"),
    "two": ("from flask import Flask\na, b = Flask('a'), Flask('b')", "Detected multiple Flask"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BROKEN)
def test_an_application_that_fails_to_load(place: Place, name: str) -> None:
    source, text = BROKEN[name]
    place.app(source)
    done = place.run("show", FLASK_DEVKIT_SSO_TIMEOUT="0")
    assert done.returncode == 1
    assert f"The application could not be loaded: {text}" in done.stderr
    assert text[-3:] != " in" or f"in {place.folder}/app.py, line 1" in done.stderr
    assert "DEVKIT_SSO_TIMEOUT must be greater than zero" in done.stdout

    done = place.register("--file", "new/secrets.toml")
    assert done.returncode == 0, done.stderr
    assert tomllib.loads((place.folder / "new" / "secrets.toml").read_text()) == WRITTEN
    assert f"set DEVKIT_SSO_CREDENTIALS_FILE to {place.folder}/new/secrets.toml" in done.stdout


def test_help_needs_no_application(place: Place) -> None:
    place.app("1 / 0")
    done = place.run("--help")
    assert done.returncode == 0
    names = re.findall(r"^  ([a-z][a-z-]+) ", done.stdout, re.MULTILINE)
    assert names == ["check-server", "doctor", "register", "sessions", "show"]


def test_without_any_application(place: Place) -> None:
    (place.folder / "app.py").unlink()
    done = place.run("show")
    assert done.returncode == 1
    assert "Could not locate a Flask application" in done.stderr
    done = place.register()
    assert done.returncode == 2
    assert "name the file to write with --file PATH" in done.stderr
    done = place.register(FLASK_DEVKIT_SSO_CREDENTIALS_FILE=str(place.file))
    assert done.returncode == 0, done.stderr
    assert place.written == WRITTEN


@pytest.mark.parametrize("command", ["show", "doctor"])
def test_a_view_with_its_guard_above_the_route(place: Place, command: str) -> None:
    place.app("""
from flask import Flask
from flask_devkit_sso import DevKitSSO, login_required
app = Flask(__name__)
DevKitSSO(app)
@login_required
@app.get("/")
def home():
    return "open"
""")
    done = place.run(command)
    assert done.returncode == 1
    assert "app.home (endpoint home)" in done.stdout
    assert "Fix: Write @login_required and @role_required directly below" in done.stdout


# Applications for which init_app would raise, and others that fail afterwards.
HALF = {
    "setting": ("app.config['DEVKIT_SSO_TIMEOUT'] = '5'", "", "DEVKIT_SSO_TIMEOUT must be a n"),
    "key": ("app.config['SECRET_KEY'] = 5", "", "SECRET_KEY and SECRET_KEY_FALLBACKS must be"),
    "later": ("", "raise RuntimeError(app.config['CANARY'])", "RuntimeError in"),
    "later exit": ("", "raise SystemExit(app.config['CANARY'])", "SystemExit in"),
    "twice": ("", "DevKitSSO(app)", "call init_app only once"),
}


@pytest.mark.parametrize("name", HALF)
def test_an_application_that_fails_in_or_after_init_app(place: Place, name: str) -> None:
    before, after, text = HALF[name]
    place.app(f"""
from flask import Flask
from flask_devkit_sso import DevKitSSO
def create_app():
    app = Flask(__name__)
    app.config["CANARY"] = "{CANARY}"
    {before}
    DevKitSSO(app)
    {after}
    return app
""")
    done = place.run("show")
    assert done.returncode == 1
    assert text in done.stdout + done.stderr
    assert ("SECRET_KEY is missing" in done.stdout) is (name != "key"), "it is wrong, not missing"
    assert "DEVKIT_SSO_CLIENT_ID is missing" in done.stdout
    done = place.register()
    assert done.returncode == 0, done.stderr
    assert place.written == WRITTEN, "where the application's instance folder is"


def test_an_application_without_the_extension(place: Place) -> None:
    place.app("from flask import Flask\napp = Flask(__name__)")
    done = place.run("show")
    assert done.returncode == 1
    assert "call DevKitSSO().init_app(app)" in done.stdout
    assert place.register().returncode == 0
    assert place.written == WRITTEN
