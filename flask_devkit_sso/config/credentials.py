"""The credentials file: what was agreed with the authentication server, outside of the source.

Nobody vouches for what stands at its path: a FIFO, a device, another user's text. Nothing of its
content is in any message, since what looks like a wrong key may be the secret.
"""

from __future__ import annotations

import difflib
import errno
import json
import os
import re
import stat
import tempfile
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

NAME: Final = "devkit_sso.toml"
"""In the instance folder, unless a setting names another file."""

COMMAND: Final = "flask devkit-sso register"
"""What writes the file."""

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
"""Bytes."""

_MAX_LINE: Final = 4096
"""Characters. A key of many dots costs tomllib the square of its length."""

_MAX_TOLD: Final = 10
"""Unknown keys that are told of at once."""


@dataclass
class Credentials:
    """What reading a credentials file came to.

    ``wrong`` and ``warnings`` are sentences that name the file, ``lines`` are those of the values,
    and ``values`` is what could be read, not yet checked.
    """

    path: Path
    values: dict[str, Any] = field(default_factory=dict, repr=False)
    lines: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def place(self, line: int | None = None) -> str:
        """Return how a message names the file, and the line where one is known."""
        return f"{self.path}, line {line}:" if line else f"{self.path}:"


class _Unfit(Exception):
    """A file that is not read; the text follows its name."""


def read_credentials(path: Path, *, required: bool = True) -> Credentials:
    """Read a credentials file; whatever is wrong with it is in the answer, never raised.

    Symbolic links are followed, as mounted secrets are some.

    :param required: whether it is wrong that there is no such file.
    """
    credentials = Credentials(path)
    try:
        text = _read(credentials)
        values = _parse(text)
    except (FileNotFoundError, NotADirectoryError):
        if path.is_symlink():
            credentials.wrong.append(f"{path} is a link to a file that is not there")
        elif required:
            credentials.wrong.append(f"{path} is not there")
    except OSError as error:
        reason = error.strerror or type(error).__name__
        credentials.wrong.append(f"{path} cannot be read ({reason})")
    except _Unfit as error:
        credentials.wrong.append(f"{path}{error}")
    else:
        credentials.values = {key: values[key] for key in KEYS if key in values}
        lines = {key: _line_of(key, text) for key in KEYS if key in values}
        credentials.lines = {key: line for key, line in lines.items() if line}
        for key in [key for key in values if key not in KEYS][:_MAX_TOLD]:
            name = key.lower().removeprefix("devkit_sso_")
            near = difflib.get_close_matches(name, KEYS, 1, 0.0)[0]
            credentials.wrong.append(
                f"{credentials.place(_line_of(key, text))} this key is none of {', '.join(KEYS)}; "
                f"perhaps {near} is meant"
            )
    return credentials


def _read(credentials: Credentials) -> str:
    # Without O_NONBLOCK, opening a FIFO would wait for a writer.
    flags = os.O_RDONLY
    for name in ("O_NONBLOCK", "O_NOCTTY", "O_BINARY"):
        flags |= getattr(os, name, 0)
    descriptor = os.open(credentials.path, flags)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise _Unfit(" is not a regular file")
        # Windows has no such bits.
        if os.name == "posix" and status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise _Unfit(
                " can be written by other users, so what it says may be theirs: look at it, then "
                "take that right away (chmod go-w)"
            )
        content = b""
        # A read of no bytes ends it, at the end of the file or one byte beyond the limit.
        while chunk := os.read(descriptor, MAX_SIZE + 1 - len(content)):
            content += chunk
    finally:
        os.close(descriptor)
    if len(content) > MAX_SIZE:
        raise _Unfit(" is larger than 64 KiB")
    if os.name == "posix" and status.st_mode & stat.S_IROTH:
        credentials.warnings.append(
            f"{credentials.path} holds the client secret and can be read by every user of this "
            "machine: take that right away (chmod o-r)"
        )
    try:
        # Windows editors begin a file with a byte order mark.
        return content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise _Unfit(f", line {line}: is not UTF-8") from None


def _parse(text: str) -> dict[str, Any]:
    for number, line in enumerate(text.split("\n"), 1):
        if len(line) > _MAX_LINE:
            raise _Unfit(f", line {number}: is longer than {_MAX_LINE} characters")
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        # Only the place: the rest of the message may quote the file.
        found = re.search(r"\(at line (\d+), column (\d+)\)$", str(error))
        place = f", line {found[1]}, column {found[2]}:" if found else ""
    raise _Unfit(f'{place} is not valid TOML, whose lines look like client_id = "…"')


def _line_of(key: str, text: str) -> int | None:
    pattern = rf"""^[ \t]*\[*[ \t]*(["']?){re.escape(key)}\1[ \t]*[=.\]]"""
    found = re.search(pattern, text, re.MULTILINE)
    return text.count("\n", 0, found.start()) + 1 if found else None


def follow_links(path: Path) -> Path:
    """Return where a path leads to.

    :raises OSError: for a loop of links; and for root, where a link is another user's, who could
        have root read and replace any file.
    """
    is_root = os.name == "posix" and os.geteuid() == 0
    for _ in range(40):
        if not path.is_symlink():
            return Path(os.path.realpath(path.parent), path.name)
        if is_root and path.lstat().st_uid != 0:
            raise OSError(None, f"{path} is a link of another user's, which root does not follow")
        path = path.parent / path.readlink()
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))


def write_credentials(path: Path, values: Mapping[str, str]) -> Path:
    """Write a credentials file, whole or not at all, for its owner alone; return where it is now.

    A symbolic link stays, and the file it leads to is replaced (:func:`follow_links`). A folder
    that is not there is made. Run as root, the file gets the owner of the one before, else of its
    folder: the application shall be able to read it.

    :param values: printable texts by key.
    :raises OSError: when that cannot be done; what was there before is still there then.
    """
    lines = [f"# Written by `{COMMAND}`, which keeps no comments."]
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
            raise OSError(None, "there is something that is not a regular file")
    descriptor, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            if os.name == "posix" and os.geteuid() == 0:
                # A container's root may lack that right.
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
    # Some file systems, and Windows, know no such thing for a folder.
    with suppress(OSError):
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    return target
