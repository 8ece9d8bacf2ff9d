"""``flask devkit-sso register``."""

from __future__ import annotations

import os
import re
import signal
import tomllib
from functools import partial
from pathlib import Path

import pytest

from ..threads import at_once
from .place import CANARY, GOOD_APP, KEY, OLD_CANARY, OPTIONS, WRITTEN, Place
from .terminal import Opener, Terminal


def test_by_options(place: Place) -> None:
    done = place.register()
    assert done.returncode == 0, done.stderr
    assert place.written == WRITTEN
    assert place.file.stat().st_mode & 0o7777 == 0o600
    assert place.file.parent.stat().st_mode & 0o7777 == 0o700
    assert [path.name for path in place.file.parent.iterdir()] == ["devkit_sso.toml"]
    for text in (
        f"Wrote {place.file}, readable only by ",
        "client id      20221017000000001\n",
        "redirect_uri   https://app.example.com/#/login\n",
        "Set SECRET_KEY, which is missing. Create one with python -c",
        "Restart",
    ):
        assert text in done.stdout
    assert done.stderr == ""


FILES = {
    "malformed": (f"client_id = 1\nclient_secret = {OLD_CANARY}\n", 0o600, "is not valid TOML"),
    "writable": (f'client_secret = "{OLD_CANARY}"\n', 0o666, "can be written by other users"),
    "unknown key": (f'secret = "{OLD_CANARY}"\n', 0o600, "did you mean client_secret?"),
    "wrong value": (f'client_secret = ["{OLD_CANARY}"]\n', 0o600, "must be a string, not list"),
    "too large": (f"#{OLD_CANARY}\n" * 4000, 0o600, "larger than 64 KiB"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_an_invalid_file_is_reported_and_replaced(place: Place, name: str) -> None:
    content, mode, text = FILES[name]
    place.old_file(content, mode)
    done = place.run("show")
    assert done.returncode == 1
    assert text in done.stdout
    done = place.run("register")
    assert done.returncode == 2
    assert "add --client-id, --secret-stdin, --server-url, --redirect-uri" in done.stderr
    assert place.file.read_text() == content
    done = place.register()
    assert done.returncode == 0, done.stderr
    assert place.written == WRITTEN
    assert place.file.stat().st_mode & 0o7777 == 0o600


@pytest.mark.parametrize("what", ["FIFO", "folder", "/dev/null", "loop"])
def test_anything_but_a_regular_file_is_left_alone(place: Place, what: str) -> None:
    place.file.parent.mkdir()
    if what == "FIFO":
        os.mkfifo(place.file)
    elif what == "folder":
        place.file.mkdir()
    else:
        place.file.symlink_to(place.file if what == "loop" else what)
    before = place.file.lstat()
    done = place.register()
    assert done.returncode == 1
    assert "could not be written" in done.stderr
    assert place.file.lstat().st_ino == before.st_ino
    assert Path("/dev/null").is_char_device()
    assert [path.name for path in place.file.parent.iterdir()] == ["devkit_sso.toml"]
    assert place.run("show").returncode == 1


def test_a_link_is_kept_and_its_target_is_replaced(place: Place) -> None:
    place.file.parent.mkdir()
    target = place.folder / "kept" / "target.toml"
    (place.folder / "hop").symlink_to("kept/target.toml")
    place.file.symlink_to("../hop")
    for _ in range(2):
        done = place.register()
        assert done.returncode == 0, done.stderr
        assert str(target) in done.stdout
        assert place.file.is_symlink()
        assert (place.folder / "hop").is_symlink()
        assert target.is_file()
        assert place.written == WRITTEN
    assert [path.name for path in target.parent.iterdir()] == ["target.toml"]


def test_existing_values_are_kept_and_urls_are_added_and_removed(place: Place) -> None:
    place.register("--token-url=https://tokens.example.com/x")
    assert place.written["token_url"] == "https://tokens.example.com/x"
    done = place.run("register", "--redirect-uri=https://new.example.com/")
    assert done.returncode == 0, done.stderr
    assert place.written == WRITTEN | {
        "redirect_uri": "https://new.example.com/",
        "token_url": "https://tokens.example.com/x",
    }
    assert place.run("register", "--token-url=").returncode == 0
    assert "token_url" not in place.written


def test_five_urls_replace_a_server_url(place: Place) -> None:
    urls = [f"--{name}-url=https://{name}.example" for name in "authorize token user-info".split()]
    urls += [f"--{name}-url=https://{name}.example" for name in ("refresh", "logout")]
    options = [*urls, OPTIONS[0], OPTIONS[2], "--secret-stdin"]
    done = place.run("register", *options, stdin=CANARY)
    assert done.returncode == 0, done.stderr
    assert place.written["logout_url"] == "https://logout.example"
    assert place.run("show", **KEY).returncode == 0


@pytest.mark.parametrize(
    ("value", "secret"),
    [(CANARY, CANARY), ("12345", "12345"), (f'"{CANARY}"', CANARY), ("ü €", "ü €")],
)
def test_the_secret_from_the_environment(place: Place, value: str, secret: str) -> None:
    """It is parsed as ``from_prefixed_env`` does it, with quotes and digits."""
    done = place.run("register", *OPTIONS, FLASK_DEVKIT_SSO_CLIENT_SECRET=value)
    assert done.returncode == 0, done.stderr
    assert "Client secret: taken from FLASK_DEVKIT_SSO_CLIENT_SECRET\n" in done.stdout
    assert place.written["client_secret"] == secret


def test_a_mounted_secret_is_used_and_not_copied(place: Place) -> None:
    folder = place.folder / "secrets"
    folder.mkdir()
    folder.chmod(0o777)
    file = folder / "secret"
    file.write_text(f"{CANARY}\n")
    file.chmod(0o440)
    mounted = KEY | {"FLASK_DEVKIT_SSO_CLIENT_SECRET_FILE": str(file)}
    done = place.run("register", *OPTIONS, **mounted)
    assert done.returncode == 0, done.stderr
    assert f"Client secret: in {file}\n" in done.stdout
    assert set(place.written) == set(WRITTEN) - {"client_secret"}
    shown = place.run("show", **mounted)
    assert shown.returncode == 0, shown.stdout
    assert re.search(r"_CLIENT_SECRET +secret file +\(set, not shown\)", shown.stdout)
    checked = place.run(
        "doctor", **mounted, FLASK_DEVKIT_SSO_SERVER_URL="http://127.0.0.1:9"
    ).stdout
    assert f"ok       client secret file: {file}, mode 0440" in checked
    assert f"error    mode of {folder}: 0777: every user can replace the client" in checked


def test_an_empty_variable_is_ignored(place: Place) -> None:
    done = place.run("register", *OPTIONS, FLASK_DEVKIT_SSO_CLIENT_SECRET="")
    assert done.returncode == 2
    assert "there is no terminal to ask at: add --secret-stdin" in done.stderr


def test_every_printable_secret_is_stored_unchanged(place: Place) -> None:
    secret = "".join(map(chr, range(33, 127))) + "\\u0041\\n'''\"\"\"€密😀"
    done = place.run("register", *OPTIONS, "--secret-stdin", stdin=f"{secret}\r\n")
    assert done.returncode == 0, done.stderr
    assert place.written["client_secret"] == secret
    assert place.run("show", **KEY).returncode == 0


WRONG = {
    "--client-id= x": "Client id begins or ends with a space",
    "--server-url=auth.example.com": "Server URL must be an absolute URL",
    "--server-url=http://auth.example.com": "Server URL is plain http",
    "--redirect-uri=https://app.example.com/#/ ": "Redirect URI begins or ends with a space",
    "--redirect-uri=https://HOST/sso/callback#/login": "Redirect URI must name the host at which",
    "--logout-url=x": "--logout-url must be an absolute URL",
    f"--client-secret={CANARY}": "No such option",
    f"--client-id={'x' * 5000}": "a value is too long",
}


@pytest.mark.parametrize("option", WRONG)
def test_an_invalid_option(place: Place, option: str) -> None:
    done = place.register(option)
    assert done.returncode in (1, 2)
    assert WRONG[option] in done.stderr
    assert not place.file.exists()


@pytest.mark.parametrize(
    "secret", [f"{CANARY}\0", f"{CANARY}\n{CANARY}", b"\xff\xfe", f"{CANARY} "]
)
def test_an_invalid_secret(place: Place, secret: str | bytes) -> None:
    done = place.run("register", *OPTIONS, "--secret-stdin", stdin=secret)
    assert done.returncode == 2
    assert not place.file.exists()


def test_plain_http_where_the_application_allows_it(place: Place) -> None:
    done = place.register("--server-url=http://auth:9000", FLASK_DEVKIT_SSO_INSECURE_HTTP="true")
    assert done.returncode == 0, done.stderr


def test_app_config_that_takes_precedence_is_reported(place: Place) -> None:
    left_over = {
        "FLASK_DEVKIT_SSO_CLIENT_ID": "another",
        "FLASK_DEVKIT_SSO_CLIENT_SECRET": OLD_CANARY,
        "FLASK_DEVKIT_SSO_SERVER_URL": WRITTEN["server_url"],
    }
    done = place.register(**left_over)
    for name in ("CLIENT_ID", "CLIENT_SECRET"):
        text = f"Unset FLASK_DEVKIT_SSO_{name} (in .env and .flaskenv too): it takes precedence"
        assert text in done.stdout
    assert "SERVER_URL" not in done.stdout, "it is the same"
    assert "CREDENTIALS_FILE" not in done.stdout
    own = "app.config['DEVKIT_SSO_CLIENT_ID'] = 'another'"
    place.app(GOOD_APP.replace("DevKitSSO(app)", f"{own}\nDevKitSSO(app)"))
    done = place.register()
    assert (
        "Remove DEVKIT_SSO_CLIENT_ID from app.config: it takes precedence over the file."
        in done.stdout
    )
    place.app(GOOD_APP)
    done = place.register("--file=other.toml")
    assert f"{place.folder}/other.toml" in done.stdout
    assert f"the application reads {place.file} now" in done.stdout


@pytest.mark.slow
def test_a_full_disk_leaves_the_old_file(place: Place) -> None:
    place.old_file()
    before = place.file.read_text()
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (9, 9))"
    done = place.run("register", *OPTIONS, "--secret-stdin", stdin=CANARY, before=limit)
    assert done.returncode == 1
    assert "could not be written (File too large); nothing has changed" in done.stderr
    assert place.file.read_text() == before
    assert [path.name for path in place.file.parent.iterdir()] == ["devkit_sso.toml"]


@pytest.mark.slow
def test_a_crash_while_writing_leaves_the_old_file(place: Place) -> None:
    """The kernel kills the process at the first byte beyond the limit."""
    place.old_file()
    before = place.file.read_text()
    limit = (
        "import resource, signal; resource.setrlimit(resource.RLIMIT_CORE, (0, 0));"
        "signal.signal(signal.SIGXFSZ, signal.SIG_DFL);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (9, 9))"
    )
    done = place.run("register", *OPTIONS, "--secret-stdin", stdin=CANARY, before=limit)
    assert done.returncode == -signal.SIGXFSZ
    assert place.file.read_text() == before
    left = [path for path in place.file.parent.iterdir() if path != place.file]
    assert len(left) == 1, "it was writing"
    assert left[0].stat().st_mode & 0o7777 == 0o600
    assert place.register().returncode == 0
    assert place.written == WRITTEN


def test_an_unwritable_folder(place: Place) -> None:
    done = place.register("--file", "/proc/no/devkit_sso.toml")
    assert done.returncode == 1
    assert "could not be written" in done.stderr


def test_two_at_the_same_time(place: Place) -> None:
    """The file has the values of one of them, and never a mixture."""

    def register(name: str) -> int:
        options = [f"--client-id={name * 2000}", f"--redirect-uri=https://{name}.example/"]
        secret = {"FLASK_DEVKIT_SSO_CLIENT_SECRET": name * 2000}
        return place.run("register", *OPTIONS, *options, **secret).returncode

    assert at_once([partial(register, name) for name in "ab"]) == [0, 0]
    (name,) = set(place.written["client_id"])
    assert place.written["client_secret"] == name * 2000
    assert place.written["redirect_uri"] == f"https://{name}.example/"
    assert [path.name for path in place.file.parent.iterdir()] == ["devkit_sso.toml"]


def test_as_root_the_file_belongs_to_its_folders_owner(place: Place) -> None:
    place.file.parent.mkdir()
    if os.geteuid() == 0:
        os.chown(place.file.parent, 65534, 65534)
    place.register()
    owner = place.file.parent.stat()
    assert (place.file.stat().st_uid, place.file.stat().st_gid) == (owner.st_uid, owner.st_gid)


def test_as_root_no_link_of_another_user_is_followed(place: Place, tmp_path: Path) -> None:
    """The other user could make root read and replace any file."""
    another = tmp_path / "another.toml"
    another.write_text(f'client_secret = "{CANARY}-of-another"\n')
    another.chmod(0o600)
    place.file.parent.mkdir()
    place.file.symlink_to(another)
    if os.geteuid() == 0:
        os.chown(place.file, 65534, 65534, follow_symlinks=False)
        done = place.register()
        assert done.returncode == 1
        assert "is a link that belongs to another user, so root does not follow it" in done.stderr
        assert another.read_text() == f'client_secret = "{CANARY}-of-another"\n'
        os.chown(place.file, 0, 0, follow_symlinks=False)
    assert place.register().returncode == 0
    assert place.file.is_symlink()


def test_at_a_terminal(place: Place, at_terminal: Opener) -> None:
    terminal = at_terminal("register")
    terminal.expect("Client id: ")
    terminal.type("\n")
    terminal.expect("It is required.")
    terminal.expect("Client id: ")
    terminal.type("20221017000000001\n")
    terminal.expect("Client secret: ")
    terminal.type(f"{CANARY} \n")
    terminal.expect("It begins or ends with a space")
    terminal.expect("Client secret: ")
    terminal.type(f"{CANARY}\n")
    terminal.expect("Server URL: ")
    terminal.type("auth.example.com\n")
    terminal.expect("It must be an absolute URL")
    terminal.expect("Server URL: ")
    terminal.type("http://auth.example.com\n")
    terminal.expect("It is plain http")
    terminal.expect("Server URL: ")
    terminal.type("https://auth.example.com/auth\n")
    terminal.expect("Proposed: https://HOST/sso/callback#/login, with the host at which")
    terminal.expect("Redirect URI: ")
    terminal.type("https://HOST/sso/callback#/login\n")
    terminal.expect("It must name the host at which people open the application instead of HOST")
    terminal.expect("Redirect URI: ")
    terminal.type("https://app.example.com/#/login\n")
    terminal.expect("Restart")
    assert terminal.close() == 0
    assert place.written == WRITTEN
    assert "https://app.example.com/#/login" in terminal.shown, "the terminal does echo"
    assert CANARY not in terminal.shown

    terminal = Terminal(place, "register", "--redirect-uri=https://new.example.com/")
    terminal.expect("Client id [20221017000000001]: ")
    terminal.type("\n")
    terminal.expect("Client secret [Enter keeps the current one]: ")
    terminal.type("\n")
    terminal.expect("Server URL [https://auth.example.com/auth]: ")
    terminal.type("https://other.example.com\n")
    terminal.expect("Restart")
    assert terminal.close() == 0
    assert place.written == WRITTEN | {
        "redirect_uri": "https://new.example.com/",
        "server_url": "https://other.example.com",
    }
    assert CANARY not in terminal.shown


def test_at_a_terminal_the_secret_of_the_environment_is_mentioned(
    place: Place, at_terminal: Opener
) -> None:
    """It may be left over from the sandbox."""
    place.old_file()
    terminal = at_terminal("register", FLASK_DEVKIT_SSO_CLIENT_SECRET=CANARY)
    terminal.expect("Client id [old-client_id]: ")
    terminal.type("20221017000000001\n")
    terminal.expect("Client secret: taken from FLASK_DEVKIT_SSO_CLIENT_SECRET (unset it to typ")
    terminal.expect("Server URL: ")
    terminal.type("https://auth.example.com/auth\n")
    terminal.expect("Redirect URI: ")
    terminal.type("https://app.example.com/#/login\n")
    assert terminal.close() == 0
    assert place.written == WRITTEN
    assert CANARY not in terminal.shown


def test_cancelled_at_a_terminal(place: Place, at_terminal: Opener) -> None:
    terminal = at_terminal("register", *OPTIONS)
    terminal.expect("Client secret: ")
    terminal.type("\x03")
    assert terminal.close() == 130
    assert "Aborted!" in terminal.shown
    assert "Traceback" not in terminal.shown
    assert not place.file.exists()


def test_at_a_terminal_without_an_application(place: Place, at_terminal: Opener) -> None:
    place.app("raise RuntimeError")
    terminal = at_terminal("register", *OPTIONS)
    terminal.expect("instance folder, which is unknown now")
    terminal.expect("Path of the credentials file: ")
    terminal.type("x.toml\n")
    terminal.expect("Client secret: ")
    terminal.type(f"{CANARY}\n")
    assert terminal.close() == 0
    assert tomllib.loads((place.folder / "x.toml").read_text()) == WRITTEN
    assert CANARY not in terminal.shown


def test_secret_stdin_is_refused_at_a_terminal(place: Place, at_terminal: Opener) -> None:
    """``--secret-stdin`` at a terminal would echo it."""
    terminal = at_terminal("register", *OPTIONS, "--secret-stdin")
    terminal.expect("omit it to type the secret")
    assert terminal.close() == 2


def test_without_standard_input(place: Place) -> None:
    done = place.run("register", before="import sys; sys.stdin = None")
    assert done.returncode == 2
    assert "there is no terminal to ask at" in done.stderr
    done = place.run("register", "--secret-stdin", before="import sys; sys.stdin = None")
    assert done.returncode == 2
