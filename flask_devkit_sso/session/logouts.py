"""Pending logouts: people signed out here, and the server has not confirmed it yet.

Until then they stay signed in at the server, and the next person at the browser could use that
(docs/protocol.md section 6). A pending logout is recorded before it is reported, so it survives the
request and the worker. If it cannot be reported at once, any worker reports it later.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from ..config.settings import Settings
from ..errors import ServerError, ServerUnavailable, SSOError, StoreUnavailable
from ..protocol.client import Client
from ..protocol.contract import MAX_EXPIRES_IN, REFRESH_MARGIN, Tokens
from ..protocol.error_codes import INVALID_ACCESS_TOKEN, INVALID_REFRESH_TOKEN
from ..store.base import Store
from ..store.claim import POLL, Claim, is_claimed
from .keys import Keys
from .records import UNREADABLE, parse_time, serialize
from .sessions import refresh_claim_key

log: Final = logging.getLogger("flask_devkit_sso")

RECORD_VERSION: Final = 1

RETRY_EVERY: Final = 30.0
"""Seconds between two rounds in one process, and between two attempts for one logout."""

GIVE_UP_AFTER: Final = 86400.0
"""Seconds after the access token expires during which the refresh token is still used to report a
logout. It is valid for "hours or days" (section 2), and after a day the sign-in at the server has
probably ended by itself."""

_ROUND_SECONDS: Final = 20.0
"""Seconds after which a round starts no further call."""

_UNAVAILABLE: Final = 2
"""After this many logouts in a row that the server did not answer, a round ends. One alone may be
the cause itself."""

_TOKEN_IS_INVALID: Final = (INVALID_ACCESS_TOKEN, INVALID_REFRESH_TOKEN)
"""Codes for a token that is already invalid at the server, so there is nothing left to report."""


@dataclass
class PendingLogout:
    """A logout to report to the server. ``retry_at`` is in Unix seconds."""

    key: str = field(repr=False)
    uid: str
    retry_at: float
    tokens: Tokens
    record: str = field(default="", repr=False)

    @property
    def name(self) -> str:
        """The name under which it was recorded."""
        return self.key.rpartition(":")[2]

    @property
    def give_up_at(self) -> float:
        """The Unix time after which the logout is no longer reported."""
        return self.tokens.expires_at + (GIVE_UP_AFTER if self.tokens.refresh_token else 0)


class PendingLogouts:
    """The pending logouts of one installation. Threads may share it."""

    def __init__(self, store: Store, keys: Keys, client: Client, settings: Settings) -> None:
        self._store = store
        self._keys = keys
        self._client = client
        self._installation = settings.installation
        self._timeout = settings.timeout
        self._owner = f"{settings.installation}:logouts"
        # Long enough to wait for another worker's refresh, to refresh, and to log out.
        self._report_seconds = 3 * settings.timeout + 5
        self._next_round = time.monotonic() + RETRY_EVERY

    def record(self, name: str, uid: str, tokens: Tokens) -> PendingLogout:
        """Record a logout. Other workers leave it alone until the caller has had time to report it.

        :param name: unique, such as a session's name.
        :raises StoreUnavailable: if the store fails. The session should not end then.
        """
        logout = PendingLogout(self._key(name), uid, time.time() + self._report_seconds, tokens)
        logout.record = self._serialize(uid, logout.retry_at, self._keys.seal_tokens(tokens))
        self._store.add(
            logout.key,
            logout.record,
            # The record outlives the attempts, so that a worker finds it, logs that it gives up,
            # and removes it.
            expires=max(logout.give_up_at, logout.retry_at) + GIVE_UP_AFTER,
            owner=self._owner,
        )
        return logout

    def record_sealed(self, name: str, uid: str, sealed: str, *, replaces: bool = False) -> None:
        """Record a logout for a worker that can decrypt its tokens, as this one cannot.

        :param name: unique, such as a session's name.
        :param sealed: the encrypted tokens, as the session has them.
        :param replaces: whether these tokens replace those of a logout that the caller recorded.
        :raises StoreUnavailable: if the store fails.
        """
        now = time.time()
        record = self._serialize(uid, now, sealed)
        expires = now + MAX_EXPIRES_IN + 2 * GIVE_UP_AFTER
        is_new = self._store.add(self._key(name), record, expires=expires, owner=self._owner)
        if replaces and not is_new:
            self._store.update(self._key(name), record)

    def replace_tokens(self, name: str, uid: str, old: Tokens, new: Tokens) -> None:
        """Replace the tokens of a pending logout after a refresh that ended after it was recorded.

        Nothing happens if there is no such logout, or if it has other tokens than ``old``. If its
        tokens cannot be decrypted here, a second logout with the new ones is recorded.

        :raises StoreUnavailable: if the store fails. The logout may still have the old tokens.
        """
        row = self._store.read(self._key(name))
        if row is None:
            return
        logout = self._parse(self._key(name), row.data)
        if logout is None:
            self.record_sealed(f"{name}-refreshed", uid, self._keys.seal_tokens(new))
        elif logout.tokens == old:
            logout.tokens = new
            self._save(logout)

    def report(self, logout: PendingLogout, latest: Tokens | None) -> bool:
        """Report a logout to the server now, and return whether the server confirmed it.

        If the session's tokens are being refreshed, it waits for the new ones, because the server
        may already have invalidated the old ones. If the report fails, it is repeated later, unless
        the tokens are invalid.

        :param logout: as :meth:`record` returned it.
        :param latest: the session's last tokens.
        """
        found = None
        with suppress(StoreUnavailable):
            if not self._wait_for_refresh(logout):
                log.warning("logout: to be reported to the server later: a refresh is in progress")
                return False
            found = self._load(logout.key)
        has_new_tokens = found is not None and found.tokens != logout.tokens
        logout = found or logout
        if latest is not None and not has_new_tokens:
            logout.tokens = latest
        try:
            self._call(logout, background=False)
        except (ServerError, ServerUnavailable) as error:
            if getattr(error, "server_code", None) not in _TOKEN_IS_INVALID:
                log.warning("logout: to be reported to the server later: %s", error.description)
                self._postpone(logout, until=time.time())
                return False
            log.warning("logout: not confirmed by the server: %s", error.description)
            is_confirmed = False
        except Exception:
            # The session has ended, so the logout must succeed here whatever went wrong.
            log.exception("logout: to be reported to the server later")
            self._postpone(logout, until=time.time())
            return False
        else:
            is_confirmed = True
        with suppress(StoreUnavailable):
            self._store.remove(logout.key)
        return is_confirmed

    def start_round(self) -> None:
        """Report pending logouts in the background, at most once in :data:`RETRY_EVERY` seconds."""
        now = time.monotonic()
        if now >= self._next_round:
            self._next_round = now + RETRY_EVERY
            thread = threading.Thread(
                target=self._run_round, name="devkit-sso-logouts", daemon=True
            )
            # If the system has no thread left, this request must not fail because of that.
            with suppress(RuntimeError):
                thread.start()

    def _run_round(self) -> None:
        try:
            self.report_pending()
        except SSOError as error:
            log.info("pending logouts cannot be read: %s", error)
        except Exception:
            log.exception("pending logouts cannot be reported")

    def report_pending(self) -> int:
        """Report the logouts whose ``retry_at`` has come, unless another worker is doing so.

        :return: how many logouts need no further report.
        :raises StoreUnavailable: if the pending logouts cannot be read.
        """
        if not self._due():
            return 0
        seconds = _ROUND_SECONDS + self._report_seconds
        claim = Claim(self._store, f"{self._owner}-claim", life=seconds, expires_in=seconds)
        if not claim.take():
            return 0
        try:
            return self._report_each(self._due())
        finally:
            claim.release()

    def _report_each(self, logouts: list[PendingLogout]) -> int:
        deadline = time.monotonic() + _ROUND_SECONDS
        settled = unavailable = 0
        for logout in logouts:
            if time.monotonic() > deadline or unavailable == _UNAVAILABLE:
                break
            if logout.give_up_at <= time.time():
                log.warning("logout of uid %r: given up, not reported to the server", logout.uid)
            else:
                try:
                    self._call(logout, background=True)
                except ServerUnavailable:
                    unavailable += 1
                    self._postpone(logout, until=time.time() + RETRY_EVERY)
                    continue
                except ServerError as error:
                    unavailable = 0
                    if error.server_code not in _TOKEN_IS_INVALID:
                        self._postpone(logout, until=time.time() + RETRY_EVERY)
                        continue
                    log.info(
                        "logout of uid %r: its tokens are already invalid at the server", logout.uid
                    )
                except Exception:
                    log.exception(
                        "logout of uid %r: to be reported to the server later", logout.uid
                    )
                    self._postpone(logout, until=time.time() + RETRY_EVERY)
                    continue
                else:
                    unavailable = 0
                    log.info("logout of uid %r: reported to the server", logout.uid)
            self._store.remove(logout.key)
            settled += 1
        return settled

    def _wait_for_refresh(self, logout: PendingLogout) -> bool:
        """Wait until the session's tokens are not being refreshed. Return False after the
        timeout."""
        key = refresh_claim_key(self._installation, logout.name)
        deadline = time.monotonic() + self._timeout
        while is_claimed(self._store, key):
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL)
        return True

    def _call(self, logout: PendingLogout, *, background: bool) -> None:
        """Let the server end its sign-in. Refresh an access token first if it has expired.

        With an expired access token, servers refuse the logout or end nothing (docs/protocol.md,
        "What standard servers also do").
        """
        tokens = logout.tokens
        if tokens.expires_at - time.time() <= REFRESH_MARGIN and tokens.refresh_token is not None:
            logout.tokens = self._client.refresh(tokens, background=background)
            # Store the new tokens before anything else can fail: the old ones may be invalid by
            # now.
            self._postpone(logout, until=time.time() + self._report_seconds)
        self._client.logout(logout.tokens.access_token, background=background)

    def _postpone(self, logout: PendingLogout, *, until: float) -> None:
        logout.retry_at = until
        # If the store fails, the record stays as it was.
        with suppress(StoreUnavailable):
            self._save(logout)

    def _save(self, logout: PendingLogout) -> None:
        """Write a logout, unless another worker has changed it since it was read."""
        previous = json.loads(logout.record)["tokens"]
        sealed = self._keys.seal_tokens(logout.tokens, previous=previous)
        record = self._serialize(logout.uid, logout.retry_at, sealed, previous=logout.record)
        if self._store.update(logout.key, record, expected=logout.record):
            logout.record = record

    def _key(self, name: str) -> str:
        return f"{self._owner}:{name}"

    def _due(self) -> list[PendingLogout]:
        rows = self._store.of_owner(self._owner)
        found = (self._parse(key, row.data) for key, row in rows.items())
        due = [logout for logout in found if logout and logout.retry_at <= time.time()]
        return sorted(due, key=lambda logout: logout.retry_at)

    def _load(self, key: str) -> PendingLogout | None:
        row = self._store.read(key)
        return self._parse(key, row.data) if row else None

    def _serialize(self, uid: str, retry_at: float, sealed: str, *, previous: str = "") -> str:
        values: dict[str, object] = {
            "version": RECORD_VERSION,
            "uid": uid,
            "retry_at": retry_at,
            "tokens": sealed,
        }
        return serialize(values, previous=previous)

    def _parse(self, key: str, data: str) -> PendingLogout | None:
        """Parse a record. Return None, and leave it to another worker, if another version wrote it
        or if its tokens cannot be decrypted here."""
        try:
            record = json.loads(data)
            if record["version"] != RECORD_VERSION:
                return None
            uid, retry_at = record["uid"], parse_time(record["retry_at"])
            if not isinstance(uid, str):
                return None
            tokens = self._keys.unseal_tokens(record["tokens"])
            return PendingLogout(key, uid, retry_at, tokens, data) if tokens else None
        except UNREADABLE:
            return None
