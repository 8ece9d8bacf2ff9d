"""The files that keep client id, secret and URLs out of the application's source.

There may be a credentials file, and one with nothing but the client secret. What is at their paths
is not trusted: it may be a FIFO, a device or another user's file. No message quotes their content,
because even an unknown key may turn out to be the secret.
"""

from __future__ import annotations

import difflib
import errno
import json
import os
import stat
import tempfile
import tomllib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

FILE_NAME: Final = "devkit_sso.toml"
"""The file's name in the instance folder, unless a setting names another path."""

REGISTER_COMMAND: Final = "flask devkit-sso register"
"""The command that writes the file."""

SANDBOX_COMMAND: Final = "python -m flask_devkit_sso.sandbox"
"""The command that starts a server for development."""

KEYS: Final = (
    "client_id",
    "client_secret",
    "server_url",
    "authorize_url",
    "token_url",
    "user_info_url",
    "refresh_url",
    "logout_url",
    "redirect_uri",
)

MAX_SIZE: Final = 64 * 1024
"""Maximum size of the file, in bytes."""

_MAX_LINE: Final = 4096
"""Maximum length of a line, in characters. tomllib needs quadratic time for a key with many
dots."""

_MAX_REPORTED: Final = 10
"""Maximum number of unknown keys that are reported."""


@dataclass
class Credentials:
    """The content of a file, and the problems with it.

    ``errors`` and ``warnings`` are sentences that name the file. ``values`` are the values that
    could be read. They have not been validated.
    """

    path: Path
    values: dict[str, Any] = field(default_factory=dict, repr=False)
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


class _Unusable(Exception):
    """The file cannot be used. The text continues a sentence that begins with the path."""


def read_credentials(path: Path, *, required: bool = True) -> Credentials:
    """Read a credentials file. Errors are returned, never raised.

    Symbolic links are followed, because mounted secrets are often symbolic links.

    :param required: whether a file that does not exist is an error.
    """
    return _read(path, _parse, required=required)


def read_secret(path: Path) -> Credentials:
    """Read a file that contains the client secret and nothing else, as :func:`read_credentials`
    does. One line break at its end is ignored."""
    return _read(path, _parse_secret, required=True)


def _read(path: Path, parse: Callable[[str], dict[str, Any]], *, required: bool) -> Credentials:
    credentials = Credentials(path)
    try:
        values = parse(_read_text(credentials))
    except (FileNotFoundError, NotADirectoryError):
        if path.is_symlink():
            credentials.errors.append(f"{path} is a link to a file that does not exist")
        elif required:
            credentials.errors.append(f"{path} does not exist")
    except OSError as error:
        reason = error.strerror or type(error).__name__
        credentials.errors.append(f"{path} cannot be read ({reason})")
    except _Unusable as error:
        credentials.errors.append(f"{path} {error}")
    else:
        credentials.values = {key: values[key] for key in KEYS if key in values}
        for key in [key for key in values if key not in KEYS][:_MAX_REPORTED]:
            name = key.lower().removeprefix("devkit_sso_")
            closest = difflib.get_close_matches(name, KEYS, 1, 0.0)[0]
            credentials.errors.append(
                f"{path} has an unknown key: did you mean {closest}? The keys are {', '.join(KEYS)}"
            )
    return credentials


def _read_text(credentials: Credentials) -> str:
    # Without O_NONBLOCK, opening a FIFO would wait for a writer.
    flags = os.O_RDONLY
    for name in ("O_NONBLOCK", "O_NOCTTY", "O_BINARY"):
        flags |= getattr(os, name, 0)
    descriptor = os.open(credentials.path, flags)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise _Unusable("is not a regular file")
        # Windows has no permission bits for the group and others.
        is_posix = os.name == "posix"
        is_fixed = is_posix and is_read_only(descriptor)
        if is_posix and not is_fixed and status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise _Unusable(
                "can be written by other users, who may have changed it: check its content, then "
                "remove that permission (chmod go-w)"
            )
        content = b""
        # Read up to one byte more than the limit, to notice a file that is too large.
        while chunk := os.read(descriptor, MAX_SIZE + 1 - len(content)):
            content += chunk
    finally:
        os.close(descriptor)
    if len(content) > MAX_SIZE:
        raise _Unusable("is larger than 64 KiB")
    if is_posix and status.st_mode & stat.S_IROTH:
        fix = (
            "mount it with a mode such as 0440"
            if is_fixed
            else "remove that permission (chmod o-r)"
        )
        credentials.warnings.append(
            f"{credentials.path} contains the client secret, and every user of this machine can "
            f"read it: {fix}"
        )
    try:
        # Windows editors begin a file with a byte order mark.
        return content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError:
        raise _Unusable("is not UTF-8") from None


def is_read_only(file: int | Path) -> bool:
    """Return whether a file is on a read-only mount, where its mode cannot be changed and its
    permission to write has no effect. It needs a POSIX system."""
    return bool(os.statvfs(file).f_flag & os.ST_RDONLY)


def _parse_secret(text: str) -> dict[str, Any]:
    secret = text.removesuffix("\n")
    if not secret:
        raise _Unusable("is empty: write the client secret into it")
    return {"client_secret": secret}


def _parse(text: str) -> dict[str, Any]:
    if any(len(line) > _MAX_LINE for line in text.split("\n")):
        raise _Unusable(f"has a line of more than {_MAX_LINE} characters")
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError):
        # Do not chain the exception, because its message may quote the file.
        raise _Unusable('is not valid TOML: write lines like client_id = "…"') from None


def follow_links(path: Path) -> Path:
    """Return the path after following symbolic links.

    :raises OSError: for a loop of links. If root calls it, also for a link that belongs to another
        user, because that user could make root read and replace any file.
    """
    is_root = os.name == "posix" and os.geteuid() == 0
    for _ in range(40):
        if not path.is_symlink():
            return Path(os.path.realpath(path.parent), path.name)
        if is_root and path.lstat().st_uid != 0:
            raise OSError(
                None, f"{path} is a link that belongs to another user, so root does not follow it"
            )
        path = path.parent / path.readlink()
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))


def write_credentials(path: Path, values: Mapping[str, str]) -> Path:
    """Write a credentials file atomically, readable only by its owner, and return its path.

    A symbolic link stays, and the file that it points to is replaced (:func:`follow_links`). A
    missing folder is created. If root calls it, the new file belongs to the owner of the file that
    it replaces or, without one, of its folder, so that the application can read it.

    :param values: printable texts by key.
    :raises OSError: if the file cannot be written. The previous file is unchanged then.
    """
    lines = [f"# Written by `{REGISTER_COMMAND}`, which removes comments."]
    # A JSON string of printable characters is a TOML string.
    lines += [
        f"{key} = {json.dumps(values[key], ensure_ascii=False)}" for key in KEYS if key in values
    ]
    content = ("\n".join(lines) + "\n").encode()
    if len(content) > MAX_SIZE or max(map(len, lines)) > _MAX_LINE:
        raise OSError(None, "a value is too long")
    target = follow_links(path)
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    owner = target.parent.stat()
    with suppress(FileNotFoundError):
        owner = target.lstat()
        if not stat.S_ISREG(owner.st_mode):
            raise OSError(None, "it is not a regular file")
    descriptor, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            if os.name == "posix" and os.geteuid() == 0:
                # In a container, root may not be allowed to do this.
                with suppress(OSError):
                    os.fchown(descriptor, owner.st_uid, owner.st_gid)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        os.replace(temporary, target)  # noqa: PTH105
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)  # noqa: PTH108
        raise
    # Windows and some file systems cannot synchronise a folder.
    with suppress(OSError):
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    return target
