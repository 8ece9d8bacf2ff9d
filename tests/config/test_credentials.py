"""The credentials file: everything that can be wrong with it, and what a valid one does."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from flask_devkit_sso import ConfigError, DevKitSSO

from ..conftest import SECRET_KEY, reason, sign_in, start
from ..processes import unprivileged
from ..scripted import ScriptedServer

CANARY = "canary-in-the-file-77c1"
GOOD = f"""\
client_id = "20221017000000001"
client_secret = "{CANARY}"
server_url = "https://auth.example.com"
redirect_uri = "https://app.example.com/#/login"
"""
FIX = "`flask devkit-sso register`"

Maker = Callable[..., Flask]


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    before = os.umask(0o077)
    yield
    os.umask(before)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The path of the credentials file."""
    return tmp_path / "devkit_sso.toml"


@pytest.fixture
def make(tmp_path: Path) -> Maker:
    def make(**settings: Any) -> Flask:
        app = Flask("tests", instance_path=str(tmp_path))
        app.config["SECRET_KEY"] = SECRET_KEY
        app.config.update({f"DEVKIT_SSO_{name.upper()}": v for name, v in settings.items()})
        DevKitSSO(app)
        return app

    return make


def refused(make: Maker, **settings: Any) -> str:
    """Return the message of the ConfigError, which must not contain values of the file."""
    with pytest.raises(ConfigError) as error:
        make(**settings)
    shown = f"{error.value} {error.value!r} {error.value.__cause__!r} {error.value.__context__!r}"
    assert CANARY not in shown
    return str(error.value)


CONTENTS: dict[str, tuple[str | bytes, str]] = {
    "no quotes": (f"client_id = 1\nclient_secret = {CANARY}\n", " is not valid TOML"),
    "no value": (f'client_secret = "{CANARY}"\nclient_id = \n', " is not valid TOML"),
    "open quote": (f'client_secret = "{CANARY}\n', " is not valid TOML"),
    "open quotes": (f'client_secret = """{CANARY}\n', " is not valid TOML"),
    "the same twice": (f'client_id = "{CANARY}"\nclient_id = "{CANARY}"\n', " is not valid TOML"),
    "table twice": (f"[{CANARY}]\n[{CANARY}]\n", " is not valid TOML"),
    "bad escape": (f'client_secret = "{CANARY}\\q"\n', " is not valid TOML"),
    "leading zeros": (f'client_id = 00123\nclient_secret = "{CANARY}"\n', " is not valid TOML"),
    "NUL": (f'client_secret = "{CANARY}\0"\n', " is not valid TOML"),
    "JSON": (f'{{"client_secret": "{CANARY}"}}', " is not valid TOML"),
    "env file": (f"export CLIENT_SECRET={CANARY}\n", " is not valid TOML"),
    "lone CR": (f'client_secret = "{CANARY}"\rclient_id = "x"\r', " is not valid TOML"),
    "nested": (f"# {CANARY}\nclient_id = {'[' * 4_000}\n", " is not valid TOML"),
    "huge int": (f"# {CANARY}\nclient_id = {'1' * 4_080}\n", ": client_id has more"),
    "huge hex int": (f"# {CANARY}\nclient_id = 0x{'f' * 4_080}\n", ": client_id has more"),
    "float": (f'client_secret = "{CANARY}"\nclient_id = 1.5\n', ": client_id must be a s"),
    "bool": (f'client_secret = "{CANARY}"\nclient_id = true\n', ": client_id must be a s"),
    "date": (f"client_id = 2022-10-17\n# {CANARY}\n", "client_id must be a string, not date"),
    "list": (f'client_secret = ["{CANARY}"]\n', ": client_secret must be a string, not l"),
    "table": (f'[client_secret]\nx = "{CANARY}"\n', ": client_secret must be a string, n"),
    "dotted": (f'client_secret.x = "{CANARY}"\n', ": client_secret must be a string, not"),
    "own table": (
        f'[devkit_sso]\nclient_secret = "{CANARY}"\n',
        " has an unknown key: did you mean",
    ),
    "misspelt": (f'\nclient_secrt = "{CANARY}"\n', " has an unknown key: did you mean"),
    "nearest": (f'client-secret = "{CANARY}"\n', "did you mean client_secret?"),
    "of app.config": (f'DEVKIT_SSO_TOKEN_URL = "{CANARY}"\n', "did you mean token_url?"),
    "secret as key": (f'{CANARY} = "client_secret"\n', " has an unknown key: did you mean"),
    "another setting": (f'binding = "{CANARY}"\n', " has an unknown key: did you mean"),
    "many keys": ("".join(f"{CANARY}{i} = 1\n" for i in range(2_000)), " has an unknown key: did"),
    "long line": (f"# {CANARY}\n{'a.' * 32_000}a = 1\n", " has a line of more than 4096"),
    "many dots": (f"# {CANARY}\n" + f"{'a.' * 2_000}a = 1\n" * 16, " is not valid TOML"),
    "many tables": (f"# {CANARY}\n" + "[[a.b]]\n" * 8_000, " has an unknown key: did you mean"),
    "space": (f'client_secret = "{CANARY} "\n', ": client_secret begins or ends with a space"),
    "line break": (
        f'client_secret = "{CANARY}\\n"\n',
        ": client_secret begins or ends with a space",
    ),
    "no URL": (f'server_url = "{CANARY}"\n', ": server_url must be an absolute URL"),
    "user in URL": (
        f'server_url = "https://x:{CANARY}@a.example"\n',
        "must not contain a user name",
    ),
    "http": (f'server_url = "http://{CANARY}.example"\n', ": server_url is plain http"),
    "latin-1": (f'#\nclient_secret = "{CANARY}\xe9"\n'.encode("latin-1"), " is not UTF-8"),
    "UTF-16": (f'client_secret = "{CANARY}"\n'.encode("utf-16"), " is not UTF-8"),
    "binary": (bytes(range(256)) + CANARY.encode(), " is not UTF-8"),
    "64 KiB and 1": (GOOD.encode().ljust(64 * 1024 + 1, b"#"), " is larger than 64 KiB"),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_invalid_content(make: Maker, file: Path, name: str) -> None:
    content, text = CONTENTS[name]
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    begun = time.monotonic()
    message = refused(make)
    assert time.monotonic() - begun < 30
    assert text in message
    assert all(str(file) in line and FIX in line for line in message.splitlines())


def fifo(path: Path) -> None:
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.mkdir()
    (path / "client_secret").write_text(CANARY)


def link(target: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target)


def mode(bits: int) -> Callable[[Path], None]:
    def make_file(path: Path) -> None:
        path.write_text(GOOD)
        path.chmod(bits)

    return make_file


def behind_a_link(bits: int) -> Callable[[Path], None]:
    def make_file(path: Path) -> None:
        mode(bits)(path.with_name("target"))
        path.symlink_to("target")

    return make_file


THINGS: dict[str, tuple[Callable[[Path], None], str]] = {
    "FIFO": (fifo, " is not a regular file"),
    "endless device": (link("/dev/zero"), " is not a regular file"),
    "empty device": (link("/dev/null"), " is not a regular file"),
    "terminal": (link("/dev/ptmx"), " is not a regular file"),
    "folder": (folder, " is not a regular file"),
    "link to a folder": (link("/"), " is not a regular file"),
    "loop of links": (link("devkit_sso.toml"), " cannot be read (Too many levels of symbolic"),
    "dangling link": (link("nowhere"), " is a link to a file that does not exist"),
    "link through a file": (link("/etc/passwd/x"), " is a link to a file that does not exist"),
    "writable by the group": (mode(0o620), " can be written by other users"),
    "writable by others": (mode(0o602), " can be written by other users"),
    "link to a writable one": (behind_a_link(0o660), " can be written by other users"),
}


@pytest.mark.parametrize("name", THINGS)
def test_anything_but_a_regular_private_file(make: Maker, file: Path, name: str) -> None:
    make_thing, text = THINGS[name]
    make_thing(file)
    open_files = Path("/proc/self/fd")
    before = len(list(open_files.iterdir()))
    message = refused(make)
    assert len(list(open_files.iterdir())) == before
    assert f"{file}{text}" in message
    assert FIX in message


def test_a_socket(make: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the address of a socket must be short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("devkit_sso.toml")
        assert "cannot be read" in refused(make)


UNPRIVILEGED = """
import sys
from flask import Flask
from flask_devkit_sso import ConfigError, DevKitSSO
try:
    DevKitSSO(Flask("tests", instance_path=sys.argv[1]))
except ConfigError as error:
    print(error)
"""


@pytest.mark.parametrize("unreadable", ["file", "folder"])
def test_without_permission_to_read_it(file: Path, unreadable: str) -> None:
    file.write_text(GOOD)
    (file if unreadable == "file" else file.parent).chmod(0)
    command = [*unprivileged(), sys.executable, "-c", UNPRIVILEGED, str(file.parent)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    finally:
        file.parent.chmod(0o700)
    assert f"{file} cannot be read (Permission denied)" in done.stdout
    assert FIX in done.stdout
    assert CANARY not in done.stdout + done.stderr


def test_a_file_named_in_the_settings_must_exist(make: Maker, tmp_path: Path) -> None:
    message = refused(make, credentials_file="elsewhere.toml")
    assert f"{tmp_path}/elsewhere.toml does not exist" in message
    assert FIX in message
    assert f"{tmp_path}/no/x.toml does not exist" in refused(make, credentials_file="no/x.toml")
    assert "CREDENTIALS_FILE must be a string, not float" in refused(make, credentials_file=1.5)
    assert "cannot be read (File name too long)" in refused(make, credentials_file="x" * 300)


def test_all_errors_are_reported_at_once(make: Maker, file: Path) -> None:
    file.write_text("client_id = 1.5\nsecret = 1\n")
    assert len(refused(make, timeout=0).splitlines()) == 3


RIGHT = {
    "plain": GOOD.encode(),
    "CRLF": GOOD.replace("\n", "\r\n").encode(),
    "byte order mark": b"\xef\xbb\xbf" + GOOD.encode(),
    "digits": GOOD.replace('"20221017000000001"', "20221017000000001").encode(),
    "comments": b"# Ask Ada.\n\n" + GOOD.replace("\n", "  # x\n").encode(),
    "64 KiB": GOOD.encode().ljust(64 * 1024, b"\n"),
}


@pytest.mark.parametrize("name", RIGHT)
def test_valid_content(make: Maker, file: Path, name: str) -> None:
    file.write_bytes(RIGHT[name])
    sent = start(make().test_client())
    assert sent["client_id"] == "20221017000000001"
    assert sent["redirect_uri"] == "https://app.example.com/#/login"


def test_without_a_file_the_applications_config_applies(make: Maker, tmp_path: Path) -> None:
    sent = start(
        make(
            client_id="x",
            client_secret="y",
            server_url="https://auth.example.com",
            redirect_uri="https://app.example.com/",
        ).test_client()
    )
    assert sent["client_id"] == "x"
    assert list(tmp_path.iterdir()) == []


def test_a_named_file_below_the_instance_folder_or_anywhere(make: Maker, tmp_path: Path) -> None:
    path = tmp_path / "other.toml"
    path.write_text(GOOD)
    for named in ("other.toml", str(path)):
        assert start(make(credentials_file=named).test_client())["client_id"].startswith("2022")


def test_links_as_kubernetes_mounts_a_secret(
    make: Maker, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """``file → ..data/file``, ``..data → ..2026_01_01``; readable by the pod's group."""
    mounted = file.parent / "..2026_01_01"
    mounted.mkdir()
    mode(0o440)(mounted / file.name)
    (file.parent / "..data").symlink_to(mounted.name)
    file.symlink_to(f"..data/{file.name}")
    assert start(make().test_client())["client_id"] == "20221017000000001"
    assert caplog.text == ""


def test_a_world_readable_file_is_reported(
    make: Maker, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mode(0o644)(file)
    make()
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert f"{file} contains the client secret, and every user of this machine" in caplog.text
    assert CANARY not in caplog.text


def test_app_config_takes_precedence_key_by_key(
    make: Maker, file: Path, server: ScriptedServer
) -> None:
    file.write_text(GOOD)
    client = make(server_url=server.url, redirect_uri="http://localhost/sso/callback").test_client()
    sign_in(client)
    assert server.seen[0].json["client_id"] == "20221017000000001"
    assert server.seen[0].json["client_secret"] == CANARY
    assert start(make(client_id="mine").test_client())["client_id"] == "mine"


def test_an_empty_value_in_app_config_is_ignored(make: Maker, file: Path) -> None:
    file.write_text(GOOD + 'token_url = "https://tokens.example.com/"\n')
    app = make(client_id="", token_url=None)
    settings = app.extensions["devkit_sso"].settings
    assert settings.client_id == "20221017000000001"
    assert settings.token_url == "https://tokens.example.com/"


HALVES = {
    "empty file": ("", "CLIENT_ID DEVKIT_SSO_CLIENT_SECRET DEVKIT_SSO_SERVER_URL"),
    "only comments": (f"# {CANARY}", "CLIENT_ID DEVKIT_SSO_CLIENT_SECRET DEVKIT_SSO_SERVER_URL"),
    "no secret": ('client_id = "x"\nserver_url = "https://a.example"', "CLIENT_SECRET"),
    "empty secret": (GOOD.replace(CANARY, ""), "CLIENT_SECRET"),
    "no id": (f'client_secret = "{CANARY}"\nserver_url = "https://a.example"', "CLIENT_ID"),
    "no server": (f'client_id = "x"\nclient_secret = "{CANARY}"', "SERVER_URL"),
}


@pytest.mark.parametrize("name", HALVES)
def test_an_application_starts_with_an_incomplete_file(
    make: Maker, file: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    content, missing = HALVES[name]
    file.write_text(content)
    app = make()
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    message = record.getMessage()
    for key in f"DEVKIT_SSO_{missing}".split():
        assert f"{key} is missing. " in message
    assert f"which writes {file}, or set" in message
    assert FIX in message
    assert reason(app.test_client().get("/sso/authorize")) == "not_configured"
    assert caplog.text.count(FIX) == 2, "in the log of the failed login too"
    assert CANARY not in caplog.text


def test_app_config_may_complete_the_file(
    make: Maker, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file.write_text(f'client_secret = "{CANARY}"\n')
    app = make(client_id="x", server_url="https://a.example", redirect_uri="https://b.example/")
    assert start(app.test_client())["client_id"] == "x"
    assert caplog.text == ""


def test_it_is_read_once(make: Maker, file: Path) -> None:
    file.write_text(GOOD)
    client = make().test_client()
    file.write_text("nonsense")
    assert start(client)["client_id"] == "20221017000000001"


def test_two_installations_are_independent(make: Maker, file: Path) -> None:
    """A session belongs to the effective settings, whatever their source."""
    file.write_text(GOOD)
    by_file = make().extensions["devkit_sso"].session_cookie
    assert make(client_id="20221017000000001").extensions["devkit_sso"].session_cookie == by_file
    assert make(client_id="other").extensions["devkit_sso"].session_cookie != by_file


def test_the_secret_is_not_shown(make: Maker, file: Path) -> None:
    file.write_text(GOOD)
    state = make().extensions["devkit_sso"]
    assert "20221017000000001" in repr(state.loaded)
    assert CANARY not in repr(state.loaded) + repr(vars(state))


# The file with the client secret, and read-only mounts


REST = "\n".join(line for line in GOOD.splitlines() if "client_secret" not in line)

SECRETS = {
    "plain": CANARY,
    "one line break": f"{CANARY}\n",
    "CRLF": f"{CANARY}\r\n",
    "byte order mark": f"\ufeff{CANARY}",
}


@pytest.mark.parametrize("name", SECRETS)
def test_a_file_with_nothing_but_the_secret(
    make: Maker, file: Path, server: ScriptedServer, name: str
) -> None:
    file.with_name("secret").write_text(SECRETS[name], newline="")
    file.write_text(GOOD.replace(CANARY, "overridden"))
    local = {"server_url": server.url, "redirect_uri": "http://localhost/sso/callback"}
    sign_in(make(client_secret_file="secret", **local).test_client())
    assert server.seen[0].json["client_secret"] == CANARY


INVALID_SECRETS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda path: None, " does not exist"),
    "empty": (lambda path: path.write_text(""), " is empty"),
    "a line break": (lambda path: path.write_text("\n"), " is empty"),
    "two line breaks": (lambda path: path.write_text(f"{CANARY}\n\n"), " begins or ends with a"),
    "a space": (lambda path: path.write_text(f" {CANARY}"), " begins or ends with a space"),
    "two lines": (lambda path: path.write_text(f"a\n{CANARY}"), " begins or ends with a space"),
    "too large": (lambda path: path.write_text(CANARY * 4000), " is larger than 64 KiB"),
    "writable by the group": (mode(0o660), " can be written by other users"),
    "FIFO": (fifo, " is not a regular file"),
}


@pytest.mark.parametrize("name", INVALID_SECRETS)
def test_an_invalid_file_with_the_secret(make: Maker, file: Path, name: str) -> None:
    file.write_text(REST)
    path = file.with_name("secret")
    make_thing, text = INVALID_SECRETS[name]
    make_thing(path)
    message = refused(make, client_secret_file=str(path))
    assert f"{path}{text}" in message
    assert "Fix the file that DEVKIT_SSO_CLIENT_SECRET_FILE names" in message


def test_a_secret_and_a_file_with_the_secret(make: Maker, file: Path) -> None:
    file.write_text(REST)
    file.with_name("secret").write_text(CANARY)
    both = refused(make, client_secret=CANARY, client_secret_file="secret")
    assert "DEVKIT_SSO_CLIENT_SECRET and DEVKIT_SSO_CLIENT_SECRET_FILE are both set" in both
    assert make(client_secret="", client_secret_file="secret")
    assert make(client_secret=CANARY, client_secret_file="")


READ_ONLY = """
import subprocess, sys
from pathlib import Path
from flask import Flask
from flask_devkit_sso import ConfigError, DevKitSSO

folder, bits = Path(sys.argv[1]), int(sys.argv[2], 8)
for path in folder.iterdir():
    path.chmod(bits)

def create():
    app = Flask("tests", instance_path=str(folder))
    app.config.update(SECRET_KEY="0d9f6b1ac54e2378-no-one-knows-this")
    app.config.update(DEVKIT_SSO_CLIENT_SECRET_FILE="secret")
    try:
        DevKitSSO(app)
    except ConfigError as error:
        print(error)
    else:
        print("usable", app.extensions["devkit_sso"].settings.client_secret[-4:])

create()
subprocess.run(["mount", "--bind", folder, folder], check=True)
subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)
create()
"""


IN_A_MOUNT_NAMESPACE = ["unshare", "--user", "--map-root-user", "--mount"]


def can_mount() -> bool:
    command = [
        "unshare",
        "--user",
        "--map-root-user",
        "--mount",
        "mount",
        "-t",
        "tmpfs",
        "x",
        "/mnt",
    ]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not can_mount(), reason="needs a mount namespace")
@pytest.mark.parametrize("bits", ["777", "660"])
def test_a_read_only_mount_may_show_any_mode(file: Path, bits: str) -> None:
    """As with a secret that Kubernetes mounts, whose mode nobody can change there."""
    folder = file.parent / "mounted"
    folder.mkdir()
    (folder / file.name).write_text(REST)
    (folder / "secret").write_text(f"{CANARY}\n")
    done = subprocess.run(
        [*IN_A_MOUNT_NAMESPACE, sys.executable, "-c", READ_ONLY, str(folder), bits],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    *before, after = done.stdout.splitlines()
    assert len([line for line in before if "can be written by other users" in line]) == 2
    assert after == f"usable {CANARY[-4:]}", done.stderr
    # Everybody on the machine can still read it, which only the mount's own options change.
    advice = done.stderr.count("can read it: mount it with a mode such as 0440")
    assert advice == (2 if bits == "777" else 0)
    assert CANARY not in done.stdout + done.stderr
