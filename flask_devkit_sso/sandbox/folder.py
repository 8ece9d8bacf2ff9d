"""A folder whose files only its owner can read, and which one process uses at a time."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_UNFINISHED = ".unfinished"
"""A suffix. It marks a file that a process has not written completely."""


class FolderError(Exception):
    """The folder cannot be used; the text says why and what to do."""


class PrivateFolder:
    """An open folder. Everything in it is read and written without following symbolic links.

    :param path: created if it does not exist; its parent must exist.
    :raises FolderError: if others can read the folder or it belongs to somebody else, if another
        process is using it, or if it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        # An absolute path, because this one is printed. Path removes a slash at the end, with which
        # a symbolic link would be followed.
        self.path = Path(path).absolute()
        if fcntl is None or os.open not in os.supports_dir_fd:
            raise self.error("that needs Linux, macOS and other Unix")
        try:
            with suppress(FileExistsError):
                self.path.mkdir(0o700)
            self._descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError as error:
            raise self._failed(error) from None
        try:
            self._check(os.fstat(self._descriptor), self.path)
            self._lock()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let another process use the folder."""
        os.close(self._descriptor)

    def __enter__(self) -> PrivateFolder:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def names(self) -> set[str]:
        """Return the names of the files, except those that nobody finished writing."""
        names = os.listdir(self._descriptor)  # noqa: PTH208 - Path knows no descriptors
        return {name for name in names if not name.endswith(_UNFINISHED)}

    def read(self, name: str) -> bytes:
        """Return the content of a file.

        :raises FolderError: if it does not exist, is no regular file, if others can read it or it
            belongs to somebody else, or if it cannot be read.
        """
        path = self.path / name
        try:
            # Without O_NONBLOCK, opening a FIFO would wait for a writer.
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
            descriptor = os.open(name, flags, dir_fd=self._descriptor)
            with os.fdopen(descriptor, "rb") as file:
                status = os.fstat(descriptor)
                if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
                    raise self.error(f"{name} is not a regular file, or has a second name")
                self._check(status, path)
                return file.read()
        except OSError as error:
            raise self._failed(error, name) from None

    def write(self, name: str, content: bytes) -> None:
        """Write a file in one step: whoever reads it finds the old content or the new one.

        :raises FolderError: if it cannot be written. The old content remains then.
        """
        try:
            self._write(name, content)
        except OSError as error:
            raise self._failed(error, name) from None

    def _write(self, name: str, content: bytes) -> None:
        unfinished = name + _UNFINISHED
        with suppress(FileNotFoundError):
            os.unlink(unfinished, dir_fd=self._descriptor)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        descriptor = os.open(unfinished, flags, 0o600, dir_fd=self._descriptor)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        os.replace(unfinished, name, src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor)
        os.fsync(self._descriptor)

    def _check(self, status: os.stat_result, path: Path) -> None:
        if status.st_uid != os.geteuid():
            raise self.error(f"{path} belongs to another user")
        if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            mode = "700" if stat.S_ISDIR(status.st_mode) else "600"
            raise self.error(
                f"other users have access to {path}. Run `chmod {mode}` on it if they cannot have "
                "read or changed what is in it"
            )

    def _lock(self) -> None:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise self.error("another sandbox is using it") from None
        except OSError as error:
            raise self._failed(error) from None

    def _failed(self, error: OSError, name: str | None = None) -> FolderError:
        reasons = {errno.ELOOP: "is a symbolic link", errno.ENOTDIR: "is not a folder"}
        reason = reasons.get(error.errno or 0, f"cannot be read or written ({error.strerror})")
        return self.error(f"{name or 'it'} {reason}")

    def error(self, text: str) -> FolderError:
        """Return the error for something that is wrong with this folder, in words."""
        return FolderError(f"The sandbox cannot keep its state in {self.path}: {text}.")
