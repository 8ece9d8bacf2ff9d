"""Everything that one running sandbox remembers, all of it in memory."""

from __future__ import annotations

import threading
from typing import cast

from flask import Flask, current_app

from .calls import CallLog, FaultQueue
from .config import SandboxConfig
from .grants import Grants
from .people import People

EXTENSION = "devkit_sso_sandbox"


class SandboxState:
    """The state of one sandbox.

    ``stopping`` is set when the sandbox stops, which ends responses that are delayed on purpose.
    """

    def __init__(self, config: SandboxConfig) -> None:
        self.config = config
        self.people = People()
        self.grants = Grants(config, self.people)
        self.faults = FaultQueue()
        self.calls = CallLog()
        self.stopping = threading.Event()


def state_of(app: Flask) -> SandboxState:
    """Return the state of a sandbox."""
    return cast(SandboxState, app.extensions[EXTENSION])


def current_state() -> SandboxState:
    """Return the state of the sandbox that handles the current request."""
    return state_of(current_app)
