"""Time and chance: the only module that reads a clock, sleeps, or draws a random number.

Everything else is handed a `Clock`, so that tests advance a fake one instead of waiting.
Deadlines compare `monotonic()` with itself; `now()` is for people and the journal.
"""

from __future__ import annotations

import random
import secrets
import time
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Protocol

import anyio

_ID_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: sorts, no look-alikes


class Clock(Protocol):
    """What the orchestrator knows of time; `SystemClock` is the real one."""

    def now(self) -> datetime:
        """The wall clock, aware, in UTC."""
        ...

    def timestamp(self) -> float:
        """The wall clock in seconds since the epoch."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back, the same for all processes of the machine while it is up (see `read_boot_id`)."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait that many seconds; at once where `seconds` is not positive."""
        ...

    def random(self) -> float:
        """A number drawn uniformly from [0, 1)."""
        ...


class SystemClock:
    """The machine's clocks and random numbers."""

    __slots__ = ("_random",)

    def __init__(self) -> None:
        self._random = random.Random()

    def now(self) -> datetime:
        return datetime.now(UTC)

    def timestamp(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(max(0.0, seconds))

    def random(self) -> float:
        return self._random.random()


def monotonic() -> float:
    """Seconds that never go back, for waiting on other processes: no clock but the machine's moves those."""
    return time.monotonic()


@cache
def read_boot_id() -> str:
    """What this start of the machine is known by: monotonic times are comparable where it is the same.

    Where the system has no id for it, it is the time of the start, which moves when the wall clock is set: processes
    that began before and after that do not take their times for comparable then.
    """
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:  # not Linux
        import psutil  # which elsewhere nobody has to wait for

        return str(int(psutil.boot_time()))


def block(seconds: float) -> None:
    """Hold the calling thread up that long; never the event loop's."""
    time.sleep(seconds)


def iso(at: float | None) -> str | None:
    """Seconds since the epoch as people and programs read a time: ISO 8601, UTC, milliseconds. None stays None."""
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")


def make_secret() -> bytes:
    """32 bytes that nobody can guess."""
    return secrets.token_bytes(32)


def make_id(prefix: str, at: float | None = None) -> str:
    """A new identifier: `prefix`, then 9 characters of time (milliseconds) and 10 of chance; sorts by age."""
    millis = int((time.time() if at is None else at) * 1000)
    entropy = secrets.randbits(50)
    value = (millis << 50) | entropy
    digits: list[str] = []
    for _ in range(19):
        digits.append(_ID_ALPHABET[value & 31])
        value >>= 5
    return prefix + "".join(reversed(digits))
