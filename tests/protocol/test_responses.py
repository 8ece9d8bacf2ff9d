"""Validation of the server's responses: docs/protocol.md "Common to all", sections 2 and 3.

The responses are written out as bytes or JSON and sent over a socket.
"""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

import pytest
from flask.testing import FlaskClient

from flask_devkit_sso import DevKitSSO

from ..clock import advance
from ..conftest import AppMaker, come_back, reason, sign_in, start
from ..scripted import (
    ADA,
    GET_TOKEN,
    GET_USER_INFO,
    REFRESH_TOKEN,
    TOKEN,
    ScriptedServer,
    fails,
    says,
)

ERROR_CODES = "8101 8102 8103 8104 8105 8106 8107 8201 8202 8203 8204 8205 8206 8207 8500".split()


def token(**data: Any) -> dict[str, Any]:
    merged = TOKEN["data"] | data  # type: ignore[operator]
    return TOKEN | {"data": {name: v for name, v in merged.items() if v is not ...}}


def user(**data: Any) -> dict[str, Any]:
    merged = ADA["data"] | data  # type: ignore[operator]
    return ADA | {"data": {name: v for name, v in merged.items() if v is not ...}}


def outcome(client: FlaskClient) -> str:
    """Return "in" after a successful login, and the reason after a failed one."""
    response = come_back(client, start(client)["state"])
    signed_in = client.get("/who").json["is_authenticated"]
    if response.status_code == 303:
        assert signed_in
        return "in"
    assert not signed_in
    assert response.status_code in (502, 503)
    return reason(response)


PLAIN = b'{"code":"2000","data":{"access_token":"a","refresh_token":"r"}}'

ACCEPTED = [
    TOKEN,
    TOKEN | {"code": 2000},
    {"code": "2000", "data": TOKEN["data"]},
    TOKEN | {"extra": [1], "message": None},
    token(token_type="Bearer", scope="openid", id_token="x.y.z", error="none"),
    token(expires_in="3600"),
    token(expires_in="1"),
    token(expires_in=1),
    token(expires_in=86400),
    token(expires_in="99999999999999999999"),
    token(expires_in=...),
    b"\xef\xbb\xbf" + PLAIN,
    token(access_token="! ~", refresh_token="#[]"),
    token(access_token="a" * 65_536),
    PLAIN[:-1] + b', "message": "\\ud800\\u0000", "more": {"a": [1e999, -0, "\xc2\x85"]}}',
]


@pytest.mark.parametrize("answer", ACCEPTED, ids=lambda answer: str(answer)[:60])
def test_accepted_token_responses(client: FlaskClient, server: ScriptedServer, answer: Any) -> None:
    server.answers[GET_TOKEN] = says(answer)
    assert outcome(client) == "in"
    assert server.paths == [GET_TOKEN, GET_USER_INFO]


UTF_16_AND_32 = ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be")

INVALID: list[Any] = [
    b'{"code": "8204", "data": {"access_token": "a", "refresh_token": "r"}, "code": "2000"}',
    b'{"code": "2000", "data": {"access_token": "a", "access_token": "b", "refresh_token": "r"}}',
    b'{"code": "2000", "data": {"access_token": "a", "refresh_token": "r", "x": [{"": 1, "": 1}]}}',
    b"\xef\xbb\xbf" * 2 + PLAIN,
    *(PLAIN.decode().encode(name) for name in UTF_16_AND_32),
    PLAIN.replace(b'"a"', b'"\xe9"'),
    PLAIN.replace(b'"a"', b'"a\0"'),
    PLAIN.replace(b'"a"', b'"a\n"'),
    PLAIN.replace(b'"code"', b'"message":"\xed\xa0\x80","code"'),
    PLAIN + b"\0",
    PLAIN + b"{}",
    PLAIN[:-1],
    *(PLAIN[:-1] + b',"x":%s}' % number for number in (b"NaN", b"Infinity", b"-Infinity")),
    PLAIN[:-1] + b',"x":%s}' % (b"9" * 5000),
    PLAIN[:-1] + b',"x":%s1%s}' % (b"[" * 500_000, b"]" * 500_000),
    b"",
    b"<html>hello</html>",
    b"\xff\xfe",
    b"[" * 100_000,
    b"null",
    b'"2000"',
    [],
    {},
    {"data": TOKEN["data"]},
    TOKEN["data"],
    {"access_token": "a", "token_type": "Bearer", "refresh_token": "r", "expires_in": 60},
    TOKEN | {"code": 2000.0},
    TOKEN | {"code": True},
    TOKEN | {"code": None},
    TOKEN | {"code": "02000"},
    TOKEN | {"code": "2000 "},
    TOKEN | {"code": ["2000"]},
    TOKEN | {"code": "２０００"},
    TOKEN | {"data": None},
    TOKEN | {"data": []},
    TOKEN | {"data": "x"},
    TOKEN | {"data": {}},
    token(access_token=...),
    token(access_token=""),
    token(access_token=" "),
    token(access_token=1),
    token(access_token=None),
    token(access_token=["a"]),
    token(access_token="\ud800"),
    *(token(access_token=f"a{character}") for character in "\0\t\n\r\x1b\x7f\x85\xa0é\u202e中"),
    token(access_token="\na"),
    token(refresh_token="r\0"),
    token(refresh_token="r\n"),
    token(access_token="a" * 65_537),
    token(refresh_token="r" * 65_537),
    token(refresh_token=...),
    token(refresh_token=""),
    token(refresh_token={}),
    token(expires_in=0),
    token(expires_in=-1),
    token(expires_in="0"),
    token(expires_in="-1"),
    token(expires_in=""),
    token(expires_in="soon"),
    token(expires_in="٣٦٠٠"),
    token(expires_in=True),
    token(expires_in=None),
    token(expires_in=60.5),
    token(expires_in=[60]),
]


@pytest.mark.parametrize("answer", INVALID, ids=lambda answer: str(answer)[:60])
def test_invalid_token_responses(client: FlaskClient, server: ScriptedServer, answer: Any) -> None:
    server.answers[GET_TOKEN] = says(answer)
    assert outcome(client) == "server_answer_invalid"
    assert server.paths == [GET_TOKEN]


@pytest.mark.parametrize(("status", "hint"), [(200, True), (404, True), (302, True), (500, False)])
def test_a_response_of_another_service_names_the_requested_url(
    make_app: AppMaker,
    server: ScriptedServer,
    status: int,
    hint: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    url = f"{server.url}/sso/oauth2/getToken"
    server.answers[GET_TOKEN] = says(b"<html>canary-body", status)
    client = make_app(token_url=f"{url}?key=canary-key").test_client()
    assert outcome(client) == "server_answer_invalid"
    text = f"The response of getToken at {url} (HTTP {status}) is not an envelope"
    assert text in caplog.text
    assert (f"{text}: check the URL, including its path" in caplog.text) == hint
    assert "canary" not in caplog.text


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (PLAIN.decode().encode("utf-16"), "is not UTF-8"),
        (PLAIN.replace(b"}}", b'},"code":"2000"}'), "contains a name twice"),
        (PLAIN[:-1] + b',"x":NaN}', "contains NaN, which is not JSON"),
    ],
)
def test_the_log_says_why_json_is_refused(
    client: FlaskClient,
    server: ScriptedServer,
    body: bytes,
    fault: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    server.answers[GET_TOKEN] = says(body)
    assert outcome(client) == "server_answer_invalid"
    assert f"getToken at {server.url}{GET_TOKEN} (HTTP 200) {fault}.\n" in caplog.text


@pytest.mark.parametrize("code", ERROR_CODES)
def test_an_error_code_with_http_200_is_a_failure(
    client: FlaskClient, server: ScriptedServer, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    server.answers[GET_TOKEN] = says(
        {"code": code, "message": "no", "messageArgs": [], "data": TOKEN["data"]}
    )
    assert outcome(client) == "server_rejected"
    assert server.paths == [GET_TOKEN]
    assert f"The server returned {code}: " in caplog.text


@pytest.mark.parametrize(
    ("status", "answer", "expected"),
    [
        (201, TOKEN, "in"),
        (400, TOKEN, "server_answer_invalid"),
        (401, TOKEN, "server_answer_invalid"),
        (500, TOKEN, "server_answer_invalid"),
        (503, TOKEN, "server_answer_invalid"),
        (302, TOKEN, "server_answer_invalid"),
        (400, {"code": "8202", "message": "", "data": {}}, "server_rejected"),
        (500, {"code": "8500", "message": ""}, "server_rejected"),
        (404, b"<h1>Not Found</h1>", "server_answer_invalid"),
        (500, b"<h1>Oops</h1>", "server_answer_invalid"),
        (502, b"<h1>Bad Gateway</h1>", "server_unavailable"),
        (503, b"<h1>Maintenance</h1>", "server_unavailable"),
        (504, b"", "server_unavailable"),
    ],
)
def test_combinations_of_http_status_and_envelope(
    client: FlaskClient, server: ScriptedServer, status: int, answer: Any, expected: str
) -> None:
    server.answers[GET_TOKEN] = says(answer, status, {"Location": server.url + "/elsewhere"})
    assert outcome(client) == expected
    assert "/elsewhere" not in server.paths


@pytest.mark.parametrize(
    ("data", "role"),
    [
        ({"role": "Admin"}, "Admin"),
        ({"role": "User"}, "User"),
        ({"role": "admin"}, None),
        ({"role": "Admin "}, None),
        ({"role": "Auditor"}, None),
        ({"role": ""}, None),
        ({"role": None}, None),
        ({"role": ...}, None),
        ({"role": ["Admin"]}, None),
        ({"role": True}, None),
        ({"role": {"Admin": 1}}, None),
    ],
    ids=str,
)
def test_a_role_is_admin_or_user_or_none(
    client: FlaskClient,
    server: ScriptedServer,
    data: Any,
    role: str | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    server.answers[GET_USER_INFO] = says(user(**data))
    assert outcome(client) == "in"
    who = client.get("/who").json
    assert (who["role"], who["is_admin"]) == (role, role == "Admin")
    sign_in(client.application.test_client())
    warnings = [line for line in caplog.messages if "a role other than Admin or User" in line]
    assert len(warnings) == (role is None), "once per process"
    assert client.get("/admin").status_code == (200 if role == "Admin" else 403)


@pytest.mark.parametrize(
    "answer",
    [
        user(uid=...),
        user(uid=""),
        user(uid=7),
        user(uid=None),
        user(username=...),
        user(username=""),
        user(username=["ada"]),
        user(username="\udfff"),
        user(uid="u-1\0"),
        user(uid="u-1\n"),
        user(uid="\ud800"),
        user(uid="\u2066u-1"),
        *(user(username=f"ada{character}") for character in "\0\t\n\r\x1b\x7f\x85\x9b\u2028\u2029"),
        user(username="ada\u202enimda"),
        user(uid="u" * 513),
        user(username="王" * 513),
        b"{}",
        json.dumps(ADA).encode("utf-16"),
        ADA | {"data": [ADA["data"]]},
    ],
    ids=lambda answer: str(answer)[:80],
)
def test_invalid_user_responses(client: FlaskClient, server: ScriptedServer, answer: Any) -> None:
    server.answers[GET_USER_INFO] = says(answer)
    assert outcome(client) == "server_answer_invalid"
    assert server.paths == [GET_TOKEN, GET_USER_INFO]


@pytest.mark.parametrize(
    ("body", "is_accepted"),
    [
        (b'{"code":"2000","data":{"access_token":"second"}}', True),
        (
            b'\xef\xbb\xbf{"code":"2000","data":{"access_token":"second","refresh_token":null}}',
            True,
        ),
        (b'{"code":"2000","data":{"access_token":"second\\n"}}', False),
        (b'{"code":"2000","data":{"access_token":"second","refresh_token":"r\\u0000"}}', False),
        (b'{"code":"2000","data":{"access_token":"second","refresh_token":""}}', False),
        ('{"code":"2000","data":{"access_token":"second"}}'.encode("utf-16-le"), False),
    ],
)
def test_responses_of_refresh_token(
    make_app: AppMaker, server: ScriptedServer, body: bytes, is_accepted: bool
) -> None:
    sso = DevKitSSO()
    app = make_app(sso)
    app.add_url_rule("/token", view_func=sso.access_token, endpoint="token")
    client = app.test_client()
    server.answers[GET_TOKEN] = says(token(access_token="first", expires_in=1))
    server.answers[REFRESH_TOKEN] = says(body)
    sign_in(client)
    advance(1.1)
    response = client.get("/token")
    if is_accepted:
        assert (response.status_code, response.text) == (200, "second")
    else:
        # It is 503 if the job that the request starts in the background has failed before.
        assert response.status_code in (502, 503)
    assert server.paths[2:] == [REFRESH_TOKEN]


@pytest.mark.parametrize(
    "body",
    [
        '{"code":"2000","data":{"validation_list":[false]}}'.encode("utf-16"),
        b'{"code":"2000","data":{"validation_list":[true],"validation_list":[false]}}',
        b'{"code":"2000","data":{"validation_list":[NaN]}}',
    ],
)
def test_an_invalid_validity_response_ends_no_session(
    make_app: AppMaker, server: ScriptedServer, body: bytes
) -> None:
    app = make_app(
        validity_url=f"{server.url}/validity",
        validity_field="users",
        validity_key="uid",
        revalidate_after=1,
        outage_grace=1,
    )
    client = app.test_client()
    server.answers["/validity"] = says({"code": "2000", "data": {"validation_list": [True]}})
    sign_in(client)
    server.answers["/validity"] = says(body)
    advance(1.1)
    assert client.get("/private").status_code == 503
    server.answers["/validity"] = says({"code": "2000", "data": {"validation_list": [True]}})
    advance(6)
    assert client.get("/private").status_code == 200


def test_a_user_that_the_server_refuses(client: FlaskClient, server: ScriptedServer) -> None:
    server.answers[GET_USER_INFO] = fails("8205")
    assert outcome(client) == "server_rejected"


@pytest.mark.parametrize(
    "name",
    [
        "王小明",
        "José O’Neill-Müller",
        "مریم\u200cگلی",  # Persian, with a joiner
        "\u200fדוד",
        "क्\u200dष",
        "👩\u200d💻",
        "ada\u00a0l.",
        "王" * 512,
    ],
)
def test_names_that_are_accepted(client: FlaskClient, server: ScriptedServer, name: str) -> None:
    server.answers[GET_USER_INFO] = says(user(uid=name, username=name))
    sign_in(client)
    who = client.get("/who").json
    assert (who["uid"], who["username"]) == (name, name)


def test_a_name_on_a_page_is_escaped(client: FlaskClient, server: ScriptedServer) -> None:
    server.answers[GET_USER_INFO] = says(user(username="王小明 <b>&"))
    sign_in(client)
    assert client.get("/who").json["username"] == "王小明 <b>&"
    assert "王小明 &lt;b&gt;&amp;" in client.get("/sso/logout").text


PACKED = gzip.compress(PLAIN)
RAW = zlib.compress(PLAIN, wbits=-zlib.MAX_WBITS)

COMPRESSED = {
    "gzip": ("gzip", PACKED),
    "old name": ("X-GZip \t", PACKED),
    "deflate": ("deflate", zlib.compress(PLAIN)),
    "deflate without zlib": ("deflate", RAW),
    "identity": ("identity", PLAIN),
}


@pytest.mark.parametrize("name", COMPRESSED)
def test_a_compressed_response(client: FlaskClient, server: ScriptedServer, name: str) -> None:
    encoding, body = COMPRESSED[name]
    server.answers[GET_TOKEN] = says(body, headers={"Content-Encoding": encoding})
    assert outcome(client) == "in"


DAMAGED = {
    "gzip": ("gzip", b"\x00\x01\x02", "server_unavailable"),
    "deflate": ("deflate", b"\x00\x01\x02", "server_unavailable"),
    "incomplete": ("gzip", PACKED[:-1], "server_unavailable"),
    "incomplete deflate": ("deflate", RAW[:-1], "server_unavailable"),
    "longer": ("gzip", PACKED + b"more", "server_unavailable"),
    "twice": ("gzip", PACKED * 2, "server_unavailable"),
    "six names": (", ".join(["gzip"] * 6), b"", "server_answer_invalid"),
    # These are 30 KB instead of 1 GiB.
    "two names": (
        "gzip, gzip",
        gzip.compress(gzip.compress(bytes(1024 * 1024)) * 1024),
        "server_answer_invalid",
    ),
    "another name": ("compress", b"\x00\x01\x02", "server_answer_invalid"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_response_that_cannot_be_decompressed(
    client: FlaskClient, server: ScriptedServer, name: str
) -> None:
    encoding, body, expected = DAMAGED[name]
    server.answers[GET_TOKEN] = says(body, headers={"Content-Encoding": encoding})
    assert outcome(client) == expected
    server.answers[GET_TOKEN] = says(TOKEN)
    assert outcome(client) == "in"


@pytest.mark.parametrize("size", [1024 * 1024 + 1, 20 * 1024 * 1024])
def test_a_body_is_limited_to_one_mebibyte_after_decompression(
    client: FlaskClient, server: ScriptedServer, size: int
) -> None:
    body = b'{"code":"2000","data":{"access_token":"a","refresh_token":"r"}}'.ljust(size)
    server.answers[GET_TOKEN] = says(gzip.compress(body), headers={"Content-Encoding": "gzip"})
    assert outcome(client) == "server_answer_invalid"
    server.answers[GET_TOKEN] = says(body)
    assert outcome(client) == "server_answer_invalid"
    server.answers[GET_TOKEN] = says(body[: 1024 * 1024])
    assert outcome(client) == "in"
