"""Changes of files as events. What changed while nobody watched is not told.

The system says where to look; what happened is how a file is now against how it was when it was looked at last. So an
event says that a file has come to a state: to a content, to being there, or to being gone. Servers that watch the same
files look at them at different moments, and a file may have no mark that is the same at all of these. What they share
is the machine, and its clock that is never set: an event is known already where another server told of the same state
after this one last saw the file in another. So its id is the state, in this boot of the machine, and the time of the
look, and ids from that last sight on are its own.
"""

from __future__ import annotations

import logging
import os
import stat
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from hashlib import sha256
from itertools import islice
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import anyio
from anyio.abc import TaskStatus
from anyio.lowlevel import checkpoint
from watchfiles import Change, awatch

from ..clock import Clock, iso, read_boot_id
from ..definition.values import as_timestamp
from ..errors import AttemptError, InvalidArguments, Issue
from ..outside.folders import Folders
from .configs import FileConfig
from .model import Trigger, TriggerEvent, TriggerKind

logger = logging.getLogger(__name__)

_RETRY_S = 10.0  # a folder that is not there, on a disk that is not mounted, may come
_RESTART_S = 0.1
_KEPT_S = 60.0  # what is known of a file that has gone

Deliver = Callable[[Trigger, TriggerEvent], Awaitable[Any]]
Mark = tuple[int, ...]
"""What a file's content is known by, as far as the trigger asks for that."""


class _Sight(NamedTuple):
    """A file when it was looked at last."""

    mark: Mark
    at: float
    """Before the look; seconds of the monotonic clock, which other servers compare with theirs."""


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

    A path that is not there, or goes away, is waited for; it brings nothing the first time, and later what has changed.
    """
    watch = _Watch(trigger, config, Folders(allow_paths), clock)
    level = logging.WARNING
    while True:
        pause_s = _RETRY_S
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(watch.listen, name=f"files of {trigger.trigger_id}")
                await checkpoint()  # the task has begun, and with it the watching
                await watch.take_stock()
                task_status.started()
                task_status = anyio.TASK_STATUS_IGNORED
                await watch.tell(deliver)
        except* (OSError, AttemptError, _Gone):
            reason = "it is not there, or cannot be watched"
        except* RuntimeError:  # the library's, at a name that is no text; taking stock finds what it missed
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
    """One trigger's files, and where to look since something happened."""

    def __init__(self, trigger: Trigger, config: FileConfig, folders: Folders, clock: Clock) -> None:
        self._trigger = trigger
        self._config = config
        self._folders = folders
        self._clock = clock
        self._root = Path()
        self._files: dict[str, _Sight] = {}
        """By path: those that are there."""
        self._are_known = anyio.Event()
        """Once all files have been looked at."""
        self._gone: dict[str, float] = {}
        """By path: when those were looked for that have gone lately, in that order."""
        self._absent_at = 0.0
        """When any other one was not there."""
        self._noted: dict[str, float] = {}
        """By path: when last something happened; the listener writes, the teller takes away."""
        self._news = anyio.Event()

    async def listen(self) -> None:
        """Note what happens. Raises _Gone where there is nothing to watch, or no more."""
        root = self._folders.locate(self._config.path).path
        if root != self._root:  # at first, and when a link leads elsewhere
            self._root, self._are_known = root, anyio.Event()
            self._gone.clear()
            self._noted.clear()
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
                    await self._are_known.wait()
                    for change, name in sorted(changes):
                        path = Path(name)
                        if (path == root) != (folder == root):  # the folder itself is no file, and no other file is it
                            self._note(path)
                        if is_deep and change is Change.added:  # what came with a folder, or before it was watched
                            for inner in await anyio.to_thread.run_sync(_files_below, path):
                                self._note(inner)
                    if is_deep:
                        await self._note_below(name for change, name in changes if change is Change.deleted)
                    if not folder.exists():
                        raise _Gone

    async def take_stock(self) -> None:
        """Look at all files: the first time to know them, later to find what has changed."""
        now = self._clock.monotonic()
        marks = await anyio.to_thread.run_sync(self._marks)
        if not self._are_known.is_set():
            self._files = {name: _Sight(mark, now) for name, mark in marks.items()}
            self._absent_at = now
            self._are_known.set()
        for name in sorted(self._files.keys() | marks.keys()):
            if name not in self._files or self._files[name].mark != marks.get(name):
                self._note(Path(name))

    def _marks(self) -> dict[str, Mark]:
        """Those of all files that match."""
        root = self._root
        paths = _files_below(root, is_deep=self._config.recursive) if root.is_dir() else [root]
        marks = {}
        for path in paths:
            with suppress(OSError):
                if self._is_wanted(path) and (info := _look(path)) is not None:
                    marks[str(path)] = self._mark(info)
        return marks

    def _mark(self, info: os.stat_result) -> Mark:
        """Where modified files are not asked for, all are alike. Another mode, owner or number of links is no other
        content; a file that was put in another's place is another."""
        return (info.st_mtime_ns, info.st_size, info.st_ino) if Change.modified.name in self._config.changes else ()

    def _is_wanted(self, path: Path) -> bool:
        return _matches(path.relative_to(self._root), path.name, self._config.patterns)

    def _note(self, path: Path) -> None:
        if self._is_wanted(path):
            self._noted[str(path)] = self._clock.monotonic()
            self._news.set()

    async def _note_below(self, gone: Iterable[str]) -> None:
        """Of a folder that is moved away the system names none of its files."""
        if folders := {name for name in gone if name not in self._files}:
            for name in await anyio.to_thread.run_sync(_those_below, folders, [*self._files, *self._noted]):
                self._note(Path(name))

    async def tell(self, deliver: Deliver) -> None:
        """Deliver what became of each file when nothing has followed for a while."""
        while True:
            if not self._noted:
                self._news = anyio.Event()
                await self._news.wait()
            await self._clock.sleep(min(self._noted.values()) + self._config.settle_s - self._clock.monotonic())
            now = self._clock.monotonic()
            for name in list(self._noted):
                if (noted_at := self._noted[name]) + self._config.settle_s <= now:
                    await self._tell_of(Path(name), deliver)
                    if self._noted[name] == noted_at:  # delivering takes time, in which more happens
                        del self._noted[name]
            self._forget_gone()

    async def _tell_of(self, path: Path, deliver: Deliver) -> None:
        """Deliver what became of a file since it was looked at last, if the trigger asks for it."""
        name, at = str(path), self._clock.monotonic()
        try:
            self._folders.locate(name)  # a link may lead out of the folders
            info = _look(path)
        except (AttemptError, OSError):
            return
        before, mark = self._files.get(name), None if info is None else self._mark(info)
        if mark != (None if before is None else before.mark):
            change = Change.deleted if mark is None else Change.added if before is None else Change.modified
            if change.name in self._config.changes:
                seen_at = self._gone.get(name, self._absent_at) if before is None else before.at
                await deliver(self._trigger, self._event(change, path, info, seen_at))
        self._remember(name, mark, at)

    def _remember(self, name: str, mark: Mark | None, at: float) -> None:
        self._gone.pop(name, None)
        if mark is not None:
            self._files[name] = _Sight(mark, at)
        else:
            self._files.pop(name, None)
            self._gone[name] = at

    def _forget_gone(self) -> None:
        """Keep when a file went for as long as that counts: until it is older than all that waits to be told. Then it
        stands for all files of which no such moment is kept."""
        line = min(self._noted.values(), default=self._clock.monotonic()) - _KEPT_S
        while self._gone and self._gone[oldest := next(iter(self._gone))] < line:
            self._absent_at = self._gone.pop(oldest)

    def _event(self, change: Change, path: Path, info: os.stat_result | None, seen_at: float) -> TriggerEvent:
        """`seen_at`: when the file was last seen in another state."""
        mark = None if info is None else self._mark(info)
        state = sha256(f"{read_boot_id()}:{mark}:{path}".encode()).hexdigest()[:40]
        first, own = (f"{state}:{int(at * 1e6):020}" for at in (seen_at, self._clock.monotonic()))
        return TriggerEvent(
            kind=TriggerKind.FILE,
            type=change.name,
            id=own,
            same_ids=(first, f"{state}:~"),
            payload={
                "path": PurePath(self._config.path, path.relative_to(self._root)).as_posix(),
                "name": path.name,
                "change": change.name,
                "size": info.st_size if info is not None else None,
                "modified_at": iso(info.st_mtime) if info is not None else None,
            },
            received_at=as_timestamp(self._clock.now()),
        )


def _files_below(path: Path, *, is_deep: bool = True) -> list[Path]:
    """Those in a folder, and in its folders, links not followed; none where it is no folder. Names are text."""
    if path.is_symlink():
        return []
    folders = os.walk(path) if is_deep else islice(os.walk(path), 1)
    return [Path(folder, name) for folder, _, names in folders for name in names if _is_text(f"{folder}{name}")]


def _those_below(folders: AbstractSet[str], names: Iterable[str]) -> list[str]:
    """Those of the names that lie in one of the folders, at whatever depth."""
    by_folder = defaultdict(list)
    for name in names:
        by_folder[name.rpartition(os.sep)[0]].append(name)
    return [
        name
        for folder, inner in by_folder.items()
        if not folders.isdisjoint((folder, *map(str, PurePath(folder).parents)))
        for name in inner
    ]


def _look(path: Path) -> os.stat_result | None:
    """None where no file is there. Raises OSError where that cannot be told."""
    try:
        info = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return info if stat.S_ISREG(info.st_mode) else None


def _matches(inner: PurePath, name: str, patterns: Sequence[str]) -> bool:
    """As a shell does it: what is hidden is matched only by a pattern that says so."""
    is_hidden = any(part.startswith(".") for part in inner.parts)
    return any(
        fnmatchcase(inner.as_posix() if "/" in pattern else name, pattern)
        for pattern in patterns
        if not is_hidden or pattern.startswith(".")
    )


def _is_text(name: str) -> bool:
    """As JSON can carry it: the system's may be none."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


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
