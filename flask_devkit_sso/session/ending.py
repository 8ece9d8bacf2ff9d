"""Ends sessions because of what the server said about their user or tokens."""

from __future__ import annotations

import logging
from typing import Final

from flask import Flask

from .. import signals
from .sessions import Session, Sessions

log: Final = logging.getLogger("flask_devkit_sso")


def end_if_unchanged(app: Flask, sessions: Sessions, session: Session, why: str) -> None:
    """End a session whose tokens the server refused, unless it has received new tokens since.

    The refusal may be outdated if this worker was paused for longer than its claim lasts.

    :param why: reported by the signal ``session_ended``.
    """
    while True:
        latest = sessions.reload(session)
        if latest is None or latest.sealed_tokens != session.sealed_tokens:
            return
        if sessions.end(latest, if_unchanged=True):
            report_end(app, session.user.uid, why)
            return


def report_end(app: Flask, uid: str, why: str) -> None:
    """Log the end of a user's sessions and send the signal ``session_ended``."""
    log.info("session ended: uid %r, %s", uid, why)
    signals.session_ended.send(app, uid=uid, why=why)
