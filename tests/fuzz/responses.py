"""What an authentication server can send: envelopes, and bytes instead of HTTP."""

from __future__ import annotations

import json
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from flask_devkit_sso.config.settings import Settings
from flask_devkit_sso.errors import ServerError, ServerUnavailable
from flask_devkit_sso.protocol import contract
from flask_devkit_sso.protocol.contract import RawResponse, Tokens, UserInfo
from flask_devkit_sso.protocol.transport import Transport
from flask_devkit_sso.protocol.trust import Trust
from flask_devkit_sso.session.keys import Keys
from flask_devkit_sso.session.sessions import Sessions
from flask_devkit_sso.store.open import open_store

from .mutations import TEXTS, Mutation, Repeated, mutations
from .running import Target

TOKEN = (
    b'{"code":"2000","message":"OK","messageArgs":[],"data":'
    b'{"access_token":"a-1","expires_in":3600,"refresh_token":"r-1"}}'
)
USER = b'{"code":"2000","message":"OK","data":{"uid":"u-1","username":"ada","role":"Admin"}}'
VALIDITY = b'{"code":"2000","data":{"validation_list":[true]}}'
REFUSAL = b'{"code":"8205","message":"no","messageArgs":[],"data":{}}'


@contextmanager
def response_targets(folder: Path) -> Iterator[list[Target]]:
    """Yield the targets that play the authentication server."""
    server = RawServer()
    yield [
        Target("envelopes", _ENVELOPES, Envelopes(folder).check),
        Target("HTTP framing", _FRAMES, Frames(server).check),
    ]
    server.stop()


_JSON = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        TEXTS,
        st.sampled_from(["2000", "8205", "Admin", "a-1", "\0", "a\n", "\ud800", "\u202e", "王"]),
        st.sampled_from([2000, 3600, "3600", 10**30, -1]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(
                "code data access_token refresh_token expires_in uid username role "
                "validation_list message".split()
            ),
            inner,
            max_size=5,
        ),
    ),
    max_leaves=12,
)
_ENCODINGS = st.sampled_from(["utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-32-be", "gbk"])
_ENVELOPES = st.tuples(
    st.sampled_from([200, 200, 200, 201, 302, 400, 404, 500, 502, 503]),
    st.one_of(
        mutations(
            [TOKEN, USER, VALIDITY, REFUSAL],
            [
                b'"code":"2000",',
                b'"code":2000,',
                b'"data":{},',
                b'"access_token":"b",',
                b"\xef\xbb\xbf",
                b"NaN",
                b"-0",
                b"1e999",
                Repeated(b"[", 60_000),
                Repeated(b"9", 5_000),
                b"\\u0000",
                b"\\ud800",
                b"\\n",
                b"\xe2\x80\xae",
                Repeated(b"a", 600),
            ],
        ).map(Mutation.apply),
        st.builds(
            lambda value, code: json.dumps(value, ensure_ascii=False).encode(
                code, errors="xmlcharrefreplace" if code == "gbk" else "surrogatepass"
            ),
            st.builds(
                lambda code, data: {"code": code, "data": data},
                st.sampled_from(["2000", 2000]),
                _JSON,
            ),
            _ENCODINGS,
        ),
    ),
)


class Envelopes:
    """A response is valid or one of two errors, and what is valid survives a session."""

    def __init__(self, folder: Path) -> None:
        self._keys = Keys([b"0d9f6b1ac54e2378-no-one-knows-this"], "installation")
        store = open_store("sqlite:///sessions.db", str(folder))
        self._sessions = Sessions(store, self._keys, Settings())

    def check(self, value: tuple[int, bytes]) -> None:
        status, body = value
        response = RawResponse(status, body)
        tokens = _result(lambda: contract.token_response(response, 1.0))
        refreshed = _result(lambda: contract.refresh_response(response, 1.0))
        user = _result(lambda: contract.user_info(response))
        is_valid = _result(lambda: contract.validity_response(response))
        if all(result is None for result in (tokens, refreshed, user, is_valid)):
            return
        # Whatever was accepted has to be JSON in UTF-8, under a status of success.
        assert 200 <= status < 300
        data = json.loads(body.decode("utf-8-sig"))["data"]
        for found in filter(None, (tokens, refreshed)):
            assert isinstance(found, Tokens)
            assert found.access_token == data["access_token"]
            for token in filter(None, (found.access_token, found.refresh_token)):
                assert token.isascii()
                assert token.isprintable()
            assert 1 <= found.expires_in <= contract.MAX_EXPIRES_IN
            assert self._keys.unseal_tokens(self._keys.seal_tokens(found)) == found
        if user is not None:
            assert isinstance(user, UserInfo)
            assert (user.uid, user.username) == (data["uid"], data["username"])
            assert len(f"{user.uid} {user.username}".splitlines()) == 1
            assert "\0" not in user.uid + user.username
            cookie = self._sessions.create(user, None, verified_at=1.0)
            session = self._sessions.load(cookie)
            assert session is not None
            assert session.user == user
        if is_valid is not None:
            assert data["validation_list"] == [is_valid]


def _result(parse: Callable[[], Any]) -> Any:
    try:
        return parse()
    except (ServerError, ServerUnavailable):
        return None


def _http(body: bytes, *headers: bytes, line: bytes = b"HTTP/1.1 200 OK") -> bytes:
    return b"\r\n".join([line, b"Content-Type: application/json", *headers, b"", body])


def _length(body: bytes) -> bytes:
    return b"Content-Length: %d" % len(body)


_CHUNKS = b"2b\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n" % (TOKEN[:0x2B], len(TOKEN) - 0x2B, TOKEN[0x2B:])
_SAMPLES = [
    _http(TOKEN, _length(TOKEN)),
    _http(TOKEN, b"Connection: close"),
    _http(_CHUNKS, b"Transfer-Encoding: chunked"),
    _http(_CHUNKS, b"Transfer-Encoding: chunked", _length(TOKEN)),
    _http(TOKEN, _length(TOKEN), _length(TOKEN)),
    b"HTTP/1.1 100 Continue\r\n\r\n" + _http(TOKEN, _length(TOKEN)),
    _http(TOKEN, _length(TOKEN)) + _http(REFUSAL, _length(REFUSAL)),
    _http(b"", b"Content-Length: 0", line=b"HTTP/1.1 204 No Content"),
    _http(b"\x1f\x8b\x08\0", b"Content-Encoding: gzip", b"Content-Length: 4"),
    _http(TOKEN, b"Content-Encoding: deflate", _length(TOKEN)),
    _http(b"", b"Location: /elsewhere", b"Content-Length: 0", line=b"HTTP/1.1 302 Found"),
    _http(TOKEN, line=b"HTTP/1.0 200"),
    _http(TOKEN, _length(TOKEN), line=b"HTTP/0.9 200 OK"),
    _http(b"", b"Upgrade: h2c", line=b"HTTP/1.1 101 Switching Protocols"),
    b"",
    b"\r\n\r\n",
]
_FRAMES = st.tuples(
    mutations(
        _SAMPLES,
        [
            b"\r\n",
            b"\n",
            b"0\r\n\r\n",
            b"-1\r\n",
            b"-5\r\n",
            b"0x2b\r\n",
            b"+2b\r\n",
            b"2_b\r\n",
            b"ffffffffffffffff\r\n",
            b"2b;ext=\x00\r\n",
            b"Transfer-Encoding: chunked\r\n",
            b"Transfer-Encoding: gzip, chunked\r\n",
            b"Transfer-Encoding: identity\r\n",
            b"Content-Length: -1\r\n",
            b"Content-Length: 1\r\n",
            b"Content-Length: 99999999999999999999\r\n",
            b"Content-Length: 1_0\r\n",
            b"Content-Encoding: br, gzip, deflate, zstd\r\n",
            Repeated(b"y", 70_000, b"X: ", b"\r\n"),
            Repeated(b"X: y\r\n", 150),
            b" folded\r\n",
            b"HTTP/1.1 200 OK\r\n",
            b"HTTP/1.1 100 Continue\r\n\r\n" * 20,
            Repeated(b"x", 1024 * 1024),
            b"2000",
        ],
    ),
    st.booleans(),
)


class Frames:
    """Bytes instead of HTTP are one of two errors, and the next call gets its own response."""

    def __init__(self, server: RawServer) -> None:
        self._server = server
        self._transport = Transport(trust=Trust(), timeout=5)
        self._count = 0

    def check(self, value: tuple[Mutation, bool]) -> None:
        mutation, is_repeatable = value
        self._server.response = mutation.apply()
        response = _result(lambda: self._post(b"{}", repeatable=is_repeatable))
        if response is not None:
            assert len(response.body) <= 1024 * 1024
            _result(lambda: contract.token_response(response, 1.0))
        self._count += 1
        mine = b'{"call": %d}' % self._count
        response = _result(lambda: self._post(mine, repeatable=True))
        # On a busy machine the call may be too late, but it never gets another one's response.
        assert response is None or response.body == mine, response.body

    def _post(self, body: bytes, *, repeatable: bool) -> RawResponse:
        return self._transport.post(self._server.url, body, repeatable=repeatable)


class RawServer(socketserver.ThreadingTCPServer):
    """Responds to one request with ``response``, and to all others with what they sent."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _RawHandler)
        self.response: bytes | None = None
        self.url = f"http://127.0.0.1:{self.server_address[1]}/"
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore clients that gave up."""

    def stop(self) -> None:
        self.shutdown()
        self.server_close()


class _RawHandler(socketserver.StreamRequestHandler):
    server: RawServer

    def handle(self) -> None:
        while True:
            length = 0
            line = self.rfile.readline()
            if not line:
                return
            while (line := self.rfile.readline()) not in (b"\r\n", b""):
                if line.lower().startswith(b"content-length:"):
                    length = int(line.partition(b":")[2])
            body = self.rfile.read(length)
            response, self.server.response = self.server.response, None
            if response is None:
                self.wfile.write(_http(body, _length(body)))
                continue
            self.wfile.write(response)
            if _is_complete(response):
                # Stay connected: what is left over must not reach the next call.
                continue
            self.connection.shutdown(socket.SHUT_WR)
            return


def _is_complete(response: bytes) -> bool:
    """Return whether a client can certainly know where the response ends."""
    return any(response.startswith(sample) for sample in _SAMPLES if b"Content-Length" in sample)
