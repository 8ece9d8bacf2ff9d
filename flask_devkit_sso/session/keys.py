"""Keys derived from ``SECRET_KEY``: one for each purpose, different in each installation."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from itsdangerous import URLSafeTimedSerializer

from ..protocol.contract import Tokens


class Keys:
    """Signs cookies and encrypts tokens.

    :param secrets: ``SECRET_KEY`` followed by ``SECRET_KEY_FALLBACKS``. The first one signs and
        encrypts, and each of them verifies and decrypts.
    :param installation: the installation's hash. Other installations have other keys, so they
        cannot read these cookies and records.
    """

    def __init__(self, secrets: Sequence[bytes], installation: str) -> None:
        self._secrets = secrets
        self._installation = installation

    def signer(self, purpose: str) -> URLSafeTimedSerializer:
        """Return a signer whose signatures are valid for this purpose only."""
        return URLSafeTimedSerializer(
            # itsdangerous signs with the last key.
            [self._derive(secret, purpose) for secret in reversed(self._secrets)],
            salt=f"flask-devkit-sso.{purpose}",
            signer_kwargs={"key_derivation": "hmac", "digest_method": hashlib.sha256},
        )

    def seal(self, text: str) -> str:
        """Encrypt a text for the store or for a cookie."""
        return self._fernet.encrypt(text.encode()).decode()

    def unseal(self, sealed: str) -> str | None:
        """Decrypt a text. Return None if its key is no longer configured."""
        try:
            return self._fernet.decrypt(sealed).decode()
        except InvalidToken:
            return None

    def seal_tokens(self, tokens: Tokens) -> str:
        """Encrypt tokens for a record."""
        return self.seal(json.dumps(asdict(tokens)))

    def unseal_tokens(self, sealed: str) -> Tokens | None:
        """Decrypt tokens. Return None if their key is no longer configured, or another version
        wrote them."""
        opened = self.unseal(sealed)
        if opened is None:
            return None
        try:
            return Tokens(**json.loads(opened))
        except (ValueError, TypeError):
            return None

    @cached_property
    def _fernet(self) -> MultiFernet:
        return MultiFernet(
            [
                Fernet(base64.urlsafe_b64encode(self._derive(secret, "seal")))
                for secret in self._secrets
            ]
        )

    def _derive(self, secret: bytes, purpose: str) -> bytes:
        info = f"flask-devkit-sso 1 {purpose}".encode()
        return HKDF(SHA256(), 32, self._installation.encode(), info).derive(secret)
