"""Encrypts what the store and cookies must not show, with Fernet.

Many workers read sessions long before they encrypt anything, so session/keys.py imports this module
and with it cryptography at the first use.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence

from cryptography.fernet import Fernet, InvalidToken, MultiFernet


class Sealer:
    """Encrypts texts.

    :param keys: 32 bytes each. The first one encrypts, and each of them decrypts.
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._fernet = MultiFernet([Fernet(base64.urlsafe_b64encode(key)) for key in keys])

    def seal(self, text: str) -> str:
        """Encrypt a text."""
        return self._fernet.encrypt(text.encode()).decode()

    def unseal(self, sealed: str) -> str | None:
        """Decrypt a text. Return None if its key is not among ours, or if it is damaged."""
        try:
            return self._fernet.decrypt(sealed).decode()
        except (InvalidToken, ValueError, TypeError):
            # cryptography raises the other two if it is not ASCII, or no text at all.
            return None
