"""The texts of all pages in both languages, and templates and texts of the application."""

from __future__ import annotations

import logging
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from jinja2 import DictLoader, FunctionLoader
from markupsafe import escape
from werkzeug.test import TestResponse

import flask_devkit_sso

from ..conftest import SIGNED_IN, AppMaker, come_back, leads_to, sign_in, start
from ..login_failures import FAILURES
from ..scripted import GET_USER_INFO, LOGOUT, ScriptedServer, fails, says

MESSAGES = Path(flask_devkit_sso.__file__).parent / "templates/devkit_sso/messages"
TEXTS = {
    name: tomllib.loads((MESSAGES / f"{name}.toml").read_text("utf-8")) for name in "en zh".split()
}
HTML = {"Accept": "text/html,*/*;q=0.8"}
JSON = {"Accept": "application/json"}

TITLES = {
    "login_expired": ("Your sign-in took too long", "登录超时"),
    "login_unknown": ("This sign-in is no longer valid", "本次登录已失效"),
    "cookie_missing": ("The sign-in cookie is missing", "缺少登录所需的 Cookie"),
    "state_missing": ("Security information is missing", "缺少登录校验信息"),
    "state_mismatch": ("This sign-in couldn’t be verified", "登录校验未通过"),
    "code_missing": ("The sign-in is incomplete", "登录信息不完整"),
    "denied": ("The sign-in was cancelled or denied", "登录已取消或被拒绝"),
    "authorize_error": ("The sign-in service reported an error", "统一认证平台返回错误"),
    "server_rejected": ("The sign-in service rejected the request", "统一认证平台拒绝了请求"),
    "server_unavailable": ("The sign-in service is unavailable", "统一认证平台暂时不可用"),
    "server_answer_invalid": (
        "The sign-in service sent an unexpected response",
        "统一认证平台响应异常",
    ),
    "refused": ("You can’t sign in to this site", "您的账号无法登录本站"),
    "cross_site": ("This request was blocked", "请求已被拦截"),
    "not_configured": ("Sign-in isn’t set up yet", "登录功能尚未配置"),
    "store_unavailable": ("This site can’t check your sign-in right now", "暂时无法获取登录状态"),
}
RETRY_LINKS = {
    "cross_site": ("/sso/logout", "Try again", "重试"),
    "not_configured": ("/sso/authorize?next=/private", "Try again", "重试"),
    "store_unavailable": ("/sso/authorize", "Try again", "重试"),
}
"""Reasons whose page has another link than one to sign in again."""
WITH_NEXT = (
    *("code_missing", "denied", "authorize_error", "server_rejected", "server_unavailable"),
    *("server_answer_invalid", "refused"),
)
"""Reasons for which the page that the login was for is known."""
NO_LOGIN = ("cross_site", "not_configured", "store_unavailable")


def check_language(response: TestResponse, language: str) -> None:
    assert response.headers["Content-Language"] == language
    assert "Accept-Language" in response.headers["Vary"]
    if response.mimetype == "text/html":
        assert re.findall(r"<html lang=\"([^\"]*)\"", response.text) == [language]


@pytest.mark.parametrize("reason", FAILURES)
def test_every_reason_in_both_languages_as_html_and_json(
    make_app: AppMaker,
    server: ScriptedServer,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    reason: str,
) -> None:
    status, set_up = FAILURES[reason]
    fail = set_up(make_app, server, tmp_path)
    login_url = "/sso/authorize?next=/" if reason in WITH_NEXT else "/sso/authorize"
    url, *labels = RETRY_LINKS.get(reason, (login_url, "Sign in again", "重新登录"))
    for place, language in enumerate(("en", "zh")):
        texts = TEXTS[language]["failure"][reason]

        page = fail({**HTML, "Accept-Language": language})
        assert page.status_code == status
        check_language(page, language)
        title = str(escape(TITLES[reason][place]))
        assert f'data-reason="{reason}"' in page.text
        assert f"<title>{title}</title>" in page.text
        assert f"<h1>{title}</h1>" in page.text
        assert f"<p>{escape(texts['message'])}</p>" in page.text
        assert f"<p>{escape(texts['advice'])}</p>" in page.text
        assert f'<a class="button primary" href="{url}">{labels[place]}</a>' in page.text
        assert "docs/failures.md" not in page.text

        script = fail({**JSON, "Accept-Language": language})
        assert script.status_code == status
        check_language(script, language)
        assert script.json == {
            "error": reason,
            "message": texts["message"],
            "reference": script.json["reference"],
            "login_url": None if reason in NO_LOGIN else "/sso/authorize",
        }

        what = "request" if reason in NO_LOGIN else "login"
        lines = [line for line in caplog.messages if line.startswith(f"{what} failed: ")]
        for reference, line in zip(
            (re.findall(r"<code>(\w+)</code>", page.text)[0], script.json["reference"]),
            lines[-2:],
            strict=True,
        ):
            head = f"{what} failed: {reason} (reference {reference}, see docs/failures.md#{reason})"
            assert line.startswith(head)
        for response in (page, script):
            assert ("Retry-After" in response.headers) == (status == 503)


@pytest.mark.parametrize(
    ("binding", "others"),
    [("state", ("'redirect_uri'", "'confirm'")), ("redirect_uri", ("'state'", "'confirm'"))],
)
def test_state_missing_logs_the_fix(
    make_app: AppMaker, caplog: pytest.LogCaptureFixture, binding: str, others: tuple[str, ...]
) -> None:
    app = make_app(binding=binding)
    client = app.test_client()
    for debug in (False, True):
        app.debug = debug
        client.get("/sso/authorize")
        page = client.get("/sso/callback?code=C", headers={**HTML, "Accept-Language": "zh"})
        for word in (*others, "DEVKIT_SSO_BINDING", "flask devkit-sso check-server"):
            assert word in caplog.messages[-1]
            assert (str(escape(word)) in page.text) == debug
        assert ("docs/failures.md#state_missing" in page.text) == debug
        assert f"set DEVKIT_SSO_BINDING to {others[0]}" in caplog.messages[-1]


def test_not_configured_logs_the_command(
    make_app: AppMaker, caplog: pytest.LogCaptureFixture
) -> None:
    make_app(client_id=None).test_client().get("/sso/authorize")
    line = caplog.messages[-1]
    assert "DEVKIT_SSO_CLIENT_ID is missing. Run `flask devkit-sso register`" in line
    assert "without a server, start `python -m flask_devkit_sso.sandbox`" in line
    assert caplog.records[-1].levelno == logging.ERROR


def test_the_hint_is_a_list(make_app: AppMaker) -> None:
    app = make_app(client_id=None, client_secret=None)
    app.debug = True
    page = app.test_client().get("/private", headers=HTML).text
    items = re.findall(r"<li lang=\"en\">(.*?)</li>", page)
    assert items[:2] == ["DEVKIT_SSO_CLIENT_ID is missing.", "DEVKIT_SSO_CLIENT_SECRET is missing."]
    assert items[2].startswith("Run <code>flask devkit-sso register</code>,")
    assert "start <code>python -m flask_devkit_sso.sandbox</code>" in items[3]
    assert "<li><code>docs/failures.md#not_configured</code></li>" in page


def test_a_failed_page_load_can_be_repeated(make_app: AppMaker) -> None:
    client = make_app(client_id=None).test_client()
    page = client.get("/private?a=1&b=%22", headers=HTML)
    assert '<a class="button primary" href="/private?a=1&amp;b=%22">Try again</a>' in page.text
    assert "<a " not in client.post("/private", headers=HTML).text


# The language of a page.

ACCEPT: list[tuple[str | None, str]] = [
    (None, "en"),
    ("", "en"),
    ("*", "en"),
    ("en", "en"),
    ("en-GB", "en"),
    ("en-GB,zh;q=0.5", "en"),
    ("zh;q=0.5,en-GB", "en"),
    ("en-US,en;q=0.9,zh-CN;q=0.8", "en"),
    ("zh", "zh"),
    ("ZH-cn", "zh"),
    ("zh-CN,zh;q=0.9,en;q=0.8", "zh"),
    ("zh-Hans", "zh"),
    ("zh-TW", "zh"),
    ("zh-Hant-TW", "zh"),
    ("zh-TW,en;q=0.9", "zh"),
    ("en;q=0.2,zh-HK;q=0.9", "zh"),
    ("fr,zh;q=0.3,en;q=0.2", "zh"),
    ("de-CH,fr;q=0.9,*;q=0.1", "en"),
    ("fr, de", "en"),
    ("zh;q=0", "en"),
    ("en;q=0,zh;q=0.1", "zh"),
    ("zho", "en"),
    ("z", "en"),
    ("-", "en"),
    ("../zh", "en"),
    ("zh;q=abc", "en"),
    ("\x00;;,,", "en"),
    (",".join(f"x{n}" for n in range(500)) + ",zh", "zh"),
    ("zh-Hans-CN-u-ca-chinese-nu-hanidec", "zh"),
    ("zh" + "-x" * 4000, "en"),
]


@pytest.mark.parametrize(("accept", "language"), ACCEPT)
def test_the_requested_language(client: FlaskClient, accept: str | None, language: str) -> None:
    headers = {} if accept is None else {"Accept-Language": accept}
    for response in (
        client.get("/sso/signed-out", headers={**HTML, **headers}),
        client.get("/sso/callback", headers={**JSON, **headers}),
    ):
        check_language(response, language)


def test_every_other_page_in_chinese(make_app: AppMaker, server: ScriptedServer) -> None:
    """The username contains markup, and role names are not translated."""
    name = "<b>小明</b>{roles}"
    user = {"uid": "u-2", "username": name, "role": "User"}
    server.answers[GET_USER_INFO] = says({"code": "2000", "data": user})
    zh = {**HTML, "Accept-Language": "zh"}
    shown = "<bdi>&lt;b&gt;小明&lt;/b&gt;{roles}</bdi>"
    client = make_app().test_client()

    def expect(response: TestResponse, *texts: str) -> TestResponse:
        check_language(response, "zh")
        assert "form-action 'self'" in response.headers["Content-Security-Policy"]
        for text in texts:
            assert text in response.text
        assert "<b>小明" not in response.text
        assert not re.search(r">[^<]*[a-z]{3,} [a-z]{3,}", response.text.partition("<main>")[2])
        return response

    expect(client.get("/sso/signed-out", headers=zh), "<h1>您尚未登录</h1>", ">登录</a>")
    expect(client.post("/private", headers=zh), "<h1>表单提交失败</h1>", ">在新标签页中登录</a>")
    framed = client.get("/private", headers={**zh, "Sec-Fetch-Dest": "iframe"})
    expect(framed, "<h1>请登录</h1>", "登录后才能查看这部分内容", ">登录</a>")
    sign_in(client)
    expect(client.get("/sso/signed-out", headers=zh), "<h1>您已登录</h1>", shown, ">退出登录</a>")
    expect(
        client.get(SIGNED_IN, headers=zh), f"<h1>当前登录账号：{shown}</h1>", ">退出登录</button>"
    )
    expect(client.get("/sso/logout", headers=zh), "<h1>确定要退出登录吗？</h1>", shown, ">取消</a>")
    expect(
        client.get("/admin", headers=zh), "<h1>您没有权限访问此页面</h1>", "仅限 Admin 角色", shown
    )
    same = {"Sec-Fetch-Site": "same-origin"}
    signed_out = client.get(client.post("/sso/logout", headers=same).location, headers=zh)
    expect(signed_out, "<h1>您已退出登录</h1>")
    sign_in(client)
    server.answers[LOGOUT] = fails("8500")
    not_told = client.get(client.post("/sso/logout", headers=same).location, headers=zh)
    expect(not_told, "<h1>您已退出本站</h1>", 'role="alert"')

    client = make_app(binding="confirm").test_client()
    expect(client.get("/sso/authorize", headers=zh), "<h1>要登录本站吗？</h1>", "尚未登录本站")
    forward = client.post("/sso/authorize", headers={**zh, **same})
    expect(forward, "<h1>请稍候</h1>", "<p>正在跳转到下一个页面…</p>", ">继续</a>")
    address = client.get("/sso/callback?code=C").location
    expect(
        client.get(address, headers=zh),
        f"<h1>以 {shown} 的身份登录？</h1>",
        "<p>账号 ID：<b><bdi>u-2</bdi></b></p>",
        "不是我的账号</button>",
    )
    answered = client.post(address, data={"answer": "yes"}, headers={**zh, **same})
    assert leads_to(expect(answered, "<h1>您已登录</h1>", "下载列表", ">返回首页</a>")) == "/"
    expect(client.get("/sso/authorize", headers=zh), shown, "（账号 ID：", ">重新登录</button>")

    client = make_app(redirect_uri="http://localhost/#/login").test_client()
    leaving = client.get("/sso/authorize", headers={**zh, "Sec-Fetch-Dest": "document"})
    expect(leaving, "<h1>正在登录</h1>", "<p>正在前往统一认证平台…</p>")
    landing = client.get("/", headers=zh)
    expect(landing, "<h1>正在登录</h1>", "<p>请稍候…</p>", ">重新登录</a>")
    expect(landing, "<h1>网站没有响应</h1>")


# Templates and texts of the application.


@pytest.fixture
def with_templates(make_app: AppMaker, tmp_path: Path) -> Callable[[dict[str, bytes]], Flask]:
    """Make an application with these files in its templates folder."""

    def make(files: dict[str, bytes]) -> Flask:
        app = make_app()
        app.root_path = str(tmp_path)
        for name, content in files.items():
            path = tmp_path / "templates" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return app

    return make


def test_the_applications_template_takes_precedence(
    with_templates: Callable[[dict[str, bytes]], Flask],
) -> None:
    app = with_templates(
        {
            "devkit_sso/base.html": b"<title>{% block title %}{% endblock %}</title>"
            b"<p>ours in {{ language }}</p>{% block main %}{% endblock %}",
            "devkit_sso/logout.html": b'<p>{{ sso_text("logout.title") }} {{ username }}',
        }
    )
    client = app.test_client()
    page = client.get("/sso/signed-out").text
    assert page.startswith("<title>You are not signed in</title><p>ours in en</p>")
    assert "<h1>You are not signed in</h1>" in page
    sign_in(client)
    assert client.get("/sso/logout").text == "<p>Sign out? ada"


FRENCH = """
[action]
sign_in = "Se connecter <b>"
[signed_out.unknown]
title = "Vous n’êtes pas connecté"
""".encode()


def test_a_third_language(with_templates: Callable[[dict[str, bytes]], Flask]) -> None:
    app = with_templates({"devkit_sso/messages/fr.toml": FRENCH})
    client = app.test_client()
    for accept in ("fr", "fr-CH,en;q=0.5", "de,fr;q=0.9,en;q=0.8"):
        page = client.get("/sso/signed-out", headers={"Accept-Language": accept})
        check_language(page, "fr")
        assert "<h1>Vous n’êtes pas connecté</h1>" in page.text
        assert ">Se connecter &lt;b&gt;</a>" in page.text
        # Missing texts fall back to English.
        assert "This site can’t tell whether" in page.text
    check_language(client.get("/sso/signed-out", headers={"Accept-Language": "en,fr;q=0.9"}), "en")


def test_other_wording(with_templates: Callable[[dict[str, bytes]], Flask]) -> None:
    app = with_templates(
        {
            "devkit_sso/messages/zh.toml": '[action]\nsign_in = "登入"'.encode(),
            "devkit_sso/messages/en.toml": b'[failure.login_unknown]\nmessage = "Once more!"',
            "devkit_sso/messages/pt-BR.toml": b'[action]\nsign_in = "Entrar"',
        }
    )
    client = app.test_client()
    page = client.get("/sso/signed-out", headers={"Accept-Language": "zh-CN"}).text
    assert ">登入</a>" in page
    assert "<h1>您尚未登录</h1>" in page
    assert client.get("/sso/callback", headers=JSON).json["message"] == "Once more!"
    page = client.get("/sso/callback", headers=HTML).text
    assert "<p>Once more!</p>" in page
    assert "<h1>This sign-in is no longer valid</h1>" in page
    brazilian = client.get("/sso/signed-out", headers={"Accept-Language": "pt-br"})
    check_language(brazilian, "pt-BR")
    assert ">Entrar</a>" in brazilian.text
    check_language(client.get("/sso/signed-out", headers={"Accept-Language": "pt"}), "en")


BROKEN = {
    "no TOML": b"[action\nsign_in = ",
    "no text": b"[action]\nsign_in = 3",
    "not UTF-8": b'[action]\nsign_in = "\xff\xfe"',
    "a text for a table": b'action = ["x"]',
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("language", ["en", "zh", "fr"])
def test_an_invalid_catalogue_breaks_nothing(
    with_templates: Callable[[dict[str, bytes]], Flask],
    caplog: pytest.LogCaptureFixture,
    language: str,
    content: bytes,
) -> None:
    app = with_templates({f"devkit_sso/messages/{language}.toml": content})
    client = app.test_client()
    title = {"zh": "您尚未登录"}.get(language, "You are not signed in")
    for _ in range(2):
        page = client.get("/sso/signed-out", headers={"Accept-Language": language})
        assert page.status_code == 200
        check_language(page, "zh" if language == "zh" else "en")
        assert f"<h1>{title}</h1>" in page.text
    # The file is read only once.
    (line,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert f"templates/devkit_sso/messages/{language}.toml is ignored" in line.getMessage()


def test_unknown_names_and_placeholders_break_nothing(
    with_templates: Callable[[dict[str, bytes]], Flask],
) -> None:
    app = with_templates(
        {
            "devkit_sso/messages/en.toml": b'[logout]\ntext = "{ {} {x} {username.x} {username}"',
            "devkit_sso/base.html": b'{{ sso_text("no.such") }}: {% block main %}{% endblock %}',
        }
    )
    client = app.test_client()
    sign_in(client)
    page = client.get("/sso/logout").text
    assert "{ {} {x} {username.x} <b><bdi>ada</bdi></b>" in page
    assert page.startswith("no.such: ")


def test_catalogues_are_reloaded_with_templates(
    with_templates: Callable[[dict[str, bytes]], Flask], tmp_path: Path
) -> None:
    name = "devkit_sso/messages/en.toml"
    text = '[action]\nsign_in = "%s"'
    for reload, expected in ((False, "one"), (True, "two")):
        app = with_templates({name: (text % "one").encode()})
        app.config["TEMPLATES_AUTO_RELOAD"] = reload
        client = app.test_client()
        assert ">one</a>" in client.get("/sso/signed-out").text
        (tmp_path / "templates" / name).write_text(text % "two", "utf-8")
        assert f">{expected}</a>" in client.get("/sso/signed-out").text


@pytest.mark.parametrize("can_list", [True, False])
def test_other_loaders(make_app: AppMaker, can_list: bool) -> None:
    """A loader that cannot list its templates can still replace texts of the built-in languages."""
    texts = {"devkit_sso/messages/zh.toml": '[action]\nsign_in = "登入"'}
    loader: Any = DictLoader(texts) if can_list else FunctionLoader(texts.get)
    app = make_app()
    app.jinja_loader = loader
    page = app.test_client().get("/sso/signed-out", headers={"Accept-Language": "zh"})
    assert ">登入</a>" in page.text


def test_two_applications_have_their_own_catalogues(
    make_app: AppMaker, with_templates: Callable[[dict[str, bytes]], Flask]
) -> None:
    french = with_templates({"devkit_sso/messages/fr.toml": FRENCH})
    other = make_app()
    other.jinja_loader = DictLoader({})
    for app, language in ((french, "fr"), (other, "en"), (french, "fr")):
        response = app.test_client().get("/sso/signed-out", headers={"Accept-Language": "fr"})
        check_language(response, language)


def test_the_reason_given_by_the_application_is_shown_unchanged(make_app: AppMaker) -> None:
    sso = flask_devkit_sso.DevKitSSO()

    @sso.on_login
    def refuse(user: object) -> None:
        raise flask_devkit_sso.LoginRefused("Not on a {reference} <b>!")

    client = make_app(sso).test_client()
    page = come_back(client, start(client)["state"], headers={**HTML, "Accept-Language": "zh"})
    assert "<p>Not on a {reference} &lt;b&gt;!</p>" in page.text
    assert "<h1>您的账号无法登录本站</h1>" in page.text
