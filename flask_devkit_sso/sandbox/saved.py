"""What a sandbox keeps between its starts: the client secret, the people and the certificate."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeGuard

from . import certificates
from .certificates import CertificateError
from .config import new_client_secret
from .folder import FolderError, PrivateFolder
from .hashing import is_password_hash
from .people import INITIAL_PEOPLE, Person

_VERSION = 1
"""Of the format of the state file."""

_STATE, _SERVER, _CA = "state.json", "server.pem", "ca.pem"

_PERSON: dict[str, tuple[type, ...]] = {
    "username": (str,),
    "role": (str,),
    "uid": (str,),
    "disabled": (bool,),
    "password_hash": (str, type(None)),
}


class SavedState:
    """A folder with the state of one sandbox.

    What is damaged, missing or unsafe is an error. It is never replaced, because applications trust
    the CA and use the secret.

    :param folder: empty, or with the state of an earlier start.
    :param client_secret: a new secret, which replaces the kept one; None keeps it.
    :ivar client_secret: the secret. It is kept in clear, because each start prints it; another
        server would keep only its hash.
    :ivar people: the people on the sign-in page.
    :raises FolderError: if the state cannot be used.
    """

    def __init__(self, folder: PrivateFolder, client_secret: str | None) -> None:
        self._folder = folder
        self.client_secret = client_secret or ""
        self.people: Sequence[Person] = INITIAL_PEOPLE
        names = folder.names()
        if _STATE in names:
            kept_secret, self.people = self._parse(folder.read(_STATE))
            self.client_secret = client_secret or kept_secret
        elif names:
            raise folder.error(f"it has files, but no {_STATE}. Name a new or an empty folder")
        self.client_secret = self.client_secret or new_client_secret()
        # Even if nothing has changed, to find out now whether the folder is writable.
        self.save_people(self.people)

    def save_people(self, people: Sequence[Person]) -> None:
        """Save the people on the sign-in page.

        :raises FolderError: if they cannot be saved.
        """
        state = {
            "version": _VERSION,
            "client_secret": self.client_secret,
            "people": [asdict(person) for person in people],
        }
        text = json.dumps(state, ensure_ascii=False, indent=1)
        self._folder.write(_STATE, text.encode())

    def ensure_certificate(self, names: Iterable[str]) -> bool:
        """Check the kept certificate. If there is none, create one, and a CA; return whether.

        :param names: the host names and addresses that it has to name.
        :raises FolderError: if it is damaged, has expired or does not name a host.
        :raises ImportError: if a new one is needed and trustme is not installed.
        """
        kept = self._folder.names()
        if _SERVER not in kept:
            if _CA in kept:
                raise self._needs_new_ca(f"{_SERVER} is missing")
            certificate = certificates.issue(names)
            # In this order: the second file can be restored from the first.
            self._folder.write(_SERVER, certificate.server_pem)
            self._folder.write(_CA, certificate.ca_pem)
            return True
        try:
            certificate = certificates.check(self._folder.read(_SERVER), names)
        except CertificateError as error:
            raise self._needs_new_ca(f"{_SERVER} {error}") from None
        if _CA not in kept:
            self._folder.write(_CA, certificate.ca_pem)
        elif self._folder.read(_CA) != certificate.ca_pem:
            raise self._needs_new_ca(f"{_CA} is not the CA of {_SERVER}")
        return False

    @property
    def server_path(self) -> Path:
        """The file with the private key and the certificate."""
        return self._folder.path / _SERVER

    @property
    def ca_path(self) -> Path:
        """The file with the CA's certificate."""
        return self._folder.path / _CA

    def _needs_new_ca(self, problem: str) -> FolderError:
        return self._folder.error(
            f"{problem}. Name another folder, or delete {_SERVER} and {_CA} there to create a new "
            "CA, which applications and browsers then have to trust"
        )

    def _parse(self, content: bytes) -> tuple[str, list[Person]]:
        damaged = self._folder.error(
            f"{_STATE} is damaged. Restore it, name another folder, or delete this one to start "
            "again with a new secret and a new CA"
        )
        try:
            state = json.loads(content)
        except (ValueError, RecursionError):
            raise damaged from None
        if not isinstance(state, dict) or type(state.get("version")) is not int:
            raise damaged
        if state["version"] != _VERSION:
            raise self._folder.error(
                f"{_STATE} was written by another version of this package, in format "
                f"{state['version']} instead of {_VERSION}. Name another folder"
            )
        secret, people = state.get("client_secret"), state.get("people")
        if not _is_text(secret) or not isinstance(people, list):
            raise damaged
        if not all(map(_is_person, people)):
            raise damaged
        if len({person["username"] for person in people}) != len(people):
            raise damaged
        return secret, [Person(**person) for person in people]


def _is_text(value: Any) -> TypeGuard[str]:
    return isinstance(value, str) and value != "" and value.isprintable()


def _is_person(value: Any) -> bool:
    if not isinstance(value, dict) or value.keys() != _PERSON.keys():
        return False
    if not all(isinstance(value[name], types) for name, types in _PERSON.items()):
        return False
    password_hash = value["password_hash"]
    return (
        _is_text(value["username"])
        and (value["role"] + value["uid"]).isprintable()
        and (password_hash is None or is_password_hash(password_hash))
    )
