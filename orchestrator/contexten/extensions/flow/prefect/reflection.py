"""One run as Prefect has it: its flow run, its task runs, and how much of its journal they show.

Every state that is set carries the place in the journal that it comes from, in its transition id. So Prefect itself
knows how far it was told, and whoever begins anew, after a crash or a request without an answer, reads it there: no
state is shown twice, and none is left out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

from ..definition import Plan
from ..store import Event
from .configuration import ApiAddress
from .connection import Connection
from .names import prefect_name
from .projection import LogLine, ShownState, line_of, state_of

if TYPE_CHECKING:
    from prefect.client.schemas.actions import StateCreate
    from prefect.client.schemas.objects import State

PAGE = 200  # what Prefect answers at once at most
MAX_INPUT_BYTES = 256 << 10  # Prefect refuses parameters over 512 kB
LOGGER = "contexten.flow"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """What Prefect is told of a run besides its journal; secrets are masked."""

    run_id: str
    flow_id: str
    version: int
    name: str
    tags: tuple[str, ...]
    inputs: dict[str, Any]
    plan: Plan = field(repr=False)
    rerun_of: str | None = None
    parent: tuple[str, str, int | None] | None = None
    """Of a sub-flow's run: the run, task and item that it belongs to."""


class _Shown(NamedTuple):
    """A task run in Prefect, and the place in the journal of the last state that it was told."""

    id: UUID
    place: int


class ParentNotShown(Exception):
    """The task that a sub-flow's run belongs to is not in Prefect yet."""


class Reflection:
    """Tells Prefect of one run, in the journal's order. After any failure another one must take its place."""

    def __init__(self, connection: Connection, facts: RunFacts) -> None:
        self._connection = connection
        self._facts = facts
        self._prefix = int.from_bytes(hashlib.sha256(f"contexten {facts.run_id}".encode()).digest()[:8])
        self._place = 0
        self._tasks: dict[tuple[str, int | None], _Shown] = {}
        self._logged_until = 0.0
        self._logged: set[tuple[float, str]] = set()
        self.flow_run_id = UUID(int=0)

    @property
    def address(self) -> ApiAddress:
        """The API that it tells."""
        return self._connection.api.address

    # Beginning
    async def begin(self, first: Event, *, needs_parent: bool) -> None:
        """Find the flow run, or make it with the run's first state; then learn how far it was told.

        Raises PrefectError; ParentNotShown where `needs_parent` and the parent task has no task run yet.
        """
        from prefect.client.schemas.actions import FlowRunCreate

        facts, state = self._facts, state_of(first)
        if state is None:
            raise ValueError(f"a run's journal does not begin with {first.type}")
        parent = await self._parent(needs_parent=needs_parent)
        name = prefect_name(facts.name) or facts.flow_id
        flow_id = await self._connection.once(lambda client: client.create_flow_from_name(name))
        wanted = FlowRunCreate(
            flow_id=flow_id,
            name=facts.run_id,
            flow_version=str(facts.version),
            parameters=_bounded(facts.inputs),
            tags=list(facts.tags),
            labels=self._labels(),
            parent_task_run_id=parent,
            idempotency_key=facts.run_id,
            state=self._state(state, first.seq),
        )
        body = wanted.model_dump(mode="json", exclude_unset=True)
        response = await self._connection.once(posting("/flow_runs/", body))
        self.flow_run_id = UUID(response.json()["id"])
        if response.status_code == 201:
            self._place = first.seq
        else:
            await self._learn()

    def _labels(self) -> dict[str, str | int]:
        facts = self._facts
        labels: dict[str, str | int] = {
            "contexten.run_id": facts.run_id,
            "contexten.flow_id": facts.flow_id,
            "contexten.version": facts.version,
        }
        if facts.rerun_of is not None:
            labels["contexten.rerun_of"] = facts.rerun_of
        return labels

    async def _parent(self, *, needs_parent: bool) -> UUID | None:
        if self._facts.parent is None:
            return None
        run_id, task, item = self._facts.parent
        body = {
            "flow_runs": {"idempotency_key": {"any_": [run_id]}},
            "task_runs": {"name": {"any_": [_task_name(task, item)]}},
        }
        found = await self._connection.once(posting("/task_runs/filter", body))
        for task_run in found.json():
            return UUID(task_run["id"])
        if needs_parent:
            raise ParentNotShown
        return None

    async def _learn(self) -> None:
        """Read from Prefect how far it was told."""
        id_ = self.flow_run_id
        states = await self._connection.once(lambda client: client.read_flow_run_states(id_))
        self._place = max((self._place_of(state) for state in states), default=0)
        offset, is_full = 0, True
        while is_full:
            body = {"flow_runs": {"id": {"any_": [str(id_)]}}, "limit": PAGE, "offset": offset, "sort": "ID_DESC"}
            page = (await self._connection.once(posting("/task_runs/filter", body))).json()
            for task_run in page:
                await self._learn_task(task_run)
            is_full = len(page) == PAGE
            offset += PAGE
        body = {"logs": {"flow_run_id": {"any_": [str(id_)]}}, "sort": "TIMESTAMP_DESC", "limit": PAGE}
        for log in (await self._connection.once(posting("/logs/filter", body))).json():
            at = datetime.fromisoformat(log["timestamp"]).timestamp()
            self._logged_until = max(self._logged_until, at)
            self._logged.add((at, log["message"]))

    async def _learn_task(self, task_run: dict[str, Any]) -> None:
        from prefect.client.schemas.objects import State

        key, dynamic_key = task_run["task_key"], task_run["dynamic_key"]
        if key not in self._facts.plan.tasks:
            return
        id_ = UUID(task_run["id"])
        place = self._place_of(State[Any].model_validate(task_run["state"])) if task_run["state"] else 0
        if not place:  # Prefect has changed it since, as it does to a sub-flow's task
            states = await self._connection.once(lambda client: client.read_task_run_states(id_))
            place = max((self._place_of(state) for state in states), default=0)
        self._tasks[key, int(dynamic_key) if dynamic_key.isdigit() else None] = _Shown(id_, place)

    def _place_of(self, state: State[Any]) -> int:
        transition = state.state_details.transition_id
        if transition is None or transition.int >> 64 != self._prefix:
            return 0
        return transition.int & ((1 << 64) - 1)

    # Telling
    async def show(self, events: Sequence[Event]) -> None:
        """Tell what these entries say, but for what was told before. Raises PrefectError."""
        lines: list[LogLine] = []
        for event in events:
            state = state_of(event)
            if state is not None:
                if lines and event.task is None:  # a flow run's log is whole when it ends
                    await self._log(lines)
                    lines = []
                await self._move(event, state)
            line = line_of(event)
            if line is not None and self._is_news(line):
                lines.append(line)
        if lines:
            await self._log(lines)

    async def _move(self, event: Event, state: ShownState) -> None:
        if event.task is None:
            if event.seq > self._place:
                await self._set_state("/flow_runs/{id}/set_state", self.flow_run_id, state, event.seq)
                self._place = event.seq
            return
        key = (event.task, event.item)
        shown = self._tasks.get(key)
        if shown is None:
            self._tasks[key] = await self._create_task_run(event, state)
        elif event.seq > shown.place:
            await self._set_state("/task_runs/{id}/set_state", shown.id, state, event.seq)
            self._tasks[key] = shown._replace(place=event.seq)

    async def _create_task_run(self, event: Event, state: ShownState) -> _Shown:
        from prefect.client.schemas.actions import TaskRunCreate
        from prefect.client.schemas.objects import TaskRunResult

        task = event.task or ""
        node = self._facts.plan.tasks.get(task)
        upstream = sorted(node.requires) if node is not None else []
        known = [self._tasks[name, None] for name in upstream if (name, None) in self._tasks]
        wanted = TaskRunCreate(
            flow_run_id=self.flow_run_id,
            name=_task_name(task, event.item),
            task_key=task,
            dynamic_key="task" if event.item is None else str(event.item),
            tags=[node.stage] if node is not None and node.stage else [],
            task_inputs={"upstream": [TaskRunResult(id=shown.id) for shown in known]} if known else {},
            state=self._state(state, event.seq),
        )
        body = wanted.model_dump(mode="json", exclude={"id"})
        response = await self._connection.once(posting("/task_runs/", body))
        return _Shown(UUID(response.json()["id"]), event.seq)

    async def _set_state(self, path: Any, id_: UUID, state: ShownState, place: int) -> None:
        body = {"state": self._state(state, place).model_dump(mode="json"), "force": True}
        await self._connection.once(lambda client: client.request("POST", path, path_params={"id": id_}, json=body))

    def _state(self, state: ShownState, place: int) -> StateCreate:
        from prefect.client.schemas.actions import StateCreate
        from prefect.client.schemas.objects import StateDetails, StateType

        at = datetime.fromtimestamp(state.scheduled_at, UTC) if state.scheduled_at is not None else None
        transition = UUID(int=self._prefix << 64 | place)
        details = StateDetails.model_validate({"transition_id": transition, "scheduled_time": at})
        return StateCreate(type=StateType(state.type), name=state.name, message=state.message, state_details=details)

    def _is_news(self, line: LogLine) -> bool:
        at = _to_micros(line.at)
        return at > self._logged_until or (at == self._logged_until and (at, line.message) not in self._logged)

    async def _log(self, lines: Sequence[LogLine]) -> None:
        logs = []
        for line in lines:
            shown = self._tasks.get((line.task, line.item)) if line.task is not None else None
            logs.append(
                {
                    "name": LOGGER,
                    "level": line.level,
                    "message": line.message,
                    "timestamp": datetime.fromtimestamp(line.at, UTC).isoformat(),
                    "flow_run_id": str(self.flow_run_id),
                    "task_run_id": str(shown.id) if shown is not None else None,
                }
            )
        await self._connection.once(lambda client: client.create_logs(logs))


def posting(path: Any, body: dict[str, Any]) -> Any:
    """A request that sends JSON, for a connection to make."""
    return lambda client: client.request("POST", path, json=body)


def _task_name(task: str, item: int | None) -> str:
    return task if item is None else f"{task}[{item}]"


def _to_micros(at: float) -> float:
    """A time as Prefect keeps it: in whole microseconds."""
    return datetime.fromtimestamp(at, UTC).timestamp()


def _bounded(inputs: dict[str, Any]) -> dict[str, Any]:
    size = len(json.dumps(inputs, ensure_ascii=False).encode("utf-8", "replace"))
    if size <= MAX_INPUT_BYTES:
        return inputs
    return {"inputs": f"{size} bytes, too many for Prefect: contexten-flow has them."}
