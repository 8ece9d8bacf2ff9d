"""What is sent, and what the texts say about an invalid response: docs/protocol.md sections 2 to 6.

test_responses checks which responses are accepted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from flask_devkit_sso.errors import ServerError, ServerUnavailable
from flask_devkit_sso.protocol import contract
from flask_devkit_sso.protocol.contract import RawResponse, Tokens, UserInfo

URL = "https://auth.example.com/sso"
Parser = Callable[[RawResponse], Any]


def get_token(response: RawResponse) -> Tokens:
    return contract.token_response(response, 1000.0)


def refresh(response: RawResponse) -> Tokens:
    return contract.refresh_response(response, 1000.0)


def success(data: bytes) -> bytes:
    return b'{"code":"2000","data":%s}' % data


INVALID: list[tuple[Parser, int, bytes, str]] = [
    *(
        (
            parse,
            200,
            b"<html>",
            (
                f"The response of {name} at {URL} (HTTP 200) is not an envelope: check the URL, "
                "including its path."
            ),
        )
        for parse, name in (
            (get_token, "getToken"),
            (refresh, "refreshToken"),
            (contract.user_info, "getUserInfo"),
            (contract.validity_response, "user validity"),
        )
    ),
    (get_token, 499, b"[]", f"getToken at {URL} (HTTP 499) is not an envelope: check the URL"),
    (get_token, 500, b"[]", f"The response of getToken at {URL} (HTTP 500) is not an envelope."),
    (get_token, 505, b"{}", f"The response of getToken at {URL} (HTTP 505) is not an envelope."),
    (get_token, 200, b"\0", f"The response of getToken at {URL} (HTTP 200) is not UTF-8."),
    (
        get_token,
        200,
        b'{"code":"2000","code":"2000"}',
        f"The response of getToken at {URL} (HTTP 200) contains a name twice.",
    ),
    (
        get_token,
        200,
        b'{"code":"2000","data":{"x":-Infinity}}',
        f"The response of getToken at {URL} (HTTP 200) contains -Infinity, which is not JSON.",
    ),
    (get_token, 199, success(b"{}"), "The server reported success with HTTP status 199."),
    (get_token, 300, success(b"{}"), "The server reported success with HTTP status 300."),
    (get_token, 200, success(b"[]"), "The data in the server's response is not an object."),
    (get_token, 200, success(b"{}"), "The server's response has no usable access_token."),
    (
        get_token,
        200,
        success(b'{"access_token":"a"}'),
        "The server's response has no usable refresh_token.",
    ),
    (
        get_token,
        200,
        success(b'{"access_token":"a\\n","refresh_token":"r"}'),
        "The access_token in the server's response is not printable ASCII.",
    ),
    (
        refresh,
        200,
        success(b'{"access_token":"a","refresh_token":"\\u00e9"}'),
        "The refresh_token in the server's response is not printable ASCII.",
    ),
    (
        get_token,
        200,
        success(b'{"access_token":"%s","refresh_token":"r"}' % (b"a" * 65_537)),
        "The access_token in the server's response is longer than 65536 characters.",
    ),
    (
        get_token,
        200,
        success(b'{"access_token":"a","refresh_token":"r","expires_in":0}'),
        "The expires_in in the server's response is not a number of seconds.",
    ),
    (
        contract.user_info,
        200,
        success(b'{"username":"ada"}'),
        "The server's response has no usable uid.",
    ),
    (
        contract.user_info,
        200,
        success(b'{"uid":"u-1","username":"a\\tb"}'),
        "The username in the server's response contains control characters.",
    ),
    (
        contract.validity_response,
        200,
        success(b"{}"),
        "The server's response has no validation_list of one boolean.",
    ),
]


@pytest.mark.parametrize(("parse", "status", "body", "text"), INVALID)
def test_what_is_wrong_with_a_response(parse: Parser, status: int, body: bytes, text: str) -> None:
    with pytest.raises(ServerError) as caught:
        parse(RawResponse(status, body, url=URL))
    assert text in str(caught.value.description)
    assert text[-1] != "." or str(caught.value.description).endswith(text)
    assert caught.value.server_code is None


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (b'"8500"', "The server returned 8500: the server reported an internal error."),
        (b"8205", "The server returned 8205: the access_token was refused."),
        (b'"2001"', "The server returned 2001: a code that the protocol does not define."),
    ],
)
def test_a_refusal(code: bytes, text: str) -> None:
    with pytest.raises(ServerError) as caught:
        get_token(RawResponse(503, b'{"code":%s}' % code))
    assert caught.value.description == text
    assert caught.value.server_code == code.decode().strip('"')


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_gateway(status: int) -> None:
    with pytest.raises(ServerUnavailable) as caught:
        get_token(RawResponse(status, b"<html>"))
    text = f"A gateway responded with HTTP {status} instead of the server."
    assert caught.value.description == text


def test_the_requests() -> None:
    login = {"client_id": "c", "client_secret": "s", "code": "d", "redirect_uri": "https://a/#/"}
    five = (
        b'{"client_id": "c", "grant_type": "authorization_code", "client_secret": "s", '
        b'"authorization_code": "d", "redirect_uri": "https://a/#/"'
    )
    assert contract.token_request(**login) == five + b"}"
    sent = contract.token_request(**login, code_verifier="v")
    assert sent == five + b', "code_verifier": "v"}'
    sent = contract.access_token_request(client_id="c", access_token="a")
    assert sent == b'{"client_id": "c", "access_token": "a"}'
    sent = contract.refresh_request(client_id="c", refresh_token="r")
    assert sent == b'{"client_id": "c", "refresh_token": "r"}'
    sent = contract.validity_request(client_id="c", access_token="a", field="users", user="王")
    assert sent == b'{"client_id": "c", "access_token": "a", "users": ["\\u738b"]}'


@pytest.mark.parametrize(
    ("expires_in", "lasts", "refreshed_after"),
    [
        (b"3600", 3600, 3570),
        (b"3601", 3600, 3570),
        (b"40", 40, 30),
        (b"120", 120, 90),
        (b"1", 1, 0.75),
    ],
)
def test_when_a_token_expires(expires_in: bytes, lasts: int, refreshed_after: float) -> None:
    body = success(b'{"access_token":"a","refresh_token":"r","expires_in":%s}' % expires_in)
    for tokens in (get_token(RawResponse(200, body)), refresh(RawResponse(299, body))):
        assert (tokens.access_token, tokens.refresh_token) == ("a", "r")
        assert (tokens.requested_at, tokens.expires_in) == (1000, lasts)
        assert (tokens.expires_at, tokens.refresh_at) == (1000 + lasts, 1000 + refreshed_after)


@pytest.mark.parametrize(
    ("data", "kept"),
    [(b"", "old"), (b',"refresh_token":null', "old"), (b',"refresh_token":"new"', "new")],
)
def test_a_refresh_may_keep_the_refresh_token(data: bytes, kept: str) -> None:
    body = success(b'{"access_token":"b","expires_in":"60"%s}' % data)
    tokens = Tokens("a", "old", 1.0, 1).refreshed_by(refresh(RawResponse(200, body)))
    assert tokens == Tokens("b", kept, 1000.0, 60)


@pytest.mark.parametrize(
    ("sent", "role"),
    [
        (b',"role":"Admin"', "Admin"),
        (b',"role":"User"', "User"),
        (b',"role":"admin"', None),
        (b',"role":"ADMIN"', None),
        (b',"role":"Root"', None),
        (b',"role":null', None),
        (b"", None),
    ],
)
def test_a_user(sent: bytes, role: contract.Role | None) -> None:
    body = success(b'{"uid":"u-1","username":"ada"%s}' % sent)
    assert contract.user_info(RawResponse(200, body)) == UserInfo("u-1", "ada", role)


def test_the_longest_texts() -> None:
    long, longest = "u" * 512, "a" * 65_536
    body = success(b'{"uid":"%s","username":"ada"}' % long.encode())
    assert contract.user_info(RawResponse(200, body)).uid == long
    body = success(b'{"access_token":"%s","refresh_token":"r"}' % longest.encode())
    assert get_token(RawResponse(200, body)) == Tokens(longest, "r", 1000.0, 3600)


def test_the_other_responses() -> None:
    for literal, is_valid in ((b"true", True), (b"false", False)):
        body = success(b'{"validation_list":[%s]}' % literal)
        assert contract.validity_response(RawResponse(200, body)) is is_valid
    for body in (b'{"code":"2000"}', b'\xef\xbb\xbf{"code":2000,"data":null}'):
        assert contract.envelope_data(RawResponse(200, body), "logout") == {}
