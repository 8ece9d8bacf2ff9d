"""What is owed to the authentication server: sign-ins that ended here and that it was not told of.

A debt is written down before the server is told (docs/protocol.md section 6), so it outlives the
request and the worker. Any worker pays later what could not be paid at once.
"""

from __future__ import annotations

import json
import logging
import secrets
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Final

from ..config.settings import Settings
from ..errors import ServerError, ServerUnavailable, SSOError, StoreUnavailable
from ..protocol.client import Client
from ..store.base import POLL, Claim, Store
from .keys import Keys
from .sessions import EARLY, Tokens, refresh_key, seal_tokens, unseal_tokens

log: Final = logging.getLogger("flask_devkit_sso")

RECORD_VERSION: Final = 1

EVERY: Final = 30.0
"""Seconds between two looks at what is owed, in one process; and between two tries of one debt."""

PAST_USE: Final = 86400.0
"""Seconds after the last access token's end for which a refresh token is tried: it lasts "hours or
days" (section 2), and after a day the server's own sign-in is likely to be over as well."""

_ROUND: Final = 20.0
"""Seconds after which a round starts no further call."""

_DEAD: Final = ("8205", "8206")
"""The token is dead at the server already: nothing is left to be told."""


@dataclass
class Debt:
    """One logout that the server is to be told of. ``due`` in Unix seconds: when to try next."""

    key: str = field(repr=False)
    uid: str
    due: float
    tokens: Tokens

    @property
    def until(self) -> float:
        """When the tokens are past use."""
        return self.tokens.expires + (PAST_USE if self.tokens.refresh_token else 0)


class Debts:
    """The debts of one installation. All threads may share it."""

    def __init__(self, store: Store, keys: Keys, client: Client, settings: Settings) -> None:
        self._store = store
        self._keys = keys
        self._client = client
        self._settings = settings
        self._owner = f"{settings.installation}:owed"
        # Longer than it takes to wait for another's refresh, to refresh, and to log out.
        self._call = 3 * settings.timeout + 5
        self._next_look = time.monotonic() + EVERY

    def owe(self, name: str, uid: str, tokens: Tokens) -> Debt:
        """Write a debt down; until the caller is done with :meth:`pay`, nobody else tries.

        :param name: unique, such as the hash that names a session.
        :raises StoreUnavailable: then nothing is owed, and nothing should end.
        """
        debt = Debt(self._key(name), uid, time.time() + self._call, tokens)
        self._store.add(
            debt.key,
            self._record(debt),
            # Longer than it is tried, so that somebody drops it, and says so.
            expires=max(debt.until, debt.due) + PAST_USE,
            owner=self._owner,
        )
        return debt

    def renew(self, name: str, tokens: Tokens) -> None:
        """Give what is owed under a name, if anything is, tokens that came meanwhile.

        :raises StoreUnavailable: then it may still have the old ones.
        """
        row = self._store.read(self._key(name))
        debt = self._read(self._key(name), row.data) if row else None
        if debt is not None:
            debt.tokens = tokens
            self._store.update(debt.key, self._record(debt))

    def pay(self, debt: Debt, latest: Tokens | None) -> bool:
        """Tell the server now. False: it was not told; it is tried again, where that may help.

        A refresh of the session's tokens that is under way is waited for: the server may have
        spent the old ones already, and the new ones are what it can be told with.

        :param debt: as :meth:`owe` returned it.
        :param latest: the session's tokens as it ended.

        Nothing is raised: the session has ended here, whatever becomes of this.
        """
        name = debt.key.rpartition(":")[2]
        refresh = Claim(self._store, refresh_key(self._settings.installation, name), 0)
        until = time.monotonic() + self._settings.timeout
        found = None
        with suppress(StoreUnavailable):
            while refresh.is_taken():
                if time.monotonic() > until:
                    log.warning("logout: the server was not told: a refresh is still under way")
                    return False
                time.sleep(POLL)
            row = self._store.read(debt.key)
            found = self._read(debt.key, row.data) if row else None
        if found is not None and found.tokens != debt.tokens:
            debt.tokens = found.tokens
        elif latest is not None:
            debt.tokens = latest
        try:
            self._tell(debt)
        except (ServerError, ServerUnavailable) as error:
            log.warning("logout: the server was not told: %s", error.description)
            if getattr(error, "server_code", None) not in _DEAD:
                self._keep(debt, due=time.time())
                return False
            told = False
        else:
            told = True
        with suppress(StoreUnavailable):
            self._store.remove(debt.key)
        return told

    def look(self) -> None:
        """Have a thread pay what is due, if the last look is long enough ago. Never waits."""
        now = time.monotonic()
        if now >= self._next_look:
            self._next_look = now + EVERY
            threading.Thread(target=self._pay_all, name="devkit-sso-debts", daemon=True).start()

    def _pay_all(self) -> None:
        try:
            self.pay_due()
        except SSOError as error:
            log.info("what is owed to the server can't be looked at: %s", error)

    def pay_due(self) -> int:
        """Pay what is due, unless another worker is at it; return how many debts were settled.

        :raises StoreUnavailable: when it cannot be said what is due.
        """
        if not self._due():
            return 0
        lock, mine = f"{self._owner}-lock", secrets.token_hex(8)
        if not self._store.add(lock, mine, expires=time.time() + _ROUND + self._call):
            return 0
        try:
            return self._pay_each(self._due())
        finally:
            self._store.remove(lock, data=mine)

    def _pay_each(self, debts: list[Debt]) -> int:
        until = time.monotonic() + _ROUND
        settled = 0
        for debt in debts:
            if time.monotonic() > until:
                break
            if debt.until <= time.time():
                log.warning("logout of uid %r: the server was never told, it is too late", debt.uid)
            else:
                try:
                    self._tell(debt)
                except ServerUnavailable:
                    # The others would fare no better.
                    self._keep(debt, due=time.time() + EVERY)
                    break
                except ServerError as error:
                    if error.server_code not in _DEAD:
                        self._keep(debt, due=time.time() + EVERY)
                        continue
                    log.info("logout of uid %r: its tokens are dead at the server", debt.uid)
                else:
                    log.info("logout of uid %r: the server is told", debt.uid)
            self._store.remove(debt.key)
            settled += 1
        return settled

    def _tell(self, debt: Debt) -> None:
        """Have the server end its sign-in. One that is told with an expired access token refuses,
        or ends nothing; so that is refreshed first."""
        refresh_token = debt.tokens.refresh_token
        if debt.tokens.expires - time.time() <= EARLY and refresh_token is not None:
            asked = time.time()
            answer = self._client.refresh(refresh_token)
            answer = replace(answer, refresh_token=answer.refresh_token or refresh_token)
            debt.tokens = Tokens.of(answer, asked=asked)
            # Before anything else can fail: the old refresh token may be spent.
            self._keep(debt, due=time.time() + self._call)
        self._client.logout(debt.tokens.access_token)

    def _keep(self, debt: Debt, *, due: float) -> None:
        debt.due = due
        # Without it the debt stays as it was.
        with suppress(StoreUnavailable):
            self._store.update(debt.key, self._record(debt))

    def _key(self, name: str) -> str:
        return f"{self._owner}:{name}"

    def _due(self) -> list[Debt]:
        found = (
            self._read(key, row.data) for key, row in self._store.of_owner(self._owner).items()
        )
        due = [debt for debt in found if debt is not None and debt.due <= time.time()]
        return sorted(due, key=lambda debt: debt.due)

    def _record(self, debt: Debt) -> str:
        return json.dumps(
            {
                "version": RECORD_VERSION,
                "uid": debt.uid,
                "due": debt.due,
                "tokens": seal_tokens(self._keys, debt.tokens),
            }
        )

    def _read(self, key: str, data: str) -> Debt | None:
        """Read a record; one of another version is left for its writer, and so is one whose
        tokens only another key opens."""
        try:
            record = json.loads(data)
            if record["version"] != RECORD_VERSION:
                return None
            uid, due = record["uid"], record["due"]
            if not (isinstance(uid, str) and isinstance(due, int | float)):
                return None
            tokens = unseal_tokens(self._keys, record["tokens"])
            return Debt(key, uid, due, tokens) if tokens else None
        except (ValueError, LookupError, TypeError):
            return None
