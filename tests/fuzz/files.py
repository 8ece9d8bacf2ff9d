"""What a credentials file can contain."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flask import Flask
from hypothesis import strategies as st

from flask_devkit_sso import ConfigError, DevKitSSO
from flask_devkit_sso.config.credentials import KEYS, read_credentials, write_credentials

from .mutations import TEXTS, Mutation, Repeated, mutations
from .running import Target
from .site import CLIENT_SECRET, DOCUMENTED, SECRET_KEY

SAMPLE = (
    "\n".join(
        [
            'client_id = "20221017000000001"',
            f'client_secret = "{CLIENT_SECRET}"',
            'server_url = "https://auth.example.com"',
            'redirect_uri = "https://app.example.com/#/login"',
            'token_url = "https://auth.example.com/sso/oauth2/getToken"',
        ]
    ).encode()
    + b"\n"
)


@contextmanager
def file_targets(folder: Path) -> Iterator[list[Target]]:
    """Yield the target that writes credentials files."""
    yield [Target("credentials file", _FILES, lambda value: check_file(folder, value))]


_FILES = st.one_of(
    mutations(
        [SAMPLE, SAMPLE.replace(b"\n", b"\r\n"), b"\xef\xbb\xbf" + SAMPLE, b""],
        [
            b'client_secret = """',
            b"'''",
            b"[devkit_sso]\n",
            b"[[x]]\n",
            b"client_id = 20221017000000001\n",
            b"client_id = 1979-05-27T07:32:00Z\n",
            b"client_id = inf\n",
            Repeated(b"f", 5000, b"client_id = 0x", b"\n"),
            Repeated(b"9", 5000, b"client_id = ", b"\n"),
            Repeated(b"a.", 3000),
            Repeated(b"[", 4000, b"x = "),
            b"x = {",
            b'"\\u0000"',
            b'"\\uD800"',
            b"= ",
            b"# ",
            Repeated(b"#", 70_000),
            b"https://[",
            b"https://a.example:99999/",
            b"https://user@",
            b"//",
            "王".encode(),
            "。".encode(),
            b"\xe2\x80\xae",
            b"%",
        ],
    ),
    st.dictionaries(st.sampled_from(KEYS), TEXTS),
)


def check_file(folder: Path, value: Mutation | dict[str, str]) -> None:
    """Reading works, or raises a ConfigError that quotes nothing. A written file is valid."""
    path = folder / "devkit_sso.toml"
    if isinstance(value, dict):
        values = {key: text for key, text in value.items() if text.isprintable()}
        write_credentials(path, values)
        credentials = read_credentials(path)
        assert (credentials.values, credentials.errors) == (values, [])
    else:
        path.write_bytes(value.apply())
        path.chmod(0o600)
    app = Flask("fuzz", instance_path=str(folder))
    app.testing = True
    app.config["SECRET_KEY"] = SECRET_KEY
    try:
        DevKitSSO(app)
    except ConfigError as error:
        assert CLIENT_SECRET not in str(error)  # noqa: PT017
        return
    response = app.test_client().get("/sso/authorize")
    assert response.status_code in DOCUMENTED
    assert CLIENT_SECRET not in response.text + str(response.headers)
