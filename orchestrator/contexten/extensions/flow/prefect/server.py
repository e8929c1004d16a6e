"""A Prefect server of this process's own, where no API is configured and the settings allow it.

It lives in a folder beside the database, on a port of this machine that was free, asks for a password that only this
user can read, and ends with the process that started it, also where that is killed. Several processes on one database
share one: whoever holds the lock of the folder owns it. Where the owner is gone, the next that needs the server starts
it again, at the same address if that is free. Without `sh` it outlives an owner that is killed, and is taken over.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
import socket
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import NamedTuple

import anyio
import psutil

from ..clock import Clock, SystemClock
from ..errors import FlowError
from ..outside.command import guarding
from ..store.lock import FileLock
from ..store.place import file_of
from .api import PrefectApi, PrefectError
from .configuration import ApiAddress

logger = logging.getLogger(__name__)

START_S = 60.0  # 13 to 21 s when the machine is quiet
TERM_S = 2.0
KILL_S = 1.0
POLL_S = 0.25
PROGRESS_S = 5.0
MAX_LOG_LINE = 64 << 10  # bytes of a line of its output

_FOREIGN = ("PREFECT_API_", "PREFECT_SERVER_", "PREFECT_PROFILE", "PREFECT_LOGGING_", "PREFECT_UI_")


class _Record(NamedTuple):
    """A server that was started, as its folder says."""

    pid: int
    born_at: float
    """When its process began, as the system says: ids are used again."""
    port: int
    password: str

    @property
    def address(self) -> ApiAddress:
        return ApiAddress(url=f"http://127.0.0.1:{self.port}/api", auth_string=f"contexten:{self.password}")

    def is_alive(self) -> bool:
        """Whether the process that was started runs."""
        with suppress(psutil.Error):
            process = psutil.Process(self.pid)
            return process.create_time() == self.born_at and process.status() != psutil.STATUS_ZOMBIE
        return False


class OwnServer:
    """The server of one folder. Used on one event loop."""

    def __init__(
        self, home: Path, *, clock: Clock | None = None, on_progress: Callable[[str], None] = logger.info
    ) -> None:
        """`on_progress` is called with what is going on while it starts."""
        self._home = home
        self._clock = clock or SystemClock()
        self._on_progress = on_progress
        self._starting = asyncio.Lock()
        self._answered: _Record | None = None
        self._lock: FileLock | None = None
        """Held while this process owns the server."""
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._guard = AsyncExitStack()

    @classmethod
    def beside(cls, database: Path) -> OwnServer:
        """The server that belongs to a database."""
        database = file_of(database)
        return cls(database.with_name(f"{database.name}.prefect"))

    async def start(self) -> ApiAddress:
        """The server's address; it is started where it does not run, and answers when this returns. Raises PrefectError
        where it does not within START_S, or cannot be started."""
        async with self._starting:
            with anyio.move_on_after(START_S):
                while True:
                    record, is_owned = await asyncio.to_thread(self._look)
                    if record is not None and record.is_alive():
                        if record == self._answered or await self._answers(record):
                            self._answered = record
                            return record.address
                    elif is_owned:
                        await self._launch(record)
                    await self._clock.sleep(POLL_S)  # for the process that is about to start it
            await self._end()
            raise PrefectError(
                f"The Prefect server did not answer within {START_S:g} s of its start.",
                next="Set CONTEXTEN_FLOW_LOG_LEVEL=DEBUG to see in this server's log what it wrote; or start one with "
                "`prefect server start` and set PREFECT_API_URL.",
            )

    async def _answers(self, record: _Record) -> bool:
        """Wait until it answers; not where another's ended instead. Raises PrefectError where ours did."""
        api = PrefectApi(record.address)
        begun = said = self._clock.monotonic()
        while True:
            try:
                await api.check(POLL_S * 8)
            except PrefectError as error:
                if not record.is_alive():
                    if self._process is None:
                        return False
                    await self._end()
                    raise _ended() from error
                now = self._clock.monotonic()
                if now - said >= PROGRESS_S:
                    said = now
                    self._on_progress(f"the Prefect server is starting, for {now - begun:.0f} s now")
                await self._clock.sleep(POLL_S)
            else:
                return True

    async def stop(self) -> None:
        """End the server, if this process owns it, with all its processes."""
        async with self._starting:
            await self._end()

    # The folder
    def _look(self) -> tuple[_Record | None, bool]:
        """What the folder says of a server, and whether this process owns the folder, now or before. Raises
        PrefectError where the folder cannot be used."""
        if self._lock is None:
            try:
                self._home.mkdir(mode=0o700, parents=True, exist_ok=True)
                lock = FileLock(self._home / "server.lock")
                if lock.try_acquire():
                    self._lock = lock
                else:
                    lock.close()
            except (OSError, FlowError) as error:
                raise _unusable(error) from error
        return self._record(), self._lock is not None

    def _record(self) -> _Record | None:
        try:
            return _Record(**json.loads((self._home / "server.json").read_text()))
        except (OSError, ValueError, TypeError):
            return None

    # The process
    async def _launch(self, before: _Record | None) -> None:
        """Start it, at the address of the one before where that is free. Raises PrefectError."""
        self._on_progress("starting a Prefect server; that takes 10 to 20 s")
        port = _free_port(before.port if before is not None else 0)
        try:
            await self._begin(port, before.password if before is not None else secrets.token_urlsafe(24))
        except BaseException as error:
            with anyio.CancelScope(shield=True):
                await self._end()
            if isinstance(error, psutil.NoSuchProcess):
                raise _ended() from None
            if isinstance(error, OSError):
                raise _unusable(error) from error
            raise

    async def _begin(self, port: int, password: str) -> None:
        guard = await self._guard.enter_async_context(guarding())
        self._process = process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)),
            "--analytics-off",
            env=self._environment(port, password),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
            limit=MAX_LOG_LINE,
        )
        self._reading = asyncio.create_task(_log_output(process), name="output of the Prefect server")
        await guard(process.pid)
        await asyncio.to_thread(self._write, process.pid, port, password)

    def _write(self, pid: int, port: int, password: str) -> None:
        record = _Record(pid, psutil.Process(pid).create_time(), port, password)
        path = self._home / "server.json"
        path.unlink(missing_ok=True)  # it may be readable for others
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(record._asdict(), file)

    def _environment(self, port: int, password: str) -> dict[str, str]:
        own = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
        return own | {
            "PREFECT_HOME": str(self._home),
            "PREFECT_PROFILES_PATH": str(self._home / "profiles.toml"),
            "PREFECT_SERVER_API_AUTH_STRING": f"contexten:{password}",
            "PREFECT_API_AUTH_STRING": f"contexten:{password}",  # its own services ask it too
            "PREFECT_SERVER_UI_API_URL": f"http://127.0.0.1:{port}/api",  # the pages would ask port 4200 else
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
            "PREFECT_CLI_PROMPT": "false",
            "PREFECT_CLI_COLORS": "false",
            "DO_NOT_TRACK": "1",
        }

    async def _end(self) -> None:
        if self._lock is None:
            return
        await self._end_family(await asyncio.to_thread(self._family))
        await self._guard.aclose()
        self._process = self._answered = None
        if self._reading is not None:
            await asyncio.wait([self._reading], timeout=KILL_S)
            self._reading.cancel()  # somebody else holds the pipe
            self._reading = None
        self._lock.close()
        self._lock = None

    def _family(self) -> list[psutil.Process]:
        """The server's processes: of the one that was started here, whatever the folder says, or was taken over."""
        record = self._record()
        pid = record.pid if record is not None and record.is_alive() else None
        if self._process is not None:
            pid = self._process.pid if self._process.returncode is None else None
        with suppress(psutil.Error):
            if pid is not None:
                leader = psutil.Process(pid)
                return [leader, *leader.children(recursive=True)]
        return []

    async def _end_family(self, family: list[psutil.Process]) -> None:
        """End processes: politely, then not."""
        for end, limit_s in ((psutil.Process.terminate, TERM_S), (psutil.Process.kill, KILL_S)):
            for process in family:
                with suppress(psutil.Error):
                    end(process)
            with anyio.move_on_after(limit_s):
                if self._process is not None:  # a child of one's own is asyncio's to wait for
                    await self._process.wait()
                    family = [process for process in family if process.pid != self._process.pid]
                while family := [process for process in family if process.is_running()]:
                    await self._clock.sleep(POLL_S / 5)
                return


def _ended() -> PrefectError:
    return PrefectError(
        "The Prefect server ended while it started.",
        next="Set CONTEXTEN_FLOW_LOG_LEVEL=DEBUG to see in this server's log what it wrote.",
    )


def _unusable(error: Exception) -> PrefectError:
    told = error.strerror if isinstance(error, OSError) else str(error)
    return PrefectError(
        f"The Prefect server cannot be started: {told}.",
        next="Let this user write beside the database, see that disk and memory are not full, or start a server with "
        "`prefect server start` and set PREFECT_API_URL.",
    )


async def _log_output(process: asyncio.subprocess.Process) -> None:
    """What the server writes, as debug lines of this process's log: never to its standard output."""
    stream = process.stdout
    if stream is None:
        return
    while True:
        try:
            line = await stream.readline()
        except ValueError:  # longer than the limit; what was read of it is dropped
            continue
        if not line:
            return
        text = line.decode("utf-8", "replace").rstrip()
        if text:
            logger.debug("prefect server: %s", text)


def _free_port(wanted: int = 0) -> int:
    with socket.socket() as probe:
        if os.name == "posix":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # one that was closed just now is free
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
