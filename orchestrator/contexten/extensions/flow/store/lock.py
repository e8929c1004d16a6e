"""Locks between processes, held by the operating system: they vanish with the process that holds them.

`<database>.lock` is held around every write transaction and every checkpoint: SQLite before 3.51.3 has a race between
checkpoints and writers of two processes that corrupts the file. `<database>.<server id>` is held for as long as that
server lives; its content names the holder.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

from ..clock import block, monotonic
from ..errors import StoreBusy, StoreError, StoreReadOnly

logger = logging.getLogger(__name__)

if sys.platform == "win32":
    import msvcrt

    def _try_lock(descriptor: int, *, shared: bool = False) -> bool:  # noqa: ARG001 - Windows has no shared kind here
        os.lseek(descriptor, 1 << 30, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def _unlock(descriptor: int) -> None:
        os.lseek(descriptor, 1 << 30, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)
else:
    import fcntl

    def _try_lock(descriptor: int, *, shared: bool = False) -> bool:
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _unlock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_UN)


_POLL_S = 0.0005  # another holder's transaction takes about a millisecond


class FileLock:
    """One lock file, opened once and locked many times. Not for several threads at once."""

    def __init__(self, path: Path) -> None:
        """Raises StoreReadOnly or StoreError where the file cannot be made."""
        self.path = path
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
        except PermissionError as error:
            raise StoreReadOnly(
                "The lock beside the database cannot be written.",
                next="Give this user write permission for the files beside the database, or choose another with --db.",
            ) from error
        except OSError as error:
            raise StoreError(f"The lock beside the database cannot be opened: {error.strerror}.") from error

    def try_acquire(self) -> bool:
        """Take the lock if it is free. Raises StoreError where the file system refuses to lock it."""
        try:
            return _try_lock(self._descriptor)
        except OSError as error:
            raise StoreError(
                f"The file system did not lock the file beside the database: {error.strerror}.",
                next="Try again; if it stays so, choose a database on a local disk with --db.",
            ) from error

    def acquire(self, timeout_s: float) -> None:
        """Take the lock, waiting for its holder. Raises StoreBusy after `timeout_s`, StoreError as `try_acquire`."""
        if self.try_acquire():
            return
        deadline = monotonic() + timeout_s
        while not self.try_acquire():
            if monotonic() > deadline:
                raise StoreBusy(
                    "Another process has been writing to the database for too long.",
                    next="Try again; if it stays so, end the process that holds it.",
                )
            block(_POLL_S)

    def release(self) -> None:
        """Give the lock back. Where the file system refuses, it is kept until the next time: what was done is done."""
        try:
            _unlock(self._descriptor)
        except OSError as error:
            logger.warning("the lock beside the database could not be given back yet: %s", error.strerror)

    def empty(self) -> None:
        """Take out of the file what it says."""
        os.ftruncate(self._descriptor, 0)

    def write(self, content: dict[str, Any]) -> None:
        """Say in the file who holds it."""
        self.empty()
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        os.write(self._descriptor, json.dumps(content).encode())

    def read(self) -> dict[str, Any]:
        """What the file says of its holder; empty where it says nothing."""
        return _content(self.path)

    def is_in_place(self) -> bool:
        """Whether the file that is locked is still the one at the path: somebody may have removed it."""
        try:
            return os.path.samestat(os.fstat(self._descriptor), self.path.stat())
        except OSError:
            return False

    def close(self) -> None:
        """Release the lock and forget the file (which stays)."""
        os.close(self._descriptor)


def holder_of(path: Path) -> dict[str, Any] | None:
    """Who holds a lock file now, as it says; None where nobody does, empty where that cannot be told.

    Asking makes no file. It takes the lock for a moment, so whoever wants it tries for longer than that.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    except FileNotFoundError:
        return None
    except OSError:  # another user's
        return {}
    try:
        return None if _try_lock(descriptor, shared=True) else _content(path)
    except OSError:  # the file system does not say now
        return {}
    finally:
        os.close(descriptor)


def _content(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text() or "{}")
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
