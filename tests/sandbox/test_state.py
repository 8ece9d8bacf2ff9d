"""``--state``: what the sandbox keeps between its starts, and what it refuses to use."""

from __future__ import annotations

import datetime
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import requests
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from .. import forked
from ..processes import Person, sandbox, unprivileged
from .client import CLIENT_SECRET, Client

COMMAND = ["-m", "flask_devkit_sso.sandbox", "--port", "0"]
FILES = ["ca.pem", "server.pem", "state.json"]


STARTS = """
import contextlib, io, json, sys
from flask_devkit_sso.sandbox.__main__ import main

ended = []
for arguments in json.load(sys.stdin):
    with contextlib.redirect_stderr(io.StringIO()) as errors:
        try:
            status = main(["--port", "0", *arguments])
        except SystemExit as end:
            status = end.code
    ended.append((status, errors.getvalue()))
json.dump(ended, sys.stdout)
"""


def starts(*commands: list[str]) -> list[tuple[int, str]]:
    """Start sandboxes that refuse to run, in one process; return their statuses and errors."""
    ended = forked.run(["-c", STARTS], stdin=json.dumps(commands).encode())
    assert ended.stderr == ""
    return [(status, errors) for status, errors in json.loads(ended.stdout)]


def content(folder: Path) -> dict[str, Any]:
    """Return what is in a folder, without following links."""
    return {
        path.name: path.read_bytes() if path.is_file() and not path.is_symlink() else None
        for path in folder.iterdir()
    }


def post(url: str, body: Mapping[str, object], ca_bundle: str) -> requests.Response:
    return requests.post(f"{url}/_sandbox/people", json=body, verify=ca_bundle, timeout=60)


def test_it_keeps_certificate_secret_and_people(tmp_path: Path) -> None:
    folder, log = tmp_path / "状态", tmp_path / "log"
    with sandbox("--state", str(folder), "--tls", log=log) as first:
        assert first["CA_BUNDLE"] == f"{folder}/ca.pem"
        assert log.read_text("utf-8").startswith(f"Created a new CA: {folder}/ca.pem\n")
        for body in ({"username": "bob", "disabled": True}, {"username": "zoë", "role": "Admin"}):
            answer = post(first["SERVER_URL"], body, first["CA_BUNDLE"])
            assert answer.status_code == 200
        secret = {"username": "ada", "password": "canary-password"}
        answer = post(first["SERVER_URL"], secret, first["CA_BUNDLE"])
        assert sorted(answer.json()) == ["disabled", "role", "uid", "username"]
        kept = content(folder)
    assert sorted(kept) == FILES
    assert folder.stat().st_mode & 0o7777 == 0o700
    assert {path.stat().st_mode & 0o7777 for path in folder.iterdir()} == {0o600}
    assert not [name for name, text in kept.items() if b"canary-password" in text]

    # Nobody can issue another certificate for this CA.
    assert sum(text.count(b"PRIVATE KEY-----\n") for text in kept.values()) == 2
    own, authority = x509.load_pem_x509_certificates(kept["server.pem"])
    key = load_pem_private_key(kept["server.pem"], None)
    assert key.public_key() == own.public_key() != authority.public_key()

    with sandbox("--state", f"{folder}/", "--tls", log=log) as second:
        for name in ("CA_BUNDLE", "CLIENT_ID", "CLIENT_SECRET", "REDIRECT_URI"):
            assert second[name] == first[name]
        assert "Created" not in log.read_text("utf-8")
        assert "bob (disabled), " in second["text"]
        assert "zoë (Admin); or type any name" in second["text"]
        person = Person("zoë", ca_bundle=second["CA_BUNDLE"])
        client = Client(second["SERVER_URL"], second["CLIENT_SECRET"])
        client.browser.close()
        client.browser = person.browser
        body = client.token_request(client.code("zoë"))
        answer = person.browser.post(
            client.url + "/sso/oauth2/getToken", json=body, verify=second["CA_BUNDLE"], timeout=60
        )
        assert answer.json()["code"] == "2000"
        client.browser.cookies.clear()
        assert client.submit(client.authorize(), username="ada", password="x").status_code == 403
        person.close()
        assert content(folder) == kept


def test_a_secret_given_replaces_the_kept_one(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    with sandbox("--state", str(folder)) as exported:
        assert exported["CLIENT_SECRET"] != CLIENT_SECRET
    with sandbox("--state", str(folder), "--client-secret", CLIENT_SECRET) as exported:
        assert exported["CLIENT_SECRET"] == CLIENT_SECRET
        assert sorted(content(folder)) == ["state.json"]
    with sandbox("--state", str(folder)) as exported:
        assert exported["CLIENT_SECRET"] == CLIENT_SECRET


def test_wrong_options_leave_nothing_behind(tmp_path: Path) -> None:
    folder = str(tmp_path / "state")
    wrong = [["--state", folder, "--token-lifetime", "0"], ["--state", folder, "--client-secret="]]
    wrong += [["--state", name] for name in ("", "a\nb", "a\x1b[31mb")]
    for status, errors in starts(*wrong):
        assert status == 2
        assert "\x1b" not in errors
    assert not Path(folder).exists()


# What is refused


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared") / "state"
    with sandbox("--state", str(folder), "--tls"):
        pass
    return folder


@pytest.fixture
def folder(prepared: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(prepared, tmp_path / "state"))


def change(folder: Path, **values: object) -> None:
    path = folder / "state.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | values))


def replace_by_link(folder: Path, name: str, symbolic: bool = True) -> None:
    elsewhere = folder.parent / "elsewhere"
    (folder / name).rename(elsewhere)
    if symbolic:
        (folder / name).symlink_to(elsewhere)
    else:
        (folder / name).hardlink_to(elsewhere)


def replace_by_fifo(folder: Path) -> None:
    (folder / "state.json").unlink()
    os.mkfifo(folder / "state.json", 0o600)


def truncate(folder: Path, name: str) -> None:
    os.truncate(folder / name, (folder / name).stat().st_size // 2)


def issue(folder: Path, *names: str, days: int = 1) -> None:
    """Replace the certificate by another one with the given names and remaining days."""
    authority = trustme.CA()
    until = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)
    issued = authority.issue_cert(*names, not_after=until)
    ca_pem = authority.cert_pem.bytes()
    (folder / "server.pem").write_bytes(issued.private_key_and_cert_chain_pem.bytes() + ca_pem)
    (folder / "ca.pem").write_bytes(ca_pem)


def another_key(folder: Path) -> None:
    path = folder / "server.pem"
    other = trustme.CA().issue_cert("localhost").private_key_pem.bytes()
    _, mark, certificates = path.read_bytes().partition(b"-----BEGIN CERTIFICATE")
    path.write_bytes(other + mark + certificates)


def another_ca(folder: Path) -> None:
    (folder / "ca.pem").write_bytes(trustme.CA().cert_pem.bytes())


PERSON = {"username": "x", "role": "User", "uid": "1", "disabled": False, "password_hash": None}

BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "a link": (lambda f: replace_by_link(f, "state.json"), "state.json is a symbolic link"),
    "a linked key": (lambda f: replace_by_link(f, "server.pem"), "server.pem is a symbolic link"),
    "a second name": (
        lambda f: replace_by_link(f, "state.json", symbolic=False),
        "state.json is not a regular file, or has a second name",
    ),
    "a fifo": (replace_by_fifo, "state.json is not a regular file"),
    "readable": (lambda f: (f / "state.json").chmod(0o640), "Run `chmod 600` on it"),
    "a readable key": (lambda f: (f / "server.pem").chmod(0o604), "have access to .*/server.pem"),
    "a readable folder": (lambda f: f.chmod(0o750), "Run `chmod 700` on it"),
    "truncated": (lambda f: truncate(f, "state.json"), "state.json is damaged"),
    "empty": (lambda f: os.truncate(f / "state.json", 0), "state.json is damaged"),
    "no object": (lambda f: (f / "state.json").write_text("[]"), "state.json is damaged"),
    "no secret": (lambda f: change(f, client_secret=""), "state.json is damaged"),
    "no people": (lambda f: change(f, people=None), "state.json is damaged"),
    "half a person": (lambda f: change(f, people=[{"username": "x"}]), "state.json is damaged"),
    "an odd person": (
        lambda f: change(f, people=[PERSON | {"password_hash": "x"}]),
        "state.json is damaged",
    ),
    "a person twice": (lambda f: change(f, people=[PERSON, PERSON]), "state.json is damaged"),
    "another version": (
        lambda f: change(f, version=2),
        "another version of this package, in format 2 instead of 1",
    ),
    "no state": (lambda f: (f / "state.json").unlink(), "it has files, but no state.json"),
    "no certificate": (lambda f: (f / "server.pem").unlink(), "server.pem is missing"),
    "half a certificate": (lambda f: truncate(f, "server.pem"), "server.pem is damaged"),
    "another key": (another_key, "server.pem is damaged"),
    "another CA": (another_ca, "ca.pem is not the CA of server.pem"),
    "expired": (
        lambda f: issue(f, "localhost", days=-1),
        r"a certificate that expired on \d{4}-",
    ),
    "another name": (
        lambda f: issue(f, "localhost", "::1"),
        "that does not name 127.0.0.1, only ::1, localhost",
    ),
}


Starts = dict[str, tuple[Path, dict[str, Any], tuple[int, str]]]


@pytest.fixture(scope="module")
def broken(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Starts:
    """Return for each fault a folder, its content, and how a start ended."""
    folders = {}
    for fault, (break_it, _) in BROKEN.items():
        folders[fault] = tmp_path_factory.mktemp("broken") / "state"
        shutil.copytree(prepared, folders[fault])
        break_it(folders[fault])
    before = [content(folder) for folder in folders.values()]
    ended = starts(*(["--tls", "--state", str(folder)] for folder in folders.values()))
    return dict(zip(folders, zip(folders.values(), before, ended, strict=True), strict=True))


@pytest.mark.parametrize("fault", BROKEN)
def test_broken_state_is_an_error_and_left_alone(broken: Starts, fault: str) -> None:
    folder, before, (status, errors) = broken[fault]
    assert status == 1
    assert errors.startswith(f"The sandbox cannot keep its state in {folder}: ")
    assert errors.count("\n") == 1
    assert re.search(BROKEN[fault][1], errors), errors
    assert content(folder) == before


def test_a_host_that_the_certificate_does_not_name(folder: Path) -> None:
    before = content(folder)
    ((status, errors),) = starts(["--state", str(folder), "--tls", "--host", "127.0.0.2"])
    assert status == 1
    assert "does not name 127.0.0.2, only 127.0.0.1, ::1, localhost. Name another" in errors
    assert content(folder) == before
    with sandbox("--state", str(folder), "--host", "127.0.0.2") as exported:
        assert exported["SERVER_URL"].startswith("http://127.0.0.2:")


def test_deleting_both_files_creates_a_new_ca_and_says_so(folder: Path) -> None:
    before = content(folder)
    for name in ("ca.pem", "server.pem"):
        (folder / name).unlink()
    log = folder.parent / "log"
    with sandbox("--state", str(folder), "--tls", log=log) as exported:
        assert f"Created a new CA: {folder}/ca.pem" in log.read_text("utf-8")
        assert exported["CLIENT_SECRET"] == json.loads(before["state.json"])["client_secret"]
    after = content(folder)
    assert sorted(after) == FILES
    assert after["ca.pem"] != before["ca.pem"]


def test_folders_that_are_refused(tmp_path: Path) -> None:
    elsewhere, files = tmp_path / "elsewhere", tmp_path / "files"
    for folder in (elsewhere, files):
        folder.mkdir(0o700)
    (tmp_path / "link").symlink_to(elsewhere)
    (tmp_path / "file").touch()
    (files / "letter.txt").touch()
    paths = [f"{tmp_path}/{path}" for path in ("link", "link/", "file", "missing/state", "files")]
    for status, errors in starts(*(["--state", path] for path in paths)):
        assert status == 1
        assert errors.startswith(f"The sandbox cannot keep its state in {tmp_path}/")
    assert not list(elsewhere.iterdir())
    assert len(list(files.iterdir())) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_files_of_another_user(folder: Path) -> None:
    for name in ("state.json", "server.pem", ""):
        os.chown(folder / name, 1, -1)
        ((status, errors),) = starts(["--state", str(folder), "--tls"])
        assert status == 1
        assert f"{folder / name} belongs to another user" in errors
        os.chown(folder / name, 0, -1)


def test_a_folder_that_cannot_be_written(folder: Path) -> None:
    folder.chmod(0o500)
    command = [*unprivileged(), sys.executable, *COMMAND, "--state", str(folder)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    folder.chmod(0o700)
    assert ended.returncode == 1
    assert "state.json cannot be read or written (Permission denied)" in ended.stderr


def test_only_one_sandbox_uses_a_folder(folder: Path) -> None:
    with sandbox("--state", str(folder)):
        ((status, errors),) = starts(["--state", str(folder)])
        assert status == 1
        assert "another sandbox is using it" in errors
    with sandbox("--state", str(folder)):
        pass


# Interruptions

DIES = """
import os, signal, sys
calls, number, dies_before = [], int(sys.argv.pop(1)), sys.argv.pop(1) == "before"
replace = os.replace

def replace_or_die(*arguments, **options):
    calls.append(arguments)
    is_last = len(calls) == number
    if is_last and dies_before:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(*arguments, **options)
    if is_last:
        os.kill(os.getpid(), signal.SIGKILL)

os.replace = replace_or_die
from flask_devkit_sso.sandbox.__main__ import main
main(sys.argv[1:])
"""


@pytest.mark.parametrize(
    ("number", "when"), [(1, "before"), (1, "after"), (2, "before"), (2, "after"), (3, "before")]
)
def test_a_kill_while_the_state_is_written(tmp_path: Path, number: int, when: str) -> None:
    folder = tmp_path / "state"
    arguments = ["--port", "0", "--state", str(folder), "--tls"]
    ended = forked.run(["-c", DIES, str(number), when, *arguments])
    assert ended.returncode == -signal.SIGKILL
    before = content(folder)
    with sandbox("--state", str(folder), "--tls") as exported:
        url = exported["SERVER_URL"]
        assert requests.get(url, verify=exported["CA_BUNDLE"], timeout=60).status_code == 200
        after = content(folder)
    assert sorted(after) == FILES
    # What had been written completely is what the next start uses.
    assert {name: after[name] for name in before if name in FILES} == {
        name: text for name, text in before.items() if name in FILES
    }


def test_people_who_cannot_be_saved_do_not_change(folder: Path) -> None:
    with sandbox("--state", str(folder)) as exported:
        client = Client(exported["SERVER_URL"], exported["CLIENT_SECRET"])
        shutil.rmtree(folder)
        answer = client.post("/_sandbox/people", {"username": "ada", "role": "User"})
        assert answer.status_code == 500
        assert "state.json cannot be read or written" in answer.json()["error"]
        assert client.user(client.tokens("ada"))["data"]["role"] == "Admin"
        client.browser.close()
