"""Changes of files as events. What changed while nobody watched is not told."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from hashlib import sha256
from pathlib import Path, PurePath
from typing import Any

import anyio
from anyio.abc import TaskStatus
from anyio.lowlevel import checkpoint
from watchfiles import Change, awatch

from ..clock import Clock, iso
from ..definition.values import as_timestamp
from ..errors import AttemptError, InvalidArguments, Issue
from ..outside.folders import Folders
from .configs import FileConfig
from .model import Trigger, TriggerEvent, TriggerKind

logger = logging.getLogger(__name__)

_RETRY_S = 10.0  # a folder that is not there, on a disk that is not mounted, may come
_RESTART_S = 0.1

Deliver = Callable[[Trigger, TriggerEvent], Awaitable[Any]]


def check_path(config: FileConfig, allow_paths: Sequence[Path]) -> None:
    """Raises InvalidArguments where that path may not be watched."""
    try:
        Folders(allow_paths).locate(config.path)
    except AttemptError as error:
        issue = Issue(path="/config/path", code="path_not_allowed", message=error.message, got=config.path)
        raise InvalidArguments(
            error.message, next="Choose a path that is allowed, or allow this one.", issues=[issue]
        ) from None


async def watch_files(
    trigger: Trigger,
    config: FileConfig,
    deliver: Deliver,
    allow_paths: Sequence[Path],
    clock: Clock,
    *,
    task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Deliver what happens to the files until cancelled; started when nothing that happens from then on is missed.

    An event's id is made of what every server sees alike, so that several servers that watch deliver it once: of a
    file its time and size, of one that was deleted the time of its folder (or of the nearest that is left). A path
    that is not there, or goes away, is waited for.
    """
    watch = _Watch(trigger, config, Folders(allow_paths), clock)
    level = logging.WARNING
    while True:
        pause_s = _RETRY_S
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(watch.listen, name=f"files of {trigger.trigger_id}")
                await checkpoint()  # the task has begun, and with it the watching
                task_status.started()
                task_status = anyio.TASK_STATUS_IGNORED
                await watch.tell(deliver)
        except* (OSError, AttemptError, _Gone):
            reason = "it is not there, or cannot be watched"
        except* RuntimeError:  # the library's, at a name that is no text; what it had not told is lost
            reason, pause_s = "the watch broke, as it does at a name that is no text", _RESTART_S
        logger.log(
            level,
            "the path of the trigger %s is not watched now: %s",
            trigger.trigger_id,
            reason,
            extra={"action": "watch_files", "trigger_id": trigger.trigger_id},
        )
        level = logging.DEBUG
        task_status.started()
        task_status = anyio.TASK_STATUS_IGNORED
        await clock.sleep(pause_s)


class _Gone(Exception):
    """What was watched is there no more."""


class _Watch:
    """The changes of one trigger's files that are not told yet: at most one a file."""

    def __init__(self, trigger: Trigger, config: FileConfig, folders: Folders, clock: Clock) -> None:
        self._trigger = trigger
        self._config = config
        self._folders = folders
        self._clock = clock
        self._root = Path()
        self._changes: dict[Path, tuple[Change, float]] = {}
        """By path: what happened, and when last something did; the listener writes, the teller takes away."""
        self._news = anyio.Event()

    async def listen(self) -> None:
        """Note what happens. Raises _Gone where there is nothing to watch, or no more."""
        self._root = root = self._folders.locate(self._config.path).path
        if not root.exists():
            raise _Gone
        folder = root if root.is_dir() else root.parent  # a file that is replaced is another file to the system
        is_deep = self._config.recursive and folder == root
        async with anyio.create_task_group() as group:
            stop = anyio.Event()
            group.start_soon(_set_at_end, stop, name="the watching's end")
            with _thread_of_its_own():
                async for changes in awatch(
                    folder, watch_filter=None, stop_event=stop, recursive=is_deep, ignore_permission_denied=True
                ):
                    for change, name in sorted(changes):
                        path = Path(name)
                        if (path == root) != (folder == root):  # the folder itself is no file, and no other file is it
                            self._note(change, path)
                        if is_deep and change is Change.added:  # what came with a folder, or before it was watched
                            for inner in await anyio.to_thread.run_sync(_files_below, path):
                                self._note(Change.added, inner)
                    if not folder.exists():
                        raise _Gone

    def _note(self, change: Change, path: Path) -> None:
        if not _matches(path.relative_to(self._root), path.name, self._config.patterns):
            return
        before, _ = self._changes.pop(path, (None, 0.0))
        merged = _merged(before, change)
        if merged is not None:
            self._changes[path] = merged, self._clock.monotonic()
            self._news.set()

    async def tell(self, deliver: Deliver) -> None:
        """Deliver each change when nothing has followed it for a while."""
        while True:
            if not self._changes:
                self._news = anyio.Event()
                await self._news.wait()
                continue  # a file that came and went is no news
            settled_at = min(at for _, at in self._changes.values()) + self._config.settle_s
            await self._clock.sleep(settled_at - self._clock.monotonic())
            now = self._clock.monotonic()
            for path in list(self._changes):
                change, at = self._changes.get(path, (None, now))  # delivering takes time, in which more happens
                if change is None or at + self._config.settle_s > now:
                    continue
                del self._changes[path]
                event = self._event(change, path)
                if event is not None:
                    await deliver(self._trigger, event)

    def _event(self, change: Change, path: Path) -> TriggerEvent | None:
        """None where the trigger does not want it."""
        if change.name not in self._config.changes:
            return None
        try:
            self._folders.locate(str(path))  # a link may lead out of the folders
            info = path.lstat() if change is not Change.deleted else None
        except (AttemptError, OSError):
            return None
        if info is not None and not stat.S_ISREG(info.st_mode):
            return None
        mark = f"{info.st_mtime_ns}:{info.st_size}" if info is not None else str(_folder_mtime_ns(path))
        return TriggerEvent(
            kind=TriggerKind.FILE,
            type=change.name,
            id=sha256(os.fsencode(f"{change.name}:{mark}:{path}")).hexdigest()[:40],
            payload={
                "path": _text(PurePath(self._config.path, path.relative_to(self._root)).as_posix()),
                "name": _text(path.name),
                "change": change.name,
                "size": info.st_size if info is not None else None,
                "modified_at": iso(info.st_mtime) if info is not None else None,
            },
            received_at=as_timestamp(self._clock.now()),
        )


def _files_below(path: Path) -> list[Path]:
    """Those in a folder and its folders, links not followed; none where it is no folder."""
    return [Path(folder, name) for folder, _, names in os.walk(path) if not path.is_symlink() for name in names]


def _merged(before: Change | None, change: Change) -> Change | None:
    """What two changes in a row come to; None where it is as if nothing had happened."""
    match before, change:
        case Change.added, Change.modified:
            return Change.added
        case Change.added, Change.deleted:
            return None
        case Change.deleted, Change.added:
            return Change.modified
    return change


def _matches(inner: PurePath, name: str, patterns: Sequence[str]) -> bool:
    """As a shell does it: what is hidden is matched only by a pattern that says so."""
    is_hidden = any(part.startswith(".") for part in inner.parts)
    return any(
        fnmatchcase(inner.as_posix() if "/" in pattern else name, pattern)
        for pattern in patterns
        if not is_hidden or pattern.startswith(".")
    )


def _text(name: str) -> str:
    """A name as JSON can carry it: the system's may be no text."""
    return os.fsencode(name).decode("utf-8", "replace")


def _folder_mtime_ns(path: Path) -> int:
    """When the folder that a file was deleted from, or the nearest one that is left, was changed."""
    for folder in path.parents:
        try:
            return folder.stat().st_mtime_ns
        except OSError:
            continue
    return 0


async def _set_at_end(stop: anyio.Event) -> None:
    """The library's thread cannot be cancelled, but asked to end."""
    try:
        await anyio.Event().wait()
    finally:
        stop.set()


@contextmanager
def _thread_of_its_own() -> Iterator[None]:
    """The library holds one of the loop's worker threads all the time; others must not wait for it."""
    limiter = anyio.to_thread.current_default_thread_limiter()
    limiter.total_tokens += 1
    try:
        yield
    finally:
        limiter.total_tokens -= 1
