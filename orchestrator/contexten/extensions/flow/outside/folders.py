"""The folders that file tools may touch, and files opened below them and nowhere else.

A path is resolved first (so that symbolic links within the folders work) and must then lie below an allowed folder; it
is opened component by component without following links, so that a link put there in between leads nowhere.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ..errors import AttemptError, Issue

_CAN_WALK = os.open in os.supports_dir_fd and hasattr(os, "O_NOFOLLOW")  # not on Windows: resolve and check only
_FOLDER_FLAGS = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
_FILE_FLAGS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)

ENABLE_PATHS = "add a folder to allow_paths in the settings (CONTEXTEN_FLOW_ALLOW_PATHS)"


@dataclass(frozen=True, slots=True)
class Place:
    """A path that was found to lie below an allowed folder: the folder, resolved, and the names below it."""

    root: Path
    names: tuple[str, ...]

    @property
    def path(self) -> Path:
        """The resolved path."""
        return self.root.joinpath(*self.names)


class Folders:
    """The allowed folders. Its errors are AttemptErrors that show no path but the one given."""

    __slots__ = ("_folders",)

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = tuple(Path(os.path.abspath(os.path.expanduser(folder))) for folder in folders)  # noqa: PTH100, PTH111 - lexical: links are resolved at each use

    def locate(self, given: str) -> Place:
        """Where that path leads; a relative one starts at the first folder. Raises AttemptError (invalid)."""
        if not self._folders:
            raise AttemptError(f"No folder may be touched: {ENABLE_PATHS}.", kind="invalid")
        if "\0" in given:
            raise AttemptError("The path holds a NUL character.", kind="invalid")
        try:
            resolved = Path(os.path.realpath(self._folders[0] / given))
            for folder in self._folders:
                root = Path(os.path.realpath(folder))
                if resolved == root or root in resolved.parents:
                    return Place(root, resolved.relative_to(root).parts)
        except (OSError, ValueError) as error:
            raise AttemptError(f"{given!r} cannot be looked up: {_reason(error)}.", kind="invalid") from None
        raise AttemptError(
            f"{given!r} is outside the folders that file tools may touch; use a path below one of them, or "
            f"{ENABLE_PATHS}.",
            kind="invalid",
        )

    def warnings(self, given: object) -> Sequence[Issue]:
        """That a path, as it is written in a definition, will be refused when the task runs."""
        if not isinstance(given, str) or "{{" in given:
            return ()
        try:
            self.locate(given)
        except AttemptError as error:
            return (Issue(path="/path", code="path_not_allowed", message=error.message, got=given),)
        return ()

    def read(self, given: str, *, max_bytes: int) -> bytes:
        """The content of a regular file. Raises AttemptError (invalid; resource where the system is short of it)."""
        place = self.locate(given)
        with _told_of(given):
            if not place.names:
                raise IsADirectoryError(errno.EISDIR, "is a folder")
            with _opened_folder(place, make=False) as folder:
                # O_NONBLOCK: a pipe without a writer must not hang the thread; it is refused below.
                flags = os.O_RDONLY | _FILE_FLAGS | getattr(os, "O_NONBLOCK", 0)
                handle = os.open(_last(place, folder), flags, dir_fd=folder)
            with os.fdopen(handle, "rb") as file:
                info = os.fstat(file.fileno())
                if stat.S_ISDIR(info.st_mode):
                    raise IsADirectoryError(errno.EISDIR, "is a folder")
                if not stat.S_ISREG(info.st_mode):
                    raise AttemptError(f"{given!r} is not a regular file.", kind="invalid")
                content = file.read(max_bytes + 1)
        if len(content) > max_bytes:
            raise AttemptError(f"{given!r} is larger than the {max_bytes} bytes that may be read.", kind="invalid")
        return content

    def write(self, given: str, content: bytes) -> None:
        """Replace the file as a whole, durably: at no time is there a part of it. Makes missing folders.

        Raises AttemptError (invalid; resource where the disk is full)."""
        place = self.locate(given)
        with _told_of(given):
            if not place.names or given.endswith(("/", os.sep)):
                raise IsADirectoryError(errno.EISDIR, "is a folder")
            with _opened_folder(place, make=True) as folder:
                target = _last(place, folder)
                try:
                    mode = os.stat(target, dir_fd=folder, follow_symlinks=False).st_mode
                except FileNotFoundError:
                    mode = None
                if mode is not None and not stat.S_ISREG(mode):
                    raise AttemptError(f"{given!r} is not a regular file.", kind="invalid")
                temporary = _temporary(target)
                handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FILE_FLAGS, 0o666, dir_fd=folder)
                try:
                    with os.fdopen(handle, "wb") as file:
                        if mode is not None and hasattr(os, "fchmod"):
                            os.fchmod(file.fileno(), stat.S_IMODE(mode))
                        file.write(content)
                        file.flush()
                        os.fsync(file.fileno())
                    os.replace(temporary, target, src_dir_fd=folder, dst_dir_fd=folder)
                except BaseException:
                    os.unlink(temporary, dir_fd=folder)
                    raise
                if folder is not None:
                    os.fsync(folder)

    def append(self, given: str, content: bytes) -> None:
        """Add to the end of the file, durably, in one write. Makes the file and missing folders. Raises as write."""
        place = self.locate(given)
        with _told_of(given):
            if not place.names:
                raise IsADirectoryError(errno.EISDIR, "is a folder")
            with _opened_folder(place, make=True) as folder:
                flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | _FILE_FLAGS | getattr(os, "O_NONBLOCK", 0)
                handle = os.open(_last(place, folder), flags, 0o666, dir_fd=folder)
            with os.fdopen(handle, "ab", buffering=0) as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise AttemptError(f"{given!r} is not a regular file.", kind="invalid")
                rest = memoryview(content)
                while rest:
                    rest = rest[file.write(rest) :]
                os.fsync(file.fileno())


@contextmanager
def _opened_folder(place: Place, *, make: bool) -> Iterator[int | None]:
    """The folder of the place's last name, reached without following a link; None where the system cannot walk."""
    parents = place.names[:-1]
    if not _CAN_WALK:
        if make:
            place.root.joinpath(*parents).mkdir(parents=True, exist_ok=True)
        yield None
        return
    if make:
        place.root.mkdir(parents=True, exist_ok=True)
    folder = os.open(place.root, _FOLDER_FLAGS)
    try:
        for name in parents:
            if make:
                with suppress(FileExistsError):
                    os.mkdir(name, dir_fd=folder)
            below = os.open(name, _FOLDER_FLAGS, dir_fd=folder)
            os.close(folder)
            folder = below
        yield folder
    finally:
        os.close(folder)


def _last(place: Place, folder: int | None) -> str:
    return place.names[-1] if folder is not None else str(place.path)


def _temporary(target: str) -> str:
    head, tail = os.path.split(target)
    return os.path.join(head, f".{tail[:64]}.{secrets.token_hex(6)}.tmp")  # noqa: PTH118 - may be a bare name


@contextmanager
def _told_of(given: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        kind = "resource" if error.errno in _SHORTAGES else "invalid"
        raise AttemptError(f"{given!r}: {_reason(error)}.", kind=kind) from None


_SHORTAGES = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO})
_REASONS = {
    errno.ENOENT: "no such file or folder",
    errno.ELOOP: "a symbolic link stands where a file or folder is expected",
    errno.ENOTDIR: "a part of the path is not a folder",
    errno.ENXIO: "it is not a regular file",
}


def _reason(error: OSError | ValueError) -> str:
    number = getattr(error, "errno", None)
    if number in _REASONS:
        return _REASONS[number]
    return os.strerror(number).lower() if number else "the path is not valid"
