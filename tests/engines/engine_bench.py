"""What the contract of engines is tried on: a service on one of them, and a scripted model that does as its tasks say.

`prefect:pool` is Prefect with a work pool, whose worker is a process of its own.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from anyio.from_thread import BlockingPortal

from contexten.extensions.flow import FlowService, FlowSettings
from contexten.extensions.flow.views import RunView

from .model_server import Call, Hang, ModelRequest, ModelServer, Reply, Text
from .prefect_servers import PrefectServer

ENGINES = ("native", "strands", "controlflow", "prefect", "prefect:pool")
PATIENCE_S = 90.0  # the first use of an engine's library takes up to half of that on a busy machine

_ORDER = re.compile(r"answer <<(.*?)>>", re.DOTALL)


def job(name: str, answer: Any, **more: Any) -> dict[str, Any]:
    """A task for a model that is to answer just that."""
    return _job(name, json.dumps(answer), **more)


def template_job(name: str, template: str, **more: Any) -> dict[str, Any]:
    """A task for a model that is to answer what the template gives."""
    objective = {"objective": _order(json.dumps(template))}
    return {**_job(name, "", **more), "description": "Do as the parameters say.", "parameters": objective}


def _job(name: str, answer: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "type": "agent", "description": _order(answer), "retry": {"max_attempts": 1}, **more}


def _order(answer: str) -> str:
    return f"You are to answer <<{answer}>> and no more."


def flow(*stages: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"stages": list(stages), **more}


def stage(*tasks: dict[str, Any], mode: str = "sequential", name: str = "main", **more: Any) -> dict[str, Any]:
    return {"name": name, "execution_mode": mode, "tasks": list(tasks), **more}


class Obedient:
    """Answers what a task says it is to answer, however the engine wants it."""

    def __init__(self) -> None:
        self.before: Callable[[Any, ModelRequest], Reply | None] = lambda answer, request: None
        """Asked first, with the answer that is wanted."""

    def __call__(self, request: ModelRequest) -> Reply:
        wanted = _ORDER.findall(request.user) or _ORDER.findall(request.system)
        assert wanted, request.messages
        answer = json.loads(wanted[-1])  # those before it are of tasks that are done, where a conversation goes on
        return self.before(answer, request) or self.say(answer, request)

    def say(self, answer: Any, request: ModelRequest) -> Reply:
        """The answer, as the request wants it."""
        ending = next((name for name in request.tools if name.startswith("mark_task_") and "success" in name), None)
        if ending is not None:
            fields = request.tools[ending]["properties"]
            return Call(ending, answer if isinstance(answer, dict) else dict.fromkeys(fields, answer))
        if request.must_call and len(request.tools) == 1:
            return Call(next(iter(request.tools)), answer)
        return Text(answer if isinstance(answer, str) else json.dumps(answer))


@dataclass
class Bench:
    """A service on one engine, and the model that its tasks ask."""

    engine: str
    portal: BlockingPortal
    model: ModelServer
    mind: Obedient
    service: FlowService

    @property
    def request(self) -> dict[str, Any]:
        """What asks for the engine."""
        framework, _, pool = self.engine.partition(":")
        return {"framework": framework, **({"work_pool": pool} if pool else {})}

    @property
    def is_pooled(self) -> bool:
        """Whether attempts are made by a process that outlives the service."""
        return "work_pool" in self.request

    def start(self, definition: dict[str, Any], service: FlowService | None = None) -> RunView:
        return self.portal.call(lambda: (service or self.service).execute_flow(workflow_def=definition, **self.request))

    def ended(self, run_id: str, service: FlowService | None = None) -> RunView:
        """The run when it has ended."""
        flows = service or self.service
        waited = self.portal.call(lambda: flows.wait(run_id, timeout_s=PATIENCE_S))
        assert waited.next_poll_s == 0, f"it did not end: {waited}"
        return self.portal.call(lambda: flows.get_run(run_id, detail="output"))

    def run(self, definition: dict[str, Any], service: FlowService | None = None) -> RunView:
        return self.ended(self.start(definition, service).run_id, service)

    def control(self, run: RunView, action: Any) -> str:
        """The id of the run that it led to."""
        return self.portal.call(lambda: self.service.control(run.run_id, action)).run_id

    def tasks(self, run: RunView) -> dict[str, Any]:
        """The tasks of a run by name."""
        view = self.portal.call(lambda: self.service.get_run(run.run_id, detail="tasks"))
        return {task.name: task for task in view.tasks or []}

    def events(self, run: RunView) -> list[tuple[str, str | None]]:
        """Type and task of each entry, without those that differ by engine."""
        found = self.portal.call(lambda: self.service.events(run.run_id, limit=1000))
        kept = ("run.mirrored", "task.log", "task.usage", "task.model_called", "task.tool_called")
        return [(event.type, event.task) for event in found if event.type not in kept]

    def hang(self, at: Any) -> threading.Event:
        """From now on the model gives no answer where it is to say that; the event is set when it is asked to."""
        reached = threading.Event()
        self.model.left.clear()

        def answer(wanted: Any, request: ModelRequest) -> Reply | None:
            if wanted != at:
                return None
            reached.set()
            return Hang()

        self.mind.before = answer
        return reached


def settings_for(folder: Path, model: ModelServer) -> FlowSettings:
    return FlowSettings(
        database=folder / "flow.sqlite3",
        durability="process",
        model="openai/scripted",
        model_base_url=model.url,
        retry_delay_s=0.01,
        stop_grace_s=0.5,
        cancel_grace_s=1.0,
    )


_LIFE = """
import asyncio, json, sys
from contexten.extensions.flow import FlowService, FlowSettings

async def main():
    async with FlowService(FlowSettings.model_validate_json(sys.argv[1])) as service:
        run = await service.execute_flow(**json.loads(sys.argv[2]))
        print(run.run_id, flush=True)
        await asyncio.to_thread(sys.stdin.read)

asyncio.run(main())
"""


@contextmanager
def life(settings: FlowSettings, log: Path, **request: Any) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process that drives a run, with the run's id. It closes its service in order when its input is closed."""
    arguments = (settings.model_dump_json(exclude_unset=True), json.dumps(request))
    with log.open("w") as errors:
        process = subprocess.Popen(
            (sys.executable, "-c", _LIFE, *arguments),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        with process:
            try:
                assert process.stdout is not None
                run_id = process.stdout.readline().strip()
                assert run_id, log.read_text()
                yield process, run_id
            finally:
                process.kill()


@contextmanager
def pool_worker(server: PrefectServer, pool: str, model: ModelServer, home: Path) -> Iterator[None]:
    """A worker of the pool, with the model settings of the service, while the block lasts."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "PREFECT_HOME": str(home / "prefect")}
    environment |= {"PREFECT_API_URL": server.url, "DO_NOT_TRACK": "1"}
    environment |= {"CONTEXTEN_FLOW_MODEL": "openai/scripted", "CONTEXTEN_FLOW_MODEL_BASE_URL": model.url}
    environment |= {"CONTEXTEN_FLOW_WORKER_ENGINE": "native", "CONTEXTEN_FLOW_STOP_GRACE_S": "0.5"}
    log = home / "worker.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            (sys.executable, "-m", "contexten_server", "worker", "--pool", pool),
            env=environment,
            cwd=home,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        _wait_for_worker(server, pool, process, log)
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for_worker(server: PrefectServer, pool: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if server.ask(f"/work_pools/{pool}/workers/filter", {}):
                return
        except httpx.HTTPStatusError:  # the pool is not made yet
            pass
        time.sleep(0.1)
    raise AssertionError("the worker did not start:\n" + log.read_text()[-3000:])
