"""The audit trail: who signed in and out, which session ended and why.

The logger ``flask_devkit_sso.audit`` writes one JSON object per line. docs/audit.md documents the
schema, which only grows. Nothing in a line comes from a request except the address of its client.
"""

from __future__ import annotations

import atexit
import json
import logging
import threading
import time
from datetime import UTC, datetime
from typing import Any, Final, Literal

from flask import has_request_context, request

from .errors import REASONS
from .per_process import PerProcess

Event = Literal[
    "login",
    "login_failed",
    "login_failures_left_out",
    "response_ignored",
    "logout",
    "session_ended",
    "sessions_ended",
    "revalidation_refused",
    "role_changed",
]

_REFUSALS: Final = ("token_refused", "refresh_refused", "another_user", "user_invalid")

_ROLES: Final = ("admin", "user", "none")

EVENTS: Final[dict[Event, tuple[str, ...]]] = {
    "login": (),
    "login_failed": (*REASONS, "declined"),
    "login_failures_left_out": tuple(REASONS),
    "response_ignored": (
        "same_login",
        "login_unknown",
        "login_expired",
        "cookie_missing",
        "state_missing",
        "state_mismatch",
    ),
    "logout": ("server_told", "server_not_told"),
    "session_ended": ("replaced", "ended", "no_refresh_token", *_REFUSALS),
    "sessions_ended": ("application", "command"),
    "revalidation_refused": _REFUSALS,
    "role_changed": tuple(f"{a}_to_{b}" for a in _ROLES for b in _ROLES if a != b),
}
"""The events, and the reasons that each may have. An event without any has the reason null."""

LIMIT: Final = 20
"""How many failed sign-ins of unknown people each process records for each reason in a
:data:`PERIOD`. Anybody can cause them, and must not be able to fill the disk."""

PERIOD: Final = 60.0
"""Seconds for which failures are counted."""

MAX_ADDRESS: Final = 64
"""Maximum length of a client's address. Behind ProxyFix, a client may be able to choose it."""

_log: Final = logging.getLogger("flask_devkit_sso.audit")
# Otherwise the level of flask_devkit_sso or of the root logger would silence it.
_log.setLevel(logging.INFO)
_log.propagate = False


class _Failures:
    """The failures of one reason in a period that began at the first of them."""

    def __init__(self, now: float) -> None:
        self.began_at = now
        self.count = 0

    @property
    def left_out(self) -> int:
        return max(0, self.count - LIMIT)


class _Limiter:
    """Counts the failures of unknown people in one process, by reason."""

    def __init__(self) -> None:
        self._by_reason: dict[str, _Failures] = {}
        self._lock = threading.Lock()

    def admit(self, reason: str) -> bool:
        """Count a failure, and return whether to record it."""
        with self._lock:
            failures = self._by_reason.setdefault(reason, _Failures(time.monotonic()))
            failures.count += 1
            return failures.count <= LIMIT

    def take_over(self, *, all: bool = False) -> dict[str, int]:
        """Forget the periods that are over, and return how many failures each left out.

        :param all: include the periods that are not over.
        """
        with self._lock:
            now = time.monotonic()
            over = [
                reason
                for reason, failures in self._by_reason.items()
                if all or not 0 <= now - failures.began_at < PERIOD
            ]
            counts = {reason: self._by_reason.pop(reason).left_out for reason in over}
        return {reason: count for reason, count in counts.items() if count}


_limiter: Final = PerProcess(_Limiter)


def record(
    event: Event,
    reason: str | None = None,
    *,
    uid: str | None = None,
    session: str | None = None,
    reference: str | None = None,
    count: int | None = None,
) -> None:
    """Write an event to the audit trail.

    :param reason: one of the event's reasons in :data:`EVENTS`.
    :param uid: the account that it is about, if the server has named one.
    :param session: the session's *name*, with which nobody can sign in.
    :param reference: the reference that is also on the page and in the ordinary log.
    :param count: how many sessions or failures the event stands for.
    """
    limiter = _limiter.get()
    _write_left_out(limiter.take_over())
    if event == "login_failed" and uid is None and not limiter.admit(str(reason)):
        return
    address = request.remote_addr if has_request_context() else None
    if address is not None and not address.isprintable():
        address = None
    _write(
        event=event,
        reason=reason,
        uid=uid,
        session=session,
        reference=reference,
        remote_addr=address and address[:MAX_ADDRESS],
        count=count,
    )


def role_change(before: str | None, after: str | None) -> str:
    """Return the reason of the event ``role_changed``."""
    return "_to_".join(role.lower() if role else "none" for role in (before, after))


def _write_left_out(counts: dict[str, int]) -> None:
    for reason, count in counts.items():
        _write(
            event="login_failures_left_out",
            reason=reason,
            uid=None,
            session=None,
            reference=None,
            remote_addr=None,
            count=count,
        )


def _write(**fields: Any) -> None:
    # logging.config lets the children of a logger that it names propagate again.
    _log.propagate = False
    if not _log.handlers:
        # Nobody has switched the audit trail on.
        return
    now = datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="milliseconds")
    line = {"time": now.replace("+00:00", "Z"), **fields}
    _log.info("%s", json.dumps(line, ensure_ascii=True))


@atexit.register
def _write_last_left_out() -> None:
    _write_left_out(_limiter.get().take_over(all=True))
