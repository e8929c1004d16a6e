"""wait: a pause inside a pipeline; a task of type `wait` is the durable form, which outlives the process."""

from __future__ import annotations

from pydantic import AwareDatetime, Field, model_validator
from typing_extensions import override

from ...clock import iso
from ..protocol import AttemptContext, Json
from .tool import Absent, Tool, ToolEnvironment, ToolParameters

_MAX_SECONDS = 366 * 24 * 3600.0


class WaitParameters(ToolParameters):
    """What wait takes: exactly one of the two."""

    seconds: float | None = Field(None, ge=0, le=_MAX_SECONDS, allow_inf_nan=False, description="how long to wait")
    until: AwareDatetime | None = Field(
        None, description="when to go on: ISO 8601 with an offset", examples=["2030-01-01T09:00:00Z"]
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> WaitParameters:
        if (self.seconds is None) == (self.until is None):
            raise ValueError("give exactly one of seconds and until")
        return self


class Wait(Tool[WaitParameters]):
    """Sleeps; holds the agent's capacity and ends with the process."""

    name = "wait"
    description = (
        "Waits for `seconds` or `until` a time, then passes the output before it on. For a long pause make a task of "
        "type wait instead: it survives restarts and holds no slot. Output: the output before, else {waited_until}."
    )
    parameters = WaitParameters

    @override
    async def run(
        self, parameters: WaitParameters, previous: Json | Absent, context: AttemptContext, environment: ToolEnvironment
    ) -> Json:
        clock = environment.clock
        if parameters.until is not None:
            seconds = (parameters.until - clock.now()).total_seconds()
        else:
            seconds = parameters.seconds or 0.0
        await clock.sleep(seconds)
        if isinstance(previous, Absent):
            return {"waited_until": iso(clock.now().timestamp())}
        return previous
