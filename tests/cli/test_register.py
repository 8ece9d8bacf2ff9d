"""The real ``flask`` command, on applications that start and on those that cannot."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from .. import forked
from ..threads import at_once

CANARY = "canary-of-the-command-5b0e"
OLD_CANARY = "canary-of-the-old-file-19d4"
GOOD_APP = """
from flask import Flask
from flask_devkit_sso import DevKitSSO
app = Flask(__name__)
app.config.from_prefixed_env()
DevKitSSO(app)
"""
OPTIONS = [
    "--client-id=20221017000000001",
    "--server-url=https://auth.example.com/auth/",
    "--redirect-uri=https://app.example.com/#/login",
]
WRITTEN = {
    "client_id": "20221017000000001",
    "client_secret": CANARY,
    "server_url": "https://auth.example.com/auth",
    "redirect_uri": "https://app.example.com/#/login",
}
KEY = {"FLASK_SECRET_KEY": "0d9f6b1ac54e2378-no-one-knows-this"}


class Place:
    """A folder with an application in it, and the command that is run there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "instance" / "devkit_sso.toml"
        self.app(GOOD_APP)

    def app(self, source: str) -> None:
        (self.folder / "app.py").write_text(source)

    def old_file(self, content: str | None = None, mode: int = 0o600) -> None:
        self.file.parent.mkdir(exist_ok=True)
        text = "\n".join(f'{key} = "old-{key}"' for key in ("client_id", "client_secret"))
        self.file.write_text(text.replace("old-client_secret", OLD_CANARY) + "\n")
        if content is not None:
            self.file.write_text(content)
        self.file.chmod(mode)

    @property
    def written(self) -> dict[str, Any]:
        return tomllib.loads(self.file.read_text())

    def environment(self, **more: str) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("FLASK_")}
        return kept | {"PYTHONDONTWRITEBYTECODE": "1"} | more

    def run(
        self, *args: str, stdin: str | bytes = "", before: str = "", **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run ``flask devkit-sso …``; ``before`` is Python that runs first in its process."""
        given = self.environment(**environment)
        data = stdin if isinstance(stdin, bytes) else stdin.encode()
        if before or "PYTHONIOENCODING" in environment:
            done = self._run_anew(*args, stdin=data, before=before, env=given)
        else:
            arguments = ["-m", "flask", "devkit-sso", *args]
            done = forked.run(arguments, stdin=data, cwd=self.folder, env=given)
        assert "Traceback" not in done.stdout + done.stderr, done.stderr
        assert CANARY not in done.stdout + done.stderr
        assert OLD_CANARY not in done.stdout + done.stderr
        return done

    def _run_anew(
        self, *args: str, stdin: bytes, before: str, env: dict[str, str]
    ) -> subprocess.CompletedProcess[str]:
        """Run the command in an interpreter of its own."""
        command = [sys.executable, "-m", "flask"]
        if before:
            # What stands in the way of writing would stand in the way of coverage, too.
            env = {k: v for k, v in env.items() if not k.startswith("COVERAGE_")}
            command = [sys.executable, "-c", f"{before}\nfrom flask.cli import main\nmain()"]
        done = subprocess.run(
            [*command, "devkit-sso", *args],
            input=stdin,
            capture_output=True,
            timeout=300,
            cwd=self.folder,
            env=env,
            check=False,
        )
        texts = [text.decode() for text in (done.stdout, done.stderr)]
        return subprocess.CompletedProcess(args, done.returncode, *texts)

    def register(self, *args: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Register by options, the secret from standard input."""
        return self.run(
            "register", *OPTIONS, "--secret-stdin", *args, stdin=CANARY + "\n", **environment
        )


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_register_by_options_then_show(place: Place) -> None:
    done = place.register()
    assert done.returncode == 0, done.stderr
    assert place.written == WRITTEN
    assert place.file.stat().st_mode & 0o7777 == 0o600
    assert place.file.parent.stat().st_mode & 0o7777 == 0o700
    assert [path.name for path in place.file.parent.iterdir()] == ["devkit_sso.toml"]
    for text in (
        f"Written: {place.file}",
        "client id      20221017000000001\n",
        "redirect_uri   https://app.example.com/#/login\n",
        "Set SECRET_KEY too",
        "Restart",
    ):
        assert text in done.stdout
    assert done.stderr == ""

    done = place.run("show", **KEY)
    assert done.returncode == 0, done.stdout
    table, _, last = done.stdout.partition("\n\n")
    assert last == "All is well.\n"
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
    assert len(rows) == 29


def test_show_tells_what_is_wrong_and_what_is_missing(place: Place) -> None:
    done = place.run("show", FLASK_DEVKIT_SSO_TIMEOUT="0", FLASK_DEVKIT_SSO_CLIENT_IDD="x")
    assert done.returncode == 1
    for text in (
        "DEVKIT_SSO_TIMEOUT must be above zero",
        "did you mean DEVKIT_SSO_CLIENT_ID?",
        "DEVKIT_SSO_CLIENT_SECRET is missing",
        "DEVKIT_SSO_REDIRECT_URI is missing",
        "SECRET_KEY is missing: make one with",
        "`flask devkit-sso register` asks for what is missing",
    ):
        assert text in done.stdout
    assert re.search(r"^SECRET_KEY +default +-$", done.stdout, re.MULTILINE)
    assert "All is well" not in done.stdout
    assert done.stderr == "", "init_app leaves it to the command to tell"


def test_show_on_a_development_machine(place: Place) -> None:
    """With debug, a redirect_uri is not needed and a weak key will do."""
    place.old_file('client_id = "x"\nclient_secret = "y"\nserver_url = "https://a.example"\n')
    weak = {"FLASK_SECRET_KEY": "dev"}
    done = place.run("show", FLASK_DEBUG="1", **weak)
    assert done.returncode == 0
    assert done.stdout.endswith("\nAll is well.\n")
    done = place.run("show", **weak)
    assert done.returncode == 1
    assert re.search(r"^SECRET_KEY .* \(set, not shown, but weak\)$", done.stdout, re.MULTILINE)
    assert "SECRET_KEY is shorter than 16 bytes" in done.stdout


def test_show_masks_a_password_in_a_url(place: Place) -> None:
    url = f"redis://user:{CANARY}@host:6379/0?password={CANARY}"
    done = place.run("show", FLASK_DEVKIT_SSO_STORE_URL=url)
    assert "redis://***@host:6379/0?***" in done.stdout


def test_show_warns_of_a_readable_file_but_all_is_well(place: Place) -> None:
    place.register()
    place.file.chmod(0o644)
    done = place.run("show", **KEY)
    assert done.returncode == 0
    assert "can be read by every user" in done.stdout
    assert "All is well" not in done.stdout


# Applications that fail to load, and what is told of it.
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
def test_an_application_that_cannot_be_loaded(place: Place, name: str) -> None:
    source, text = BROKEN[name]
    place.app(source)
    done = place.run("show", FLASK_DEVKIT_SSO_TIMEOUT="0")
    assert done.returncode == 1
    assert f"The application could not be loaded: {text}" in done.stderr
    assert text[-3:] != " in" or f"in {place.folder}/app.py, line 1" in done.stderr
    assert "DEVKIT_SSO_TIMEOUT must be above zero" in done.stdout

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
def test_a_view_that_is_guarded_too_late(place: Place, command: str) -> None:
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
    assert "app.home (endpoint home). Write @login_required and" in done.stdout


# Applications that come as far as init_app, where it would raise or they fail afterwards.
HALF = {
    "setting": ("app.config['DEVKIT_SSO_TIMEOUT'] = '5'", "", "DEVKIT_SSO_TIMEOUT must be a n"),
    "key": ("app.config['SECRET_KEY'] = 5", "", "SECRET_KEY and SECRET_KEY_FALLBACKS must be"),
    "later": ("", "raise RuntimeError(app.config['CANARY'])", "RuntimeError in"),
    "later exit": ("", "raise SystemExit(app.config['CANARY'])", "SystemExit in"),
    "twice": ("", "DevKitSSO(app)", "call init_app once"),
}


@pytest.mark.parametrize("name", HALF)
def test_an_application_that_comes_as_far_as_init_app(place: Place, name: str) -> None:
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


FILES = {
    "malformed": (f"client_id = 1\nclient_secret = {OLD_CANARY}\n", 0o600, "line 2, column"),
    "writable": (f'client_secret = "{OLD_CANARY}"\n', 0o666, "can be written by other users"),
    "unknown key": (f'secret = "{OLD_CANARY}"\n', 0o600, "perhaps client_secret is meant"),
    "wrong value": (f'client_secret = ["{OLD_CANARY}"]\n', 0o600, "must be a string, not list"),
    "too large": (f"#{OLD_CANARY}\n" * 4000, 0o600, "larger than 64 KiB"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_wrong_is_told_of_and_replaced(place: Place, name: str) -> None:
    content, mode, text = FILES[name]
    place.old_file(content, mode)
    done = place.run("show")
    assert done.returncode == 1
    assert text in done.stdout
    done = place.run("register")
    assert done.returncode == 2
    assert "give --client-id, --secret-stdin, --server-url, --redirect-uri" in done.stderr
    assert place.file.read_text() == content
    done = place.register()
    assert done.returncode == 0, done.stderr
    assert place.written == WRITTEN
    assert place.file.stat().st_mode & 0o7777 == 0o600


@pytest.mark.parametrize("what", ["FIFO", "folder", "/dev/null", "loop"])
def test_what_is_no_file_is_left_alone(place: Place, what: str) -> None:
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


def test_a_link_stays_and_its_target_is_replaced(place: Place) -> None:
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


def test_present_values_are_kept_and_urls_come_and_go(place: Place) -> None:
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


def test_five_urls_do_without_a_server_url(place: Place) -> None:
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
    """Read as ``from_prefixed_env`` would read it, quotes and digits alike."""
    done = place.run("register", *OPTIONS, FLASK_DEVKIT_SSO_CLIENT_SECRET=value)
    assert done.returncode == 0, done.stderr
    assert "Client secret: taken from FLASK_DEVKIT_SSO_CLIENT_SECRET\n" in done.stdout
    assert place.written["client_secret"] == secret


def test_an_empty_variable_is_no_secret(place: Place) -> None:
    done = place.run("register", *OPTIONS, FLASK_DEVKIT_SSO_CLIENT_SECRET="")
    assert done.returncode == 2
    assert "there is no terminal to ask at, so give --secret-stdin" in done.stderr


def test_every_printable_secret_survives(place: Place) -> None:
    secret = "".join(map(chr, range(33, 127))) + "\\u0041\\n'''\"\"\"€密😀"
    done = place.run("register", *OPTIONS, "--secret-stdin", stdin=f"{secret}\r\n")
    assert done.returncode == 0, done.stderr
    assert place.written["client_secret"] == secret
    assert place.run("show", **KEY).returncode == 0


WRONG = {
    "--client-id= x": "Client id has a space",
    "--server-url=auth.example.com": "Server URL must be an absolute URL",
    "--server-url=http://auth.example.com": "Server URL is plain http",
    "--redirect-uri=https://app.example.com/#/ ": "Redirect URI has a space",
    "--logout-url=x": "--logout-url must be an absolute URL",
    f"--client-secret={CANARY}": "No such option",
    f"--client-id={'x' * 5000}": "a value is too long",
}


@pytest.mark.parametrize("option", WRONG)
def test_an_option_that_is_wrong(place: Place, option: str) -> None:
    done = place.register(option)
    assert done.returncode in (1, 2)
    assert WRONG[option] in done.stderr
    assert not place.file.exists()


@pytest.mark.parametrize(
    "secret", [f"{CANARY}\0", f"{CANARY}\n{CANARY}", b"\xff\xfe", f"{CANARY} "]
)
def test_a_secret_that_is_wrong(place: Place, secret: str | bytes) -> None:
    done = place.run("register", *OPTIONS, "--secret-stdin", stdin=secret)
    assert done.returncode == 2
    assert not place.file.exists()


def test_plain_http_where_the_application_allows_it(place: Place) -> None:
    done = place.register("--server-url=http://auth:9000", FLASK_DEVKIT_SSO_INSECURE_HTTP="true")
    assert done.returncode == 0, done.stderr


def test_app_config_that_wins_is_told_of(place: Place) -> None:
    left_over = {
        "FLASK_DEVKIT_SSO_CLIENT_ID": "another",
        "FLASK_DEVKIT_SSO_CLIENT_SECRET": OLD_CANARY,
        "FLASK_DEVKIT_SSO_SERVER_URL": WRITTEN["server_url"],
    }
    done = place.register(**left_over)
    for name in ("CLIENT_ID", "CLIENT_SECRET"):
        text = f"Unset FLASK_DEVKIT_SSO_{name} (in .env and .flaskenv too): it wins over the file."
        assert text in done.stdout
    assert "SERVER_URL" not in done.stdout, "it is the same"
    assert "CREDENTIALS_FILE" not in done.stdout
    own = "app.config['DEVKIT_SSO_CLIENT_ID'] = 'another'"
    place.app(GOOD_APP.replace("DevKitSSO(app)", f"{own}\nDevKitSSO(app)"))
    done = place.register()
    assert "Remove DEVKIT_SSO_CLIENT_ID from app.config: it wins over the file." in done.stdout
    place.app(GOOD_APP)
    done = place.register("--file=other.toml")
    assert f"{place.folder}/other.toml" in done.stdout
    assert f"the application reads {place.file} now" in done.stdout


def test_a_full_disk_leaves_the_old_file(place: Place) -> None:
    place.old_file()
    before = place.file.read_text()
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (9, 9))"
    done = place.run("register", *OPTIONS, "--secret-stdin", stdin=CANARY, before=limit)
    assert done.returncode == 1
    assert "could not be written (File too large); nothing has changed" in done.stderr
    assert place.file.read_text() == before
    assert [path.name for path in place.file.parent.iterdir()] == ["devkit_sso.toml"]


def test_a_crash_while_writing_leaves_the_old_file(place: Place) -> None:
    """The kernel kills it at the first byte beyond the limit."""
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


def test_a_folder_that_cannot_be_written(place: Place) -> None:
    done = place.register("--file", "/proc/no/devkit_sso.toml")
    assert done.returncode == 1
    assert "could not be written" in done.stderr


def test_two_at_once(place: Place) -> None:
    """One of them wins; nobody sees half of each."""

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
    """... who could have any file read and replaced."""
    another = tmp_path / "another.toml"
    another.write_text(f'client_secret = "{CANARY}-of-another"\n')
    another.chmod(0o600)
    place.file.parent.mkdir()
    place.file.symlink_to(another)
    if os.geteuid() == 0:
        os.chown(place.file, 65534, 65534, follow_symlinks=False)
        done = place.register()
        assert done.returncode == 1
        assert "is a link of another user's, which root does not follow" in done.stderr
        assert another.read_text() == f'client_secret = "{CANARY}-of-another"\n'
        os.chown(place.file, 0, 0, follow_symlinks=False)
    assert place.register().returncode == 0
    assert place.file.is_symlink()


class Terminal:
    """A person at a terminal."""

    def __init__(self, place: Place, *args: str, **environment: str) -> None:
        self.master, slave = pty.openpty()
        begin = (
            # A shell that runs the tests in the background has it ignored.
            "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
            "from flask.cli import main; main()"
        )
        self.process = forked.Program(
            ["-c", begin, "devkit-sso", *args],
            (slave, slave, slave),
            cwd=place.folder,
            env=place.environment(**environment),
            terminal=True,
        )
        os.close(slave)
        self.shown = ""
        self._seen = 0

    def expect(self, text: str) -> None:
        """Wait until something is shown that was not shown before the last call."""
        end = time.monotonic() + 300
        while (at := self.shown.find(text, self._seen)) < 0:
            assert time.monotonic() < end, self.shown
            assert self._read(), self.shown
        self._seen = at + len(text)

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def close(self) -> int:
        while self._read():
            pass
        os.close(self.master)
        return self.process.wait(300)

    def _read(self) -> bool:
        ready, _, _ = select.select([self.master], [], [], 300)
        try:
            data = os.read(self.master, 4096) if ready else b""
        except OSError:
            return False  # the other side is closed
        self.shown += data.decode()
        return bool(data)


Opener = Callable[..., Terminal]


@pytest.fixture
def at_terminal(place: Place) -> Iterator[Opener]:
    opened: list[Terminal] = []

    def start(*args: str, **environment: str) -> Terminal:
        opened.append(Terminal(place, *args, **environment))
        return opened[-1]

    yield start
    for terminal in opened:
        terminal.process.kill()
        terminal.process.wait()


def test_at_a_terminal(place: Place, at_terminal: Opener) -> None:
    terminal = at_terminal("register")
    terminal.expect("Client id: ")
    terminal.type("\n")
    terminal.expect("It is needed.")
    terminal.expect("Client id: ")
    terminal.type("20221017000000001\n")
    terminal.expect("Client secret: ")
    terminal.type(f"{CANARY} \n")
    terminal.expect("It has a space")
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
    terminal.expect("Client secret [Enter keeps the present one]: ")
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


def test_at_a_terminal_the_secret_of_the_environment_is_told_of(
    place: Place, at_terminal: Opener
) -> None:
    """It may be left over from the sandbox."""
    place.old_file()
    terminal = at_terminal("register", FLASK_DEVKIT_SSO_CLIENT_SECRET=CANARY)
    terminal.expect("Client id [old-client_id]: ")
    terminal.type("20221017000000001\n")
    terminal.expect("Client secret: taken from FLASK_DEVKIT_SSO_CLIENT_SECRET (unset it to be ask")
    terminal.expect("Server URL: ")
    terminal.type("https://auth.example.com/auth\n")
    terminal.expect("Redirect URI: ")
    terminal.type("https://app.example.com/#/login\n")
    assert terminal.close() == 0
    assert place.written == WRITTEN
    assert CANARY not in terminal.shown


def test_given_up_at_a_terminal(place: Place, at_terminal: Opener) -> None:
    terminal = at_terminal("register", *OPTIONS)
    terminal.expect("Client secret: ")
    terminal.type("\x03")
    assert terminal.close() == 1
    assert "Aborted!" in terminal.shown
    assert "Traceback" not in terminal.shown
    assert not place.file.exists()


def test_at_a_terminal_without_an_application(place: Place, at_terminal: Opener) -> None:
    place.app("raise RuntimeError")
    terminal = at_terminal("register", *OPTIONS)
    terminal.expect("instance folder is not known")
    terminal.expect("Path of the credentials file: ")
    terminal.type("x.toml\n")
    terminal.expect("Client secret: ")
    terminal.type(f"{CANARY}\n")
    assert terminal.close() == 0
    assert tomllib.loads((place.folder / "x.toml").read_text()) == WRITTEN
    assert CANARY not in terminal.shown


def test_the_secret_is_not_typed_in_clear(place: Place, at_terminal: Opener) -> None:
    """``--secret-stdin`` at a terminal would echo it."""
    terminal = at_terminal("register", *OPTIONS, "--secret-stdin")
    terminal.expect("leave it out to be asked")
    assert terminal.close() == 2


def test_without_any_standard_input(place: Place) -> None:
    done = place.run("register", before="import sys; sys.stdin = None")
    assert done.returncode == 2
    assert "there is no terminal to ask at" in done.stderr
    done = place.run("register", "--secret-stdin", before="import sys; sys.stdin = None")
    assert done.returncode == 2
