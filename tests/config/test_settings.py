"""Settings: invalid ones stop the application, and pages report missing ones."""

from __future__ import annotations

import logging
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from flask_devkit_sso import ConfigError, DevKitSSO, SSOError, login_required
from flask_devkit_sso.testing import login_as

from ..conftest import CLIENT_ID, AppMaker, carry_cookies, reason, sign_in, start
from ..scripted import ScriptedServer


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"client_idd": "x"}, "did you mean DEVKIT_SSO_CLIENT_ID?"),
        ({"redirect_url": "x"}, "did you mean DEVKIT_SSO_REDIRECT_URI?"),
        ({"client_id": 1.5}, "DEVKIT_SSO_CLIENT_ID must be a string, not float: quote it"),
        ({"client_id": True}, "must be a string, not bool: quote it"),
        ({"client_secret": " s"}, "DEVKIT_SSO_CLIENT_SECRET begins or ends with a space"),
        (
            {"client_secret": "a\nb"},
            "DEVKIT_SSO_CLIENT_SECRET begins or ends with a space, or contains an invisible",
        ),
        ({"server_url": "auth.example.com"}, "must be an absolute URL"),
        ({"server_url": "https://"}, "must be an absolute URL"),
        ({"server_url": "ftp://auth.example.com"}, "must be an absolute URL"),
        ({"server_url": "https://a.example:x"}, "is not a valid URL"),
        ({"server_url": "https://a..example"}, "a host name that cannot exist"),
        ({"redirect_uri": f"https://{'a' * 64}.example/cb"}, "a host name that cannot exist"),
        ({"redirect_uri": f"https://{'a.' * 127}example/cb"}, "a host name that cannot exist"),
        ({"server_url": "https://a.example/?x=1"}, "must not have a query"),
        ({"server_url": "https://me:pw@a.example"}, "must not contain a user name"),
        ({"server_url": "https://验.example"}, "must be ASCII"),
        (
            {"server_url": "http://auth.example.com"},
            "DEVKIT_SSO_SERVER_URL is plain http",
        ),
        ({"token_url": "http://auth.example.com/t"}, "DEVKIT_SSO_TOKEN_URL is plain http"),
        ({"server_url": "HTTP://auth.example.com"}, "DEVKIT_SSO_SERVER_URL is plain http"),
        (
            {"redirect_uri": "http://app.example/sso/callback"},
            "REDIRECT_URI is plain http",
        ),
        ({"redirect_uri": "https://app.example/cb "}, "ends with a space"),
        ({"after_login_url": "//evil.example"}, "must be a path on this site"),
        ({"after_login_url": "https://evil.example"}, "must be a path on this site"),
        (
            {"after_logout_url": "http://evil.example"},
            "AFTER_LOGOUT_URL is plain http",
        ),
        ({"url_prefix": "sso"}, "must be a path like /sso"),
        ({"url_prefix": "/sso/"}, "must be a path like /sso"),
        ({"timeout": "5"}, "must be a number of seconds or a timedelta, not str"),
        ({"timeout": 0}, "must be greater than zero"),
        ({"timeout": float("nan")}, "must be greater than zero"),
        ({"login_ttl": True}, "not bool"),
        ({"pkce": "True"}, "must be True or False, not str (in the environment true or false, in"),
        ({"redirect_uri": "app.example/#/"}, "absolute URL, like https://app.example.com/#/login"),
        ({"binding": "cookie"}, "DEVKIT_SSO_BINDING must be"),
        ({"store_url": "postgres://x"}, "must be sqlite:///file"),
        ({"store_url": "sqlite:///"}, "must be sqlite:///file"),
        (
            {"store_url": "redis://:canary/x@h"},
            "with special characters in the password percent-enc",
        ),
        ({"store_url": "redis://:canary#x@h"}, "%23 for #"),
        ({"cookie_name": "a b"}, "may contain only letters, digits"),
        ({"cookie_name": "session"}, "COOKIE_NAME is the name of Flask's own cookie"),
        ({"cookie_name": "__Host-session"}, "COOKIE_NAME is the name of Flask's own cookie"),
        ({"server_url": "https://*.example.com"}, "must not contain a wildcard (*)"),
        ({"redirect_uri": "https://*.example.com/#/login"}, "must not contain a wildcard (*)"),
        ({"redirect_uri": "https://app.example.com/*"}, "must not contain a wildcard (*)"),
        ({"after_logout_url": "https://*.example.com/"}, "must not contain a wildcard (*)"),
        ({"token_url": "https://*/token"}, "must not contain a wildcard (*)"),
        ({"ca_bundle": "/nowhere/ca.pem"}, "is not a readable PEM file"),
        ({"tls_hostname": "*.example.com"}, "must not contain a wildcard (*)"),
        ({"tls_hostname": "a.example, b.example"}, "must be one host name"),
        ({"tls_hostname": "https://a.example"}, "must be one host name"),
        ({"tls_hostname": "10.0.0.1"}, "must be one host name"),
        *(
            (
                {"tls_hostname": "auth.example.com", name: "https://other.example/"},
                "the URLs of the interfaces have several: 127.0.0.1, other.example",
            )
            for name in ("token_url", "user_info_url", "refresh_url", "logout_url", "validity_url")
        ),
        ({"revalidate_after": 1000}, "OUTAGE_GRACE (900) must be at least"),
        ({"validity_url": "https://a.example/v"}, "VALIDITY_FIELD and DEVKIT_SSO_VALIDITY_KEY"),
        ({"validity_key": "name"}, 'must be "uid" or "username"'),
    ],
)
def test_an_invalid_setting_is_refused(
    make_app: AppMaker, settings: dict[str, Any], text: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        make_app(**settings)
    assert text in str(refused.value)
    assert "canary" not in str(refused.value)
    assert isinstance(refused.value, SSOError)


@pytest.mark.parametrize(
    ("flasks", "ours", "is_refused"),
    [
        ("app", "app", True),
        ("__Host-app", "app", True),
        ("app", "__Secure-app", True),
        ("app", "session", False),
        ("app", "app2", False),
        ("session", None, False),
    ],
)
def test_our_cookie_is_not_flasks(flasks: str, ours: str | None, is_refused: bool) -> None:
    app = Flask("tests")
    app.config.update(SESSION_COOKIE_NAME=flasks, DEVKIT_SSO_COOKIE_NAME=ours)
    if is_refused:
        with pytest.raises(ConfigError, match="SESSION_COOKIE_NAME"):
            DevKitSSO(app)
    else:
        DevKitSSO(app)


def test_null_is_refused_for_a_required_value() -> None:
    app = Flask("tests")
    app.config["DEVKIT_SSO_CLIENT_ID"] = None
    with pytest.raises(ConfigError, match="must be a string, not null"):
        DevKitSSO(app)


def test_all_errors_are_reported_at_once(make_app: AppMaker) -> None:
    with pytest.raises(ConfigError) as refused:
        make_app(timeout=0, pkce=1)
    assert len(str(refused.value).splitlines()) == 2


def test_initializing_an_application_twice_is_an_error(app: Flask) -> None:
    with pytest.raises(ConfigError, match="call init_app only once"):
        DevKitSSO(app)


def test_times_may_be_timedeltas(make_app: AppMaker) -> None:
    client = make_app(login_ttl=timedelta(minutes=2)).test_client()
    cookie = client.get("/sso/authorize").headers["Set-Cookie"]
    assert "Max-Age=120;" in cookie


def test_insecure_http_is_allowed_with_a_warning(
    make_app: AppMaker, caplog: pytest.LogCaptureFixture
) -> None:
    make_app(server_url="http://auth:9000", insecure_http=True)
    assert "DEVKIT_SSO_INSECURE_HTTP" in caplog.text


def test_a_numeric_client_id_from_the_environment(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The digits arrive as an int, and the README's program must still work."""
    monkeypatch.setenv("FLASK_DEVKIT_SSO_CLIENT_ID", "20221017000000001")
    monkeypatch.setenv("FLASK_DEVKIT_SSO_CLIENT_SECRET", "12345")
    monkeypatch.setenv("FLASK_DEVKIT_SSO_SERVER_URL", server.url)
    monkeypatch.setenv("FLASK_SECRET_KEY", "7f3d-that-nobody-knows-at-all")
    app = Flask("tests", instance_path=str(tmp_path))
    app.config.from_prefixed_env()
    assert isinstance(app.config["DEVKIT_SSO_CLIENT_ID"], int)
    DevKitSSO(app)
    sign_in(app.test_client())
    assert server.seen[0].json["client_id"] == "20221017000000001"
    assert server.seen[0].json["client_secret"] == "12345"


def test_without_redirect_uri_a_loopback_host_uses_its_callback(make_app: AppMaker) -> None:
    client = make_app(redirect_uri=None).test_client()
    for host in ("localhost:5000", "127.0.0.1:5000", "[::1]:5000"):
        sent = start(client, base_url=f"http://{host}")
        assert sent["redirect_uri"] == f"http://{host}/sso/callback"


def test_without_redirect_uri_another_host_cannot_sign_in(make_app: AppMaker) -> None:
    client = make_app(redirect_uri=None).test_client()
    for path in ("/sso/authorize", "/private"):
        response = client.get(path, base_url="http://app.example")
        assert (response.status_code, reason(response)) == (503, "not_configured")


MISSING = [
    ({"client_id": None}, "DEVKIT_SSO_CLIENT_ID"),
    ({"client_secret": None}, "DEVKIT_SSO_CLIENT_SECRET"),
    ({"client_secret": ""}, "DEVKIT_SSO_CLIENT_SECRET"),
    ({"server_url": None}, "DEVKIT_SSO_SERVER_URL"),
]


@pytest.mark.parametrize(("settings", "key"), MISSING)
def test_an_application_starts_with_a_missing_setting(
    make_app: AppMaker, settings: dict[str, Any], key: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = make_app(**settings)
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 1
    assert f"{key} is missing. Run `flask devkit-sso register`, which" in errors[0].getMessage()
    client = app.test_client()
    assert client.get("/").text == "home"
    for path in ("/sso/authorize", "/private"):
        response = client.get(path)
        assert (response.status_code, reason(response)) == (503, "not_configured")
        assert response.headers["Retry-After"]
        assert key not in response.text
    assert f"{key} is missing" in caplog.text
    app.debug = True
    assert f"{key} is missing" in client.get("/private").text


def test_five_single_urls_replace_the_server_url(
    make_app: AppMaker, server: ScriptedServer
) -> None:
    urls = {
        f"{name}_url": f"{server.url}/sso/oauth2/{path}"
        for name, path in [
            ("authorize", "authorize"),
            ("token", "getToken"),
            ("user_info", "getUserInfo"),
            ("refresh", "refreshToken"),
            ("logout", "logout"),
        ]
    }
    sign_in(make_app(server_url=None, **urls).test_client())
    response = make_app(DevKitSSO(), **urls | {"server_url": None, "logout_url": None})
    assert reason(response.test_client().get("/private")) == "not_configured"


def test_the_server_url_may_have_a_path(make_app: AppMaker) -> None:
    client = make_app(server_url="https://auth.example.com/auth/").test_client()
    location = client.get("/sso/authorize").location
    assert location.startswith("https://auth.example.com/auth/sso/oauth2/authorize?client_id=")


@pytest.mark.parametrize(
    "key", [None, "dev", "0123456789abcde", "change-me-in-production", "a" * 40]
)
def test_a_missing_or_weak_secret_key(
    server: ScriptedServer, tmp_path: Path, key: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    app = Flask("tests", instance_path=str(tmp_path))
    app.config.update(
        SECRET_KEY=key,
        DEVKIT_SSO_CLIENT_ID=CLIENT_ID,
        DEVKIT_SSO_CLIENT_SECRET="s",
        DEVKIT_SSO_SERVER_URL=server.url,
    )
    DevKitSSO(app)
    app.add_url_rule("/private", view_func=login_required(lambda: "private"))
    client = app.test_client()
    assert ("SECRET_KEY" in caplog.text) == (key is None)
    assert reason(client.get("/private")) == "not_configured"
    for line in (caplog.messages[0], caplog.messages[-1]):
        assert ". Create one with python -c 'import secrets" in line
        assert "register" not in line, "register creates no key"
    app.testing = True  # set after init_app, as tests do
    assert client.get("/private").status_code == (503 if key is None else 302)


@pytest.mark.parametrize("fallbacks", ["an-old-key-of-28-characters-", b"bytes", 12345, {"a": 1}])
def test_fallback_keys_must_be_a_list(make_app: AppMaker, fallbacks: Any) -> None:
    """Each character of a string would become a key with which cookies could be forged."""
    config = make_app().config
    app = Flask("tests")
    app.config.update(config, SECRET_KEY_FALLBACKS=fallbacks)
    with pytest.raises(ConfigError, match="SECRET_KEY_FALLBACKS must be a list") as refused:
        DevKitSSO(app)
    assert "an-old-key" not in str(refused.value)


def test_a_weak_fallback_key_is_refused_like_a_weak_key(make_app: AppMaker) -> None:
    config = make_app().config
    app = Flask("tests")
    app.config.update(config, SECRET_KEY_FALLBACKS=["dev"])
    DevKitSSO(app)
    app.add_url_rule("/private", view_func=login_required(lambda: "private"))
    assert reason(app.test_client().get("/private")) == "not_configured"


def test_environment_variables_that_are_set_but_not_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("FLASK_DEVKIT_SSO_SERVER_URL", "https://auth.example.com")
    monkeypatch.setenv("FLASK_SECRET_KEY", "8b7c1f02aa93e6d4-no-one-knows-this")
    DevKitSSO(Flask("tests", instance_path=str(tmp_path)))
    for key in ("DEVKIT_SSO_SERVER_URL", "SECRET_KEY"):
        assert f"{key} is missing, because FLASK_{key} is set but was not read" in caplog.text
    assert "DEVKIT_SSO_CLIENT_ID is missing. " in caplog.text
    assert "no-one-knows-this" not in caplog.text


def test_signed_in_users_also_see_that_a_setting_is_missing(
    make_app: AppMaker, server: ScriptedServer
) -> None:
    """Nobody could revalidate these users."""
    client = make_app().test_client()
    sign_in(client)
    assert client.get("/private").text == "private ada"
    server.seen.clear()
    for app in (make_app(client_secret=None), make_app(store_url="memory://")):
        other = app.test_client()
        carry_cookies(client, other)
        assert reason(other.get("/private")) == "not_configured"
        assert other.get("/").text == "home"
        # Sessions made by login_as need no server.
        app.testing = True
        login_as(other, "bob")
        assert other.get("/private").text == "private bob"
    assert server.seen == []


def test_a_store_in_memory_requires_debug_or_testing(make_app: AppMaker) -> None:
    app = make_app(store_url="memory://")
    assert reason(app.test_client().get("/private")) == "not_configured"
    app.debug = True
    sign_in(app.test_client())


def test_the_store_file_is_created_on_first_use(make_app: AppMaker, tmp_path: Path) -> None:
    client = make_app().test_client()
    client.get("/")
    client.get("/private")
    start(client)
    assert list(tmp_path.iterdir()) == []
    sign_in(client)
    assert (tmp_path / "devkit_sso.db").stat().st_mode & 0o777 == 0o600


def test_reprs_of_settings_and_service_show_no_secret(app: Flask) -> None:
    state = app.extensions["devkit_sso"]
    shown = repr(state) + repr(vars(state)) + repr(state.settings.server) + str(state.settings)
    assert "canary-client-secret" not in shown
    assert CLIENT_ID in shown
