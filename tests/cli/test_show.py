"""``flask devkit-sso show``."""

from __future__ import annotations

import re

from .place import CANARY, KEY, Place


def test_after_register(place: Place) -> None:
    place.register()
    done = place.run("show", **KEY)
    assert done.returncode == 0, done.stdout
    table, _, last = done.stdout.partition("\n\n")
    assert last == "No problems found.\n"
    rows = {line.split()[0]: line.split(maxsplit=1)[1] for line in table.splitlines()}
    assert rows["DEVKIT_SSO_CLIENT_ID"] == "credentials file   20221017000000001"
    assert rows["DEVKIT_SSO_CLIENT_SECRET"] == "credentials file   (set, not shown)"
    assert rows["DEVKIT_SSO_TOKEN_URL"].split() == [
        "server",
        "URL",
        "https://auth.example.com/auth/sso/oauth2/getToken",
    ]
    assert rows["DEVKIT_SSO_CREDENTIALS_FILE"].split() == ["default", str(place.file)]
    assert rows["DEVKIT_SSO_IDLE_TIMEOUT"].split() == ["default", "1800"]
    assert rows["SECRET_KEY"].split(maxsplit=1) == ["app.config", "(set, not shown)"]
    assert KEY["FLASK_SECRET_KEY"] not in done.stdout
    assert len(rows) == 33


def test_invalid_and_missing_settings(place: Place) -> None:
    done = place.run("show", FLASK_DEVKIT_SSO_TIMEOUT="0", FLASK_DEVKIT_SSO_CLIENT_IDD="x")
    assert done.returncode == 1
    for text in (
        "DEVKIT_SSO_TIMEOUT must be greater than zero",
        "did you mean DEVKIT_SSO_CLIENT_ID?",
        "DEVKIT_SSO_CLIENT_SECRET is missing",
        "DEVKIT_SSO_REDIRECT_URI is missing",
        "host works without it\n    Fix: Run `flask devkit-sso register`, which writes ",
        "SECRET_KEY is missing\n    Fix: Create one with python -c ",
    ):
        assert text in done.stdout
    assert re.search(r"^SECRET_KEY +default +-$", done.stdout, re.MULTILINE)
    assert "No problems" not in done.stdout
    assert done.stderr == "", "init_app leaves it to the command to print them"


def test_on_a_development_machine(place: Place) -> None:
    """With debug, neither a missing redirect_uri nor a weak key is a problem."""
    place.old_file('client_id = "x"\nclient_secret = "y"\nserver_url = "https://a.example"\n')
    weak = {"FLASK_SECRET_KEY": "dev"}
    done = place.run("show", FLASK_DEBUG="1", **weak)
    assert done.returncode == 0
    assert done.stdout.endswith("\nNo problems found.\n")
    done = place.run("show", **weak)
    assert done.returncode == 1
    assert re.search(r"^SECRET_KEY .* \(set, not shown, but weak\)$", done.stdout, re.MULTILINE)
    assert "SECRET_KEY, or one of SECRET_KEY_FALLBACKS, is shorter than 16 bytes" in done.stdout


def test_a_password_in_a_url_is_masked(place: Place) -> None:
    url = f"redis://user:{CANARY}@host:6379/0?password={CANARY}"
    done = place.run("show", FLASK_DEVKIT_SSO_STORE_URL=url)
    assert "redis://***@host:6379/0?***" in done.stdout


def test_a_readable_file_is_only_a_warning(place: Place) -> None:
    place.register()
    place.file.chmod(0o644)
    done = place.run("show", **KEY)
    assert done.returncode == 0
    assert "every user of this machine can read it" in done.stdout
    assert "No problems" not in done.stdout
