"""An authentication server for development and tests, where everybody may sign in.

It speaks the whole contract (docs/protocol.md) and is started by
``python -m flask_devkit_sso.sandbox``. It shares no code with the client, so that a mistake
in the one is not repeated by the other.
"""

from .config import SandboxConfig
from .server import create_sandbox
from .serving import open_server, running

__all__ = ["SandboxConfig", "create_sandbox", "open_server", "running"]
