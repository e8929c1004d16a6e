"""A service whose tasks are a scripted model's."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from contexten.extensions.flow import FlowService, FlowSettings
from contexten.extensions.flow.views import RunView

from ..model_server import ModelServer, Script

pytest.importorskip("strands")

PATIENCE_S = 60.0


@pytest.fixture(autouse=True)
def _own_desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings and no keys of the machine."""
    for name in list(os.environ):
        if name.startswith("CONTEXTEN_FLOW_") or name.endswith("_API_KEY"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CONTEXTEN_FLOW_DATABASE", str(tmp_path / "flow.sqlite3"))


@dataclass
class Ended:
    """A run that has ended, and what its journal tells."""

    run: RunView
    events: list[tuple[str, dict[str, Any]]]

    @property
    def output(self) -> Any:
        """Of its only task."""
        assert self.run.output is not None, self.run.error
        (output,) = self.run.output.values()
        return output

    @property
    def error(self) -> tuple[str, str]:
        """Kind and message."""
        assert self.run.error is not None, self.run
        return self.run.error.kind, self.run.error.message

    def told(self, event: str) -> list[dict[str, Any]]:
        """What the journal tells of that event."""
        return [details for name, details in self.events if name == event]

    @property
    def lines(self) -> list[str]:
        """The lines of its log."""
        return [details["message"] for details in self.told("task.log")]


Play = Callable[..., Awaitable[Ended]]
"""Runs one task of type agent, or a whole definition, with the model playing the script."""


@pytest.fixture
def settings(model_server: ModelServer) -> FlowSettings:
    """The scripted model; nothing is tried again."""
    return FlowSettings(model="openai/scripted", model_base_url=model_server.url, max_retries=0, retry_delay_s=0)


@pytest.fixture
def play(model_server: ModelServer, settings: FlowSettings) -> Play:
    """`play(script, task, ...)`; keyword arguments are for settings, but for those that are named here."""

    async def run(
        script: Script,
        task: dict[str, Any] | None = None,
        *,
        definition: dict[str, Any] | None = None,
        framework: str = "native",
        agents: Any = None,
        inputs: dict[str, Any] | None = None,
        **more: Any,
    ) -> Ended:
        model_server.script = script
        whole = {"name": "work", "type": "agent", "description": "Do it.", **(task or {})}
        async with FlowService(settings.model_copy(update=more), agents=agents) as flows:
            started = await flows.execute_flow(
                workflow_def=definition or {"stages": [{"name": "only", "tasks": [whole]}]},
                framework=framework,
                inputs=inputs,
            )
            await flows.wait(started.run_id, timeout_s=PATIENCE_S)
            ended = await flows.get_run(started.run_id, detail="output")
            assert ended.state in {"completed", "failed", "cancelled"}, ended
            found = await flows.events(started.run_id, limit=1000)
        return Ended(ended, [(event.type, event.details or {}) for event in found])

    return run
