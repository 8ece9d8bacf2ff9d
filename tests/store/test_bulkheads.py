"""How many callers a store that hangs keeps waiting."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import pytest

from flask_devkit_sso import StoreUnavailable
from flask_devkit_sso.store.base import Store
from flask_devkit_sso.store.open import open_store

from ..clock import advance
from ..redis_server import RedisServer
from ..threads import at_once
from .test_store_failures import hung, locked

CALLERS = 20


def refuse(store: Store, *, write: bool) -> Counter[bool]:
    """Call a store that hangs; count by whether the caller waited for its own call in vain."""

    def call() -> bool:
        with pytest.raises(StoreUnavailable) as failure:
            store.update("key", "new") if write else store.read("key")
        return "Earlier calls" not in str(failure.value)

    # More calls are made to a store that has just answered.
    advance(2)
    return Counter(at_once([call] * CALLERS))


def test_four_callers_wait_for_sqlite_that_is_locked(tmp_path: Path) -> None:
    store = open_store("sqlite:///store.db", str(tmp_path))
    store.add("key", "old", expires=time.time() + 3600)
    with locked(tmp_path / "store.db"):
        assert refuse(store, write=True) == {True: 4, False: CALLERS - 4}
        # A file that cannot be written can still be read.
        rows = at_once([lambda: store.read("key")] * CALLERS)
        assert {row and row.data for row in rows} == {"old"}
    assert at_once([lambda: store.update("key", "new")] * CALLERS) == [True] * CALLERS


@pytest.mark.parametrize("write", [False, True])
@pytest.mark.own_redis
def test_four_callers_wait_for_redis_that_hangs(redis_server: RedisServer, write: bool) -> None:
    store = open_store(redis_server.url, "")
    store.add("key", "old", expires=time.time() + 3600)
    assert store.read("key")
    with hung(redis_server):
        assert refuse(store, write=write) == {True: 4, False: CALLERS - 4}
    assert at_once([lambda: store.update("key", "new")] * CALLERS) == [True] * CALLERS
