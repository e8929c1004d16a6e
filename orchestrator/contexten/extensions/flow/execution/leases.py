"""The lease under which this process owns runs, and its watch over the leases of others.

Each server beats in its row. A lease is over when another server saw the beat stand still for `lease_ttl_s` by its own
monotonic clock, or finds the lock file of that server free; it then removes the row, and the runs are anybody's. A
server whose row has gone can take nothing and, once somebody has taken its runs over, record nothing: each write of an
owner names the fence under which it owns. When it notices, it ends its attempts, forgets its runs and begins anew.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from ..agents.protocol import Ending
from ..clock import make_id
from ..errors import FlowError, StoreBusy
from ..store import ClaimedRun, Event, Transaction
from ..store.claims import take_over
from ..store.lock import FileLock
from ..store.servers import (
    PREFIX,
    Beat,
    Look,
    Server,
    beat,
    expel,
    forget,
    hold,
    is_held,
    join,
    leave,
    sweep,
    take_share,
)
from .share import YIELD_S

if TYPE_CHECKING:
    from .conductor import Conductor

T = TypeVar("T")

logger = logging.getLogger(__name__)

BEATS = 5  # in the time of a lease
LOOK_S = 0.25  # between looks at the lock files of others, which cost some microseconds


class _Peer(NamedTuple):
    """Another server: its beat, and for how long this one has seen it stand still."""

    beat: int
    still_s: float


class Leases:
    """This process as one of the servers of a database. Used on the event loop only."""

    def __init__(self, conductor: Conductor, holder: str) -> None:
        """`holder` says to people what the process is."""
        self.server_id = ""
        """Under which this process owns runs; another one after its lease has lapsed."""
        self._conductor = conductor
        self._store = conductor.store
        self._clock = conductor.clock
        self._holder = holder
        self._ttl_s = conductor.settings.lease_ttl_s
        self._beat_s = self._ttl_s / BEATS
        self._peers: dict[str, _Peer] = {}
        self._lock: FileLock | None = None
        self._looked_at = self._look_at = self._rest_at = 0.0
        self._must_kick = False
        """Whether this server began anew and has not looked at the queue since."""

    # This server
    async def start(self) -> None:
        """Become a server; take over at once what dead ones and those that left were driving. Raises StoreError."""
        now = self._clock.timestamp()
        server = Server.here(make_id(PREFIX, now), self._holder, now)
        lock = hold(self._store.path, server)
        try:
            seen = await self._store.write(partial(join, server=server))
        except BaseException:  # it may have been recorded nonetheless: who is cancelled does not hear of it
            withdraw = partial(leave, server_id=server.server_id, at=now)
            self._store.submit(withdraw, lambda _result, _error: None)
            lock.close()
            forget(self._store.path, server.server_id)
            raise
        self._lock, self.server_id = lock, server.server_id
        self._store.own_as(self.server_id)
        self._peers = {}
        self._looked_at = self._clock.monotonic()
        sweep(self._store.path, [server_id for server_id, _ in seen.beats])
        await self._settle(seen)
        logger.info("driving the database as %s, beside %d other servers", self.server_id, len(self._peers))

    async def keep(self) -> None:
        """Beat and watch the others, until cancelled."""
        while True:
            await self._clock.sleep(min(LOOK_S, self._beat_s))
            try:
                is_due = self._clock.monotonic() >= self._look_at
                if is_due or not all(is_held(self._store.path, peer) for peer in self._peers):
                    await self.look()
            except FlowError as error:
                logger.warning("the lease could not be renewed and will be tried again: %s", error)
            except Exception:
                logger.exception("the lease could not be renewed and will be tried again")

    async def look(self) -> None:
        """Beat once, and judge the others by theirs. Raises StoreError."""
        seen = await self._store.write(partial(beat, server_id=self.server_id, at=self._clock.timestamp()))
        if seen is not None:
            await self._settle(seen)
        else:
            logger.warning("this server was silent for longer than its lease: it begins anew, others drive its runs")
            self.let_go()
            self._conductor.forget(Ending.LOST)
            self._must_kick = True
            await self.start()
        if self._must_kick:
            self._must_kick = False
            self._conductor.intake.kick()

    async def prove(self) -> None:
        """Beat, to know that this server can record. Raises StoreError where it cannot now."""
        if await self._store.write(partial(beat, server_id=self.server_id, at=self._clock.timestamp())) is None:
            raise StoreBusy("Others took this server for dead: it is about to begin anew.", next="Ask again.")

    async def leave(self) -> None:
        """Give up all runs and be a server no more."""
        if not self.server_id:
            return
        try:
            await self._store.write(partial(leave, server_id=self.server_id, at=self._clock.timestamp()))
        except FlowError as error:
            logger.warning("the runs could not be given up; the next server will take them over: %s", error)
        self.let_go()

    def let_go(self) -> None:
        """Free the lock by which others see that this server lives: its runs are anybody's."""
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.close()
            forget(self._store.path, self.server_id)

    # The others
    async def _settle(self, seen: Look) -> None:
        """Draw what follows from a look."""
        self._look_at = self._clock.monotonic() + self._beat_s
        dead = self._judge(seen.beats)
        if dead and not self._conductor.is_stopping:
            expelled = await self._store.write(self._bound(partial(expel, dead=dead)))
            for server_id in expelled.gone:
                self._gone(server_id)
                forget(self._store.path, server_id)
            self._conductor.intake.take(expelled.taken)
        elif seen.has_abandoned and self._clock.monotonic() >= self._rest_at:
            await self._take(take_over)

    def _judge(self, beats: Sequence[Beat]) -> list[tuple[Beat, str]]:
        """Those that are dead, and why. Time in which this process did not look, since it was suspended or could not
        read, proves nothing of others: it counts as two beats at most."""
        now = self._clock.monotonic()
        passed = min(now - self._looked_at, 2 * self._beat_s)
        self._looked_at = now
        peers, dead = {}, []
        for seen in beats:
            if seen.server_id == self.server_id:
                continue
            before = self._peers.get(seen.server_id)
            still_s = before.still_s + passed if before is not None and before.beat == seen.beat else 0.0
            peers[seen.server_id] = _Peer(seen.beat, still_s)
            if not is_held(self._store.path, seen.server_id):
                dead.append((seen, "its process has ended"))
            elif still_s >= self._ttl_s:
                dead.append((seen, f"it was silent for {self._ttl_s:g} s"))
        has_new = not peers.keys() <= self._peers.keys()
        self._peers = peers
        self._conductor.intake.share.servers = 1 + len(peers)
        if has_new:
            self._conductor.agents_changed()  # who waits here for an agent may find one there
        return dead

    def _gone(self, server_id: str) -> None:
        self._peers.pop(server_id, None)
        self._conductor.intake.share.servers = 1 + len(self._peers)

    def heard(self, event: Event) -> None:
        """A server started, stopped or was lost: this one or another."""
        data = json.loads(event.data or "{}")
        now = self._clock.monotonic()
        if data["server_id"] == self.server_id:
            if event.type == "server.lost":
                self._look_at = now
        elif event.type == "server.started":
            self._look_at = now
        else:
            self._gone(data["server_id"])
            if data["runs"]:
                self._rest_at = self._look_at = now + YIELD_S  # what the others do not take meanwhile
                if data.get("by") != self.server_id:
                    self._conductor.spawn(self._take_share, data["runs"], name="take over a share")

    def released(self) -> None:
        """A run was given up by its server, which lives: it may find an agent here."""
        self._look_at = min(self._look_at, self._clock.monotonic())

    async def _take_share(self, abandoned: int) -> None:
        await self._take(partial(take_share, abandoned=abandoned))

    async def _take(self, change: Callable[..., list[ClaimedRun]]) -> None:
        if not self._conductor.is_stopping:
            self._conductor.intake.take(await self._store.write(self._bound(change)))

    def _bound(self, change: Callable[..., T]) -> Callable[[Transaction], T]:
        """A change that takes runs, for this server, now."""
        conductor = self._conductor
        return partial(
            change,
            owner=self.server_id,
            at=self._clock.timestamp(),
            declined=conductor.handover.declined,
            refused=conductor.refused,
        )
