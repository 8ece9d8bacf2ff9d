"""Everything that one running sandbox remembers."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import cast

from flask import Flask, current_app

from .calls import CallLog, FaultQueue
from .config import SandboxConfig
from .forms import Forms
from .grants import Grants
from .guesses import Guesses
from .hashing import hashed
from .people import People

EXTENSION = "devkit_sso_sandbox"


class SandboxState:
    """The state of one sandbox, in memory.

    ``stopping`` is set when the sandbox stops, which ends responses that are delayed on purpose.
    """

    def __init__(self, config: SandboxConfig, people: People) -> None:
        # Like a server's database, it contains only a hash of the secret.
        self.client_secret_hash = hashed(config.client_secret)
        self.config = replace(config, client_secret="(hashed)")  # noqa: S106 - it is none
        self.people = people
        self.forms = Forms()
        self.grants = Grants(self.config, self.people)
        self.password_guesses = Guesses(5, 60)
        self.secret_guesses = Guesses(100, 3600)
        self.faults = FaultQueue()
        self.calls = CallLog()
        self.stopping = threading.Event()


def state_of(app: Flask) -> SandboxState:
    """Return the state of a sandbox."""
    return cast(SandboxState, app.extensions[EXTENSION])


def current_state() -> SandboxState:
    """Return the state of the sandbox that handles the current request."""
    return state_of(current_app)
