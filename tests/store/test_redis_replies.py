"""Replies that Redis never sends, but something else at its address may."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from flask_devkit_sso import StoreUnavailable
from flask_devkit_sso.store.redis import RedisStore

from ..redis_replies import SOON, ReplyServer, bulk


@pytest.fixture
def replies() -> Iterator[ReplyServer]:
    running = ReplyServer()
    yield running
    running.stop()


@pytest.mark.parametrize(
    ("call", "reply"),
    [
        pytest.param(
            lambda store: store.add("k", "data", expires=1e11),
            b"$99999999999999999999\r\n",
            id="a length that no computer has",
        ),
        pytest.param(lambda store: store.remove("k"), b":1\r\n", id="a number for a text"),
        pytest.param(
            lambda store: store.remove_owner("o"), b"*1\r\n:1\r\n", id="a number for a key"
        ),
        pytest.param(lambda store: store.of_owner("o"), b":1\r\n", id="no list"),
        pytest.param(lambda store: store.below("k"), b"*0\r\n", id="a short list"),
        pytest.param(lambda store: store.read("k"), bulk(b"x"), id="a list of one"),
        pytest.param(lambda store: store.read("k"), b"HTTP/1.1 400 Bad Request\r\n", id="HTTP"),
    ],
)
def test_a_reply_that_is_not_understood(
    replies: ReplyServer, call: Callable[[RedisStore], Any], reply: bytes
) -> None:
    store = RedisStore(replies.url)
    # Afterwards there is a connection for reads, and one for everything else.
    assert store.read("k") is not None
    assert store.update("k", "new")
    replies.arm(reply)
    with pytest.raises(StoreUnavailable):
        call(store)


@pytest.mark.parametrize(
    "reply",
    [
        b"*3\r\n:1\r\n:1\r\n:99999999999\r\n",
        bulk(b"x", b"1", b"nan"),
        bulk(b"x", b"", SOON),
    ],
)
def test_a_record_that_is_not_ours(replies: ReplyServer, reply: bytes) -> None:
    store = RedisStore(replies.url)
    replies.arm(reply, after=2)  # The first two commands belong to the connection.
    assert store.read("k") is None


def test_what_is_left_of_a_reply_never_reaches_the_next_call(replies: ReplyServer) -> None:
    store = RedisStore(replies.url)
    store.read("first")
    replies.arm(bulk(b"a", b"1", SOON) + bulk(b"b", b"1", SOON))
    assert store.read("second").data == "a"
    assert store.read("third").data == "devkit_sso:third"


@pytest.mark.parametrize("reply", [b"-MOVED 866 127.0.0.1:7001\r\n", b"-CLUSTERDOWN of it\r\n"])
def test_a_node_of_a_cluster(replies: ReplyServer, reply: bytes) -> None:
    store = RedisStore(replies.url)
    assert store.update("k", "new")
    replies.arm(reply)
    with pytest.raises(StoreUnavailable, match="is a Redis Cluster, which is not supported"):
        store.update("k", "new")
