"""The audit trail as a handler on its logger receives it."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, get_args

from flask_devkit_sso.audit import EVENTS, PERIOD, Event, record

from .clock import advance

FIELDS = ["time", "event", "reason", "uid", "session", "reference", "remote_addr", "count"]


class Trail(logging.Handler):
    """Keeps every record. Reading them checks that each has the documented form."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    @property
    def lines(self) -> list[str]:
        return [self.format(record) for record in self.records]

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events without the fields that are null."""
        events = []
        for kept, line in zip(self.records, self.lines, strict=True):
            assert (kept.msg, kept.levelno) == ("%s", logging.INFO)
            assert line.isascii()
            assert line.isprintable()
            event = json.loads(line)
            assert list(event) == FIELDS
            assert re.fullmatch(r"[-\d]{10}T[:\d]{8}\.\d{3}Z", event["time"])
            assert event["event"] in get_args(Event)
            assert event["reason"] in (EVENTS[event["event"]] or (None,))
            events.append({name: value for name, value in event.items() if value is not None})
        return events

    def take(self) -> list[tuple[Any, ...]]:
        """Return event, reason and uid of each record, and forget the records."""
        found = [(e["event"], e.get("reason"), e.get("uid")) for e in self.events]
        self.records.clear()
        return found


@contextmanager
def trail() -> Iterator[Trail]:
    """Attach a handler to the audit logger."""
    # Other tests, whose clock was ahead, may have caused failures, which count for a minute.
    for _ in range(2):
        advance(PERIOD)
        record("sessions_ended", "application", uid="nobody", count=0)
    handler = Trail()
    logger = logging.getLogger("flask_devkit_sso.audit")
    logger.addHandler(handler)
    try:
        yield handler
    finally:
        logger.removeHandler(handler)
