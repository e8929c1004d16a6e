"""The child process as its parent sees it: started, spoken to, watched, and ended."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial

import anyio
from anyio.abc import ByteReceiveStream, Process

from ..outside.command import end_group
from .messages import (
    MAX_LINE_BYTES,
    Answer,
    Cancel,
    Done,
    Failed,
    OfAttempt,
    Ping,
    Pong,
    Ready,
    Request,
    Unfit,
    Work,
    read_answer,
    write,
)

logger = logging.getLogger(__name__)

PROGRAM = (sys.executable, "-P", "-m", f"{__package__}.child")  # -P: it imports nothing from its working directory
START_S = 180.0  # its import takes 10 s of a processor that may have others to serve
PING_EVERY_S = 5.0  # while attempts are under way
HUNG_AFTER_S = 30.0  # without an answer; its loop never blocks for so long
CANCEL_GRACE_S = 5.0  # for a cancelled attempt to end before the whole child is ended for it
MAX_WAITING = 1000
"""Messages of one attempt that were not taken: more is a flood."""
MAX_LOG_LINES = 200
"""Of the child's output, between two pings or pauses as long."""
_MAX_LOG_CHARS = 2000  # of a line
_INHERITED = (
    "PATH", "LANG", "LC_ALL", "TZ", "TMPDIR", "PYTHONPATH", "SYSTEMROOT",
    "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy",
    "SSL_CERT_FILE", "SSL_CERT_DIR",
)  # fmt: skip


class ChildGone(Exception):
    """The child ended, or was ended, before it was done."""


class ChildUnfit(Exception):
    """The child cannot use its library."""


class Talk:
    """What the child says of one attempt."""

    def __init__(self) -> None:
        self._inbox: asyncio.Queue[OfAttempt | ChildGone] = asyncio.Queue()
        self.overdue: asyncio.TimerHandle | None = None
        """Set once the attempt was cancelled."""

    def take(self, message: OfAttempt | ChildGone) -> bool:
        """Whether there was room."""
        if self._inbox.qsize() >= MAX_WAITING and not isinstance(message, ChildGone):
            return False
        self._inbox.put_nowait(message)
        return True

    async def next(self) -> OfAttempt:
        """The next message. Raises ChildGone."""
        message = await self._inbox.get()
        if isinstance(message, ChildGone):
            raise message
        return message


class ChildProcess:
    """One child, from its start to its end; it is not started again."""

    def __init__(self, environment: Mapping[str, str], *, with_prefect: bool, mask: Callable[[str], str]) -> None:
        """`environment` comes on top of what programs need to find their files and networks; `mask` takes secrets out
        of what is logged."""
        self._environment = environment
        self._with_prefect = with_prefect
        self._mask = mask
        self._talks: dict[int, Talk] = {}
        self._pong = asyncio.Event()
        self._is_asked = False
        self._busy = asyncio.Event()
        self._log_lines = 0
        self._ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._life: asyncio.Task[None] | None = None
        self._home: str | None = None
        self._next_id = 1
        self.pid: int | None = None

    @property
    def is_gone(self) -> bool:
        """Whether it takes no more work."""
        return self._ended.done()

    async def start(self) -> str:
        """Start it; the version of its library. Raises ChildUnfit, ChildGone."""
        self._life = asyncio.create_task(self._live(), name="controlflow child")
        await asyncio.wait({self._ready, self._ended}, timeout=START_S, return_when=asyncio.FIRST_COMPLETED)
        await self._clear_home()  # only its import needs it; whatever kills this process now leaves no folder behind
        if self._ready.done():
            return self._ready.result()
        self.end(f"it was not ready within {START_S:g} s")
        raise ChildGone(self._ended.result())

    async def open(self, work: Work) -> Talk:
        """Give it an attempt to make (under a number of its own). Raises ChildGone, ValueError where that is too long
        to be passed on."""
        if self.is_gone:
            raise ChildGone(self._ended.result())
        talk = self._talks[work.id] = Talk()
        try:
            self._busy.set()
            await self.send(work)
        except BaseException:
            self.cancel(work.id)
            raise
        return talk

    def number(self) -> int:
        """For the next attempt."""
        number, self._next_id = self._next_id, self._next_id + 1
        return number

    async def send(self, message: Request) -> None:
        """Send a message, and wait until there is room for more. Raises ChildGone, ValueError."""
        line = write(message)
        try:
            self._writer.write(line)
            await self._writer.drain()
        except OSError:
            self.end("it ended")
        if self.is_gone:
            raise ChildGone(self._ended.result())

    def cancel(self, number: int) -> None:
        """Let an attempt end, if it has not; a child that does not obey is ended."""
        talk = self._talks.get(number)
        if talk is None or talk.overdue is not None or self.is_gone:
            return
        self._writer.write(write(Cancel(id=number)))
        talk.overdue = asyncio.get_running_loop().call_later(
            CANCEL_GRACE_S, self.end, f"a cancelled attempt went on for {CANCEL_GRACE_S:g} s"
        )

    def end(self, reason: str) -> None:
        """End it; every attempt that it was making fails for that reason."""
        if self._ended.done():
            return
        self._ended.set_result(reason)
        for talk in self._talks.values():
            if talk.overdue is not None:
                talk.overdue.cancel()
            talk.take(ChildGone(reason))
        self._talks.clear()

    async def aclose(self) -> None:
        """End it and wait until nothing of it is left."""
        self.end("the engine was closed")
        if self._life is not None:
            await asyncio.shield(self._life)

    async def _live(self) -> None:
        self._home = await asyncio.to_thread(partial(tempfile.mkdtemp, prefix="flow-controlflow-"))
        try:
            await self._serve(self._home)
        except OSError as error:
            self.end(f"it could not be started: {error.strerror}")
        finally:
            self.end("it ended")
            await self._clear_home()

    async def _clear_home(self) -> None:
        if self._home is not None:
            await asyncio.to_thread(partial(shutil.rmtree, self._home, ignore_errors=True))

    async def _serve(self, home: str) -> None:
        ours, theirs = socket.socketpair()
        their_life, our_life = os.pipe()
        try:
            with theirs:
                process = await self._spawn(home, theirs.fileno(), their_life)
        except BaseException:
            ours.close()
            os.close(our_life)
            raise
        finally:
            os.close(their_life)
        self.pid = process.pid
        reader, self._writer = await asyncio.open_connection(sock=ours, limit=MAX_LINE_BYTES)
        tasks = [
            asyncio.create_task(self._listen(reader), name="controlflow messages"),
            asyncio.create_task(self._forward(process.stdout), name="controlflow output"),
            asyncio.create_task(self._watch(), name="controlflow pings"),
        ]
        try:
            await self._ended
        finally:
            os.close(our_life)
            self._writer.transport.abort()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            with anyio.CancelScope(shield=True):
                await end_group(process)
        logger.info(
            "the ControlFlow process has ended: %s", self._ended.result(), extra={"action": "controlflow_ended"}
        )

    async def _spawn(self, home: str, channel: int, lifeline: int) -> Process:
        inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        own = {
            "HOME": home,
            "CONTROLFLOW_HOME_PATH": home,
            "CONTROLFLOW_TEST_MODE": "1",  # it reads no settings from files
            "CONTROLFLOW_ENABLE_DEFAULT_PRINT_HANDLER": "false",
            "CONTROLFLOW_LOG_LEVEL": "WARNING",
            "PREFECT_HOME": home,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            # With an API: its sync calls hold the child's loop, and must be over before that counts as hung.
            "PREFECT_CLIENT_MAX_RETRIES": "2",
            "PREFECT_API_REQUEST_TIMEOUT": "5",
            "PYTHONUNBUFFERED": "1",
        }
        flags = ["--prefect"] if self._with_prefect else []
        return await anyio.open_process(
            [*PROGRAM, str(channel), str(lifeline), *flags],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd="/",
            env=inherited | own | dict(self._environment),
            start_new_session=True,
            pass_fds=(channel, lifeline),
        )

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        """Take the child's messages until it ends or says what it may not."""
        try:
            while line := await reader.readline():
                self._take(read_answer(line))
                await asyncio.sleep(0)  # a flood must not keep others from the event loop
            self.end("it ended")
        except OSError:
            self.end("it ended")
        except ValueError as error:  # no message, or one that is too long
            logger.debug("what the ControlFlow process says is no message: %s", self._mask(str(error))[:_MAX_LOG_CHARS])
            self.end("what it said was no message")

    def _take(self, message: Answer) -> None:
        if isinstance(message, Pong) and self._is_asked:
            self._is_asked = False
            self._pong.set()
        elif isinstance(message, Ready) and not self._ready.done():
            self._ready.set_result(message.version)
        elif isinstance(message, Unfit) and not self._ready.done():
            self._ready.set_exception(ChildUnfit(message.reason))
            self.end("it cannot use its library")
        elif not isinstance(message, Pong | Ready | Unfit) and message.id in self._talks:
            self._pass_on(message)
        else:
            self.end("it said what nobody asked for")

    def _pass_on(self, message: OfAttempt) -> None:
        talk = self._talks[message.id]
        if isinstance(message, Done | Failed):
            del self._talks[message.id]
            if talk.overdue is not None:
                talk.overdue.cancel()
            if not self._talks:
                self._busy.clear()
        if talk.overdue is None and not talk.take(message):
            self.end("it flooded its pipe")

    async def _watch(self) -> None:
        """Ask whether it lives, while it has something to do."""
        while True:
            await self._busy.wait()
            if self._ready.done():
                self._pong.clear()
                self._is_asked = True
                self._writer.write(write(Ping()))
                try:
                    async with asyncio.timeout(HUNG_AFTER_S):
                        await self._pong.wait()
                except TimeoutError:
                    self.end(f"it did not answer for {HUNG_AFTER_S:g} s")
                    return
            self._log_lines = 0
            await asyncio.sleep(PING_EVERY_S)

    async def _forward(self, stream: ByteReceiveStream | None) -> None:
        """What it prints goes to our log, as much of it as is bearable."""
        if stream is None:
            return
        rest = b""
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
            async for part in stream:
                *lines, rest = (rest + part).split(b"\n")
                for line in lines:
                    self._log(line)
                rest = rest[:_MAX_LOG_CHARS]
        self._log(rest)

    def _log(self, line: bytes) -> None:
        text = line.decode("utf-8", "replace").strip()
        self._log_lines += bool(text)
        if text and self._log_lines <= MAX_LOG_LINES:
            # Masked before it is cut: half a secret would pass.
            logger.debug("%s", self._mask(text)[:_MAX_LOG_CHARS], extra={"action": "controlflow_output"})
        if self._log_lines == MAX_LOG_LINES + 1:
            logger.debug("the ControlFlow process prints too much: the rest is dropped for a while")
