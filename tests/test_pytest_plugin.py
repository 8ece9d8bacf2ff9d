"""The pytest fixture for other projects' tests, run in a pytest of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from . import processes

MODULE = """
import sys

import pytest
import requests
from flask import Flask

before = "flask_devkit_sso" in sys.modules
urls = []


def test_nothing_is_imported_before_it_is_used():
    assert not before


def test_first(devkit_sso_sandbox):
    from flask_devkit_sso import DevKitSSO

    app = Flask("app", instance_path=%r)
    app.config.update(
        TESTING=True,
        SECRET_KEY="test",
        DEVKIT_SSO_SERVER_URL=devkit_sso_sandbox.url,
        DEVKIT_SSO_CLIENT_ID=devkit_sso_sandbox.client_id,
        DEVKIT_SSO_CLIENT_SECRET=devkit_sso_sandbox.client_secret,
    )
    DevKitSSO(app)
    assert devkit_sso_sandbox.client_secret not in repr(devkit_sso_sandbox)
    client = app.test_client()

    def sign_in():
        from tests.processes import Person

        person = Person("ada")
        back = person.response_url(client.get("/sso/authorize").location)
        person.close()
        return client.get(back).status_code

    assert devkit_sso_sandbox.calls == []
    devkit_sso_sandbox.fail_next("getUserInfo", "http500")
    assert sign_in() == 502
    assert sign_in() == 303
    seen = [(call["interface"], call["code"]) for call in devkit_sso_sandbox.calls]
    assert seen == [
        ("getToken", "2000"),
        ("getUserInfo", "http500"),
        ("getToken", "2000"),
        ("getUserInfo", "2000"),
    ]
    with pytest.raises(ValueError, match="getToken can fail in these ways: four digits, empty,"):
        devkit_sso_sandbox.fail_next("getToken", "by magic")
    with pytest.raises(ValueError, match="interface must be one of authorize, getToken, "):
        devkit_sso_sandbox.fail_next("gettoken", "8202")
    urls.append(devkit_sso_sandbox.url)


def test_the_next_has_one_of_its_own(devkit_sso_sandbox):
    assert devkit_sso_sandbox.calls == []
    with pytest.raises(requests.ConnectionError):
        requests.get(urls[0], timeout=60)
"""


def test_the_fixture(tmp_path: Path) -> None:
    (tmp_path / "test_inner.py").write_text(MODULE % str(tmp_path / "instance"))
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        env=processes.environment() | {"PYTHONPATH": str(processes.ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "3 passed" in run.stdout
