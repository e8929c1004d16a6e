"""Locks between processes, held by the operating system: they vanish with the process that holds them.

`<database>.lock` is held around every write transaction and every checkpoint: SQLite before 3.51.3 has a race between
checkpoints and writers of two processes that corrupts the file. `<database>.server` is held for as long as a process
drives runs; its content names the holder.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from ..errors import StoreBusy, StoreError, StoreReadOnly

if sys.platform == "win32":
    import msvcrt

    def _try_lock(descriptor: int) -> bool:
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

    def _try_lock(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
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
                "The folder of the database cannot be written.",
                next="Give this user write permission for it, or choose another database with --db.",
            ) from error
        except OSError as error:
            raise StoreError(f"The lock beside the database cannot be opened: {error.strerror}.") from error

    def try_acquire(self) -> bool:
        """Take the lock if it is free."""
        return _try_lock(self._descriptor)

    def acquire(self, timeout_s: float) -> None:
        """Take the lock, waiting for its holder. Raises StoreBusy after `timeout_s`."""
        if _try_lock(self._descriptor):
            return
        deadline = time.monotonic() + timeout_s
        while not _try_lock(self._descriptor):
            if time.monotonic() > deadline:
                raise StoreBusy(
                    "Another process has been writing to the database for too long.",
                    next="Try again; if it stays so, end the process that holds it.",
                )
            time.sleep(_POLL_S)

    def release(self) -> None:
        """Give the lock back."""
        _unlock(self._descriptor)

    def write(self, content: dict[str, Any]) -> None:
        """Say in the file who holds it."""
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, json.dumps(content).encode(), 0) if hasattr(os, "pwrite") else None

    def read(self) -> dict[str, Any]:
        """What the file says of its holder; empty where it says nothing."""
        try:
            content = json.loads(self.path.read_text() or "{}")
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def close(self) -> None:
        """Release the lock and forget the file (which stays)."""
        os.close(self._descriptor)
