"""Keys derived from ``SECRET_KEY``: one for each purpose, different in each installation."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from itsdangerous import BadData, URLSafeSerializer

from ..per_process import PerProcess, no_fork
from ..protocol.contract import Tokens
from .records import UNREADABLE, parse_tokens, serialize

if TYPE_CHECKING:
    from .sealing import Sealer

_SIGNED: Final = re.compile(r"\.?[A-Za-z0-9_-]+\.[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]")
"""The only accepted form of a signed value: base64url without padding, whose two unused last bits
are zero. itsdangerous would also accept other spellings of the same signature."""


@dataclass(frozen=True)
class Signed:
    """A value whose signature is valid. ``at`` is when it was signed, in Unix seconds by the clock
    of the host that signed it."""

    value: Any = field(repr=False)
    at: float


class Signer:
    """Signs JSON values for one purpose, together with the time.

    The time is part of the value. A timestamp of itsdangerous is in whole seconds, and is rejected
    if it comes from a host whose clock is ahead.

    :param keys: the first one signs, and each of them verifies.
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        # itsdangerous signs with the last key. The keys are derived for one purpose already.
        self._serializer = URLSafeSerializer(
            keys[::-1],
            signer_kwargs={"key_derivation": "none", "digest_method": hashlib.sha256},
        )
        # The serializer itself would create one for each text.
        self._signer = self._serializer.make_signer()

    def sign(self, value: object, *, at: float | None = None) -> str:
        """Return a value as signed text, for a URL or a cookie.

        :param at: the time to sign, in Unix seconds; by default now.
        """
        now = time.time() if at is None else at
        return self._signer.sign(self._serializer.dump_payload([value, round(now, 3)])).decode()

    def read(self, text: str) -> Signed | None:
        """Return a signed value, whatever its age, or None if :meth:`sign` did not return exactly
        this text.

        Check the age with :func:`~flask_devkit_sso.store.base.is_recent`. If it may be only a few
        seconds, allow for the difference between clocks there.
        """
        if not _SIGNED.fullmatch(text):
            return None
        try:
            value, at = self._serializer.load_payload(self._signer.unsign(text))
        except (BadData, ValueError, TypeError):
            return None
        return Signed(value, at)


class IdSigner:
    """Signs random ids for one purpose, and names what they identify. Every request reads one.

    One keyed hash (BLAKE2, RFC 7693) has two halves. The first is the signature. The second is the
    *name*: the store has records under it, and nobody can calculate the id from it.

    :param keys: the first one signs, and each of them verifies.
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = keys

    def create(self) -> tuple[str, str]:
        """Return a new id with its signature, for a cookie, and its name."""
        id = secrets.token_urlsafe(32)
        signature, name = _halves(self._keys[0], id)
        return f"{id}.{signature}", name

    def read(self, text: str) -> str | None:
        """Return the name of a signed id, or None if :meth:`create` did not return this text."""
        id, _, signature = text.rpartition(".")
        # compare_digest accepts no other text.
        if not text.isascii():
            return None
        for key in self._keys:
            expected, name = _halves(key, id)
            if hmac.compare_digest(signature, expected):
                return name
        return None


def _halves(key: bytes, id: str) -> tuple[str, str]:
    digest = hashlib.blake2b(id.encode(), key=key).hexdigest()
    return digest[:64], digest[64:]


class Keys:
    """Signs cookies and encrypts tokens.

    :param secret_keys: ``SECRET_KEY`` followed by ``SECRET_KEY_FALLBACKS``. The first one signs and
        encrypts, and each of them verifies and decrypts.
    :param installation: the installation's hash. Other installations have other keys, so they
        cannot read these cookies and records.
    """

    def __init__(self, secret_keys: Sequence[bytes], installation: str) -> None:
        self._secret_keys = secret_keys
        self._installation = installation
        # Requests need them, and deriving a key takes longer than a hash.
        self._hash_keys: dict[str, list[bytes]] = {}
        self._sealer = PerProcess(self._create_sealer)

    def signer(self, purpose: str) -> Signer:
        """Return a signer whose signatures are valid for this purpose only."""
        return Signer(self._derive_all(purpose))

    def id_signer(self, purpose: str) -> IdSigner:
        """Return a signer of ids whose signatures are valid for this purpose only."""
        return IdSigner(self._derive_all(purpose))

    def hashes(self, purpose: str, text: str) -> list[str]:
        """Return keyed hashes of a text: with the present key, then with each of its fallbacks."""
        if purpose not in self._hash_keys:
            self._hash_keys[purpose] = self._derive_all(purpose)
        keys = self._hash_keys[purpose]
        return [hmac.digest(key, text.encode(), "sha256").hex() for key in keys]

    def prepare_to_seal(self) -> None:
        """Import cryptography before there is a text to encrypt, which the frames of an ImportError
        would show."""
        self._sealer.get()

    def seal(self, text: str) -> str:
        """Encrypt a text for the store or for a cookie."""
        return self._sealer.get().seal(text)

    def unseal(self, sealed: str) -> str | None:
        """Decrypt a text. Return None if its key is not configured here, or if it is damaged."""
        return self._sealer.get().unseal(sealed)

    def seal_tokens(self, tokens: Tokens, *, previous: str = "") -> str:
        """Encrypt tokens for a record.

        :param previous: the encrypted tokens that they replace, as for
            :func:`~flask_devkit_sso.session.records.serialize`.
        """
        opened = self.unseal(previous) if previous else None
        return self.seal(serialize(vars(tokens), previous=opened or ""))

    def unseal_tokens(self, sealed: str) -> Tokens | None:
        """Decrypt tokens. Return None if their key is not configured here, or if another version
        wrote them."""
        opened = self.unseal(sealed)
        if opened is None:
            return None
        try:
            return parse_tokens(json.loads(opened))
        except UNREADABLE:
            return None

    def _create_sealer(self) -> Sealer:
        # A guarded request only verifies a signature, and cryptography needs more memory than all
        # other imports together.
        with no_fork:
            from .sealing import Sealer

            sealer = Sealer(self._derive_all("seal"))
            # OpenSSL takes locks of its own when it is used for the first time.
            sealer.unseal(sealer.seal(""))
        return sealer

    def _derive_all(self, purpose: str) -> list[bytes]:
        """Return a key for each secret, in the same order."""
        salt, info = self._installation.encode(), f"flask-devkit-sso 1 {purpose}".encode()
        return [_derive(secret, salt, info) for secret in self._secret_keys]


def _derive(secret: bytes, salt: bytes, info: bytes) -> bytes:
    """Return a key of 32 bytes: HKDF with SHA-256 (RFC 5869 sections 2.2 and 2.3).

    A key as long as the hash needs one step of HKDF-Expand, so no library is imported for it.
    """
    extracted = hmac.digest(salt, secret, "sha256")
    return hmac.digest(extracted, info + b"\x01", "sha256")
