"""Keys derived from ``SECRET_KEY``: one for each purpose, different in each installation."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from functools import cached_property

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from itsdangerous import URLSafeTimedSerializer


class Keys:
    """What signs cookies and seals tokens.

    :param secrets: ``SECRET_KEY`` first, then ``SECRET_KEY_FALLBACKS``. The first one signs and
        seals, each of them verifies and opens.
    :param installation: hash of the installation; a cookie or record of another one is unknown.
    """

    def __init__(self, secrets: Sequence[bytes], installation: str) -> None:
        self._secrets = secrets
        self._installation = installation

    def signer(self, purpose: str) -> URLSafeTimedSerializer:
        """Return a signer whose salt is of this purpose alone."""
        return URLSafeTimedSerializer(
            # itsdangerous signs with the last key.
            [self._derive(secret, purpose) for secret in reversed(self._secrets)],
            salt=f"flask-devkit-sso.{purpose}",
            signer_kwargs={"key_derivation": "hmac", "digest_method": hashlib.sha256},
        )

    def seal(self, text: str) -> str:
        """Encrypt for the store or for a cookie."""
        return self._box.encrypt(text.encode()).decode()

    def unseal(self, sealed: str) -> str | None:
        """Decrypt; None when it was sealed with a key that is no longer configured."""
        try:
            return self._box.decrypt(sealed).decode()
        except InvalidToken:
            return None

    @cached_property
    def _box(self) -> MultiFernet:
        return MultiFernet(
            [
                Fernet(base64.urlsafe_b64encode(self._derive(secret, "seal")))
                for secret in self._secrets
            ]
        )

    def _derive(self, secret: bytes, purpose: str) -> bytes:
        info = f"flask-devkit-sso 1 {purpose}".encode()
        return HKDF(SHA256(), 32, self._installation.encode(), info).derive(secret)
