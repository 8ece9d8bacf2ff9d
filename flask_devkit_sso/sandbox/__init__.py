"""An authentication server for development and tests: anyone can sign in as anyone.

It implements the whole contract (docs/protocol.md) and shares no code with the client, so that a
mistake in one is not repeated by the other. ``python -m flask_devkit_sso.sandbox`` starts it.
"""

from .config import SandboxConfig
from .server import create_sandbox
from .serving import open_server, running

__all__ = ["SandboxConfig", "create_sandbox", "open_server", "running"]
