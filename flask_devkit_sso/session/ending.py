"""Ends sessions because of what the server said about their user or tokens, and records why."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Final

from flask import Flask

from .. import audit, signals
from .sessions import Session, Sessions

log: Final = logging.getLogger("flask_devkit_sso")


def end_if_unchanged(app: Flask, sessions: Sessions, session: Session, why: str) -> None:
    """End a session whose tokens the server refused, unless it has received new tokens since.

    The refusal may be outdated if this worker was paused for longer than its claim lasts.

    :param why: reported by the signal ``session_ended``.
    """
    record_refusal(session, why)
    while True:
        latest = sessions.reload(session)
        if latest is None or latest.sealed_tokens != session.sealed_tokens:
            return
        if sessions.end(latest, if_unchanged=True):
            report_end(app, [latest], why)
            return


def report_end(app: Flask, ended: list[Session], why: str) -> None:
    """Record the end of a user's sessions and send the signal ``session_ended`` once."""
    record_ends(ended, why)
    signals.session_ended.send(app, uid=ended[0].user.uid, why=why)


def record_ends(ended: Iterable[Session], why: str) -> None:
    """Log the end of each session, and record it in the audit trail."""
    for session in ended:
        log.info("session ended: uid %r, %s", session.user.uid, why)
        audit.record("session_ended", why, uid=session.user.uid, session=session.name)


def record_refusal(session: Session, why: str) -> None:
    """Record in the audit trail that the server did not confirm a session's user."""
    if why in audit.EVENTS["revalidation_refused"]:
        audit.record("revalidation_refused", why, uid=session.user.uid, session=session.name)
