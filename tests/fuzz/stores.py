"""What something at the address of Redis can reply."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from flask_devkit_sso.errors import StoreUnavailable
from flask_devkit_sso.store.base import Row
from flask_devkit_sso.store.redis import RedisStore

from ..redis_replies import SOON, ReplyServer, bulk
from ..scripted import ScriptedServer
from .mutations import Mutation, Repeated, mutations
from .running import Target
from .site import Site

RECORD = json.dumps(
    {
        "version": 1,
        "uid": "u-1",
        "username": "eve",
        "role": "Admin",
        "created_at": 9e9,
        "verified_at": 9e9,
        "refresh_at": 9e10,
        "tokens": "x",
    }
).encode()


@contextmanager
def store_targets(folder: Path) -> Iterator[list[Target]]:
    """Yield the target that plays Redis."""
    replies, server = ReplyServer(), ScriptedServer()
    yield [Target("Redis replies", _REPLIES, Replies(replies, server, folder).check)]
    server.stop()
    replies.stop()


METHODS: dict[str, Callable[[RedisStore], Any]] = {
    "add": lambda store: store.add("k", "d", expires=time.time() + 60, owner="o"),
    "read": lambda store: store.read("k"),
    "update": lambda store: store.update("k", "d", expected="x"),
    "touch": lambda store: store.touch("k", used=1.0, expires=time.time() + 60),
    "remove": lambda store: store.remove("k"),
    "remove_owner": lambda store: store.remove_owner("o"),
    "of_owner": lambda store: store.of_owner("o"),
    "below": lambda store: store.below("k"),
}
PAGES = ("/who", "/private", "/sso/authorize", "/sso/logout", "/sso/callback", "/sso/confirm")
_REPLIES = st.tuples(
    st.sampled_from([*METHODS, *PAGES]),
    mutations(
        [
            b":1\r\n",
            b":0\r\n",
            b"$-1\r\n",
            b"*-1\r\n",
            b"+OK\r\n",
            b"-ERR canary\r\n",
            b"-READONLY\r\n",
            b"-LOADING\r\n",
            b"-NOAUTH\r\n",
            b"-MOVED 1 127.0.0.1:1\r\n",
            bulk(RECORD, b"1", SOON),
            bulk(b"x", b"nan", b"inf"),
            bulk(b"k"),
            bulk(b"x", b"1", SOON) * 3,
            b"*3\r\n:1\r\n:1\r\n:99999999999\r\n",
            b"*3\r\n*0\r\n$1\r\n1\r\n$3\r\ninf\r\n",
            b"*2\r\n$1\r\n0\r\n*1\r\n$1\r\nk\r\n",
            b"*2\r\n$1\r\n5\r\n*0\r\n",
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
        ],
        [
            b"*",
            b"$",
            b":",
            b"+",
            b"-",
            b"_\r\n",
            b"\r\n",
            Repeated(b"*1\r\n", 2000),
            b"$99999999999\r\n",
            b"$-2\r\n",
            Repeated(b"9", 5000, b":", b"\r\n"),
            b"*99999999\r\n",
            b"%1\r\n",
            b"nan",
            b"\xff",
            b'{"version":1}',
            b"9e999",
            b"null",
            Repeated(b"[", 50_000),
        ],
    ),
    st.integers(0, 3),
)


class Replies:
    """A reply is understood, or it is StoreUnavailable. No later call gets it."""

    def __init__(self, replies: ReplyServer, server: ScriptedServer, folder: Path) -> None:
        self._replies = replies
        # A reply that is incomplete would cost 0.7 s.
        url = f"{replies.url}?socket_timeout=0.1"
        self._store = RedisStore(url)
        self._site = Site(server, folder, store_url=url, binding="confirm")
        # The two differ in their binding only, so they have the same sessions.
        self._cookie = Site(server, folder, store_url=url).sign_in()
        self._login, _ = self._site.start()

    def check(self, value: tuple[str, Mutation, int]) -> None:
        name, mutation, after = value
        self._replies.arm(mutation.apply(), after)
        if name in METHODS:
            try:
                result = METHODS[name](self._store)
            except StoreUnavailable as error:
                assert "canary" not in str(error)  # noqa: PT017
            else:
                assert is_right(name, result), result
            self._check_next()
            return
        path, _, query = name.partition("?")
        login = self._login.partition("=")[0][-8:]
        self._site.request(
            path,
            method="POST" if path == "/sso/logout" else "GET",
            query=(query or f"code=C&login={login}").encode(),
            cookie=f"{self._cookie}; {self._login}",
            origin="http://localhost",
        )

    def _check_next(self) -> None:
        self._replies.arm(None, 0)
        try:
            row = self._store.read("mine")
        except StoreUnavailable:
            return
        assert row == Row("devkit_sso:mine", 1.0)


def is_right(name: str, result: Any) -> bool:
    """Return whether a method returned what its type promises."""
    match name:
        case "add" | "update":
            return type(result) is bool
        case "touch":
            return result is None
        case "remove":
            return result is None or type(result) is str
        case "remove_owner":
            return all(type(data) is str for data in result)
        case "read":
            return result is None or _is_row(result)
        case _:
            return all(type(key) is str and _is_row(row) for key, row in result.items())


def _is_row(row: Row) -> bool:
    return type(row.data) is str and type(row.used) is float
