"""The definition format as models: attribute names are the JSON names, unknown fields are refused.

Whether a definition makes sense (names, dependencies, templates, tools) is the checker's.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, Strict, TypeAdapter

# pydantic needs typing_extensions' TypedDict before Python 3.12
from typing_extensions import TypedDict

T = TypeVar("T")


Sequence = Annotated[tuple[T, ...], Strict(False)]  # a JSON array, which strict mode would refuse for a tuple

MAX_S = 1e9
"""The longest time that a definition, a call or a recovery may name, in seconds: about 31 years."""

NAME_PATTERN = "^[A-Za-z_][A-Za-z0-9_]{0,63}$"

KINDS = ("tool", "agent", "wait", "flow")
"""The values of `type` that are kinds; any other is free text."""


KINDS_NOT_YET = ("approval", "signal")


class Part(BaseModel):
    """What all parts of a definition share."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True, allow_inf_nan=False)

    def as_dict(self) -> dict[str, Any]:
        """The part as JSON data, with the fields that were given and no others."""
        return self.model_dump(mode="json", exclude_unset=True)


class Retry(Part):
    """How often, when and why a failed attempt is tried again."""

    max_attempts: int | None = Field(
        None, ge=1, le=1_000_000, description="All tries, the first included. Absent: the executor's max_retries + 1."
    )
    delay_s: float = Field(1.0, ge=0, le=MAX_S, description="Seconds before the second try.")
    backoff: float = Field(2.0, ge=1, le=1000, description="Factor by which the delay grows with each try.")
    max_delay_s: float = Field(60.0, ge=0, le=MAX_S, description="The delay's upper bound, in seconds.")
    jitter: float = Field(0.1, ge=0, le=1, description="Fraction by which the delay varies at random.")
    on: Sequence[str] | None = Field(
        None,
        description="Kinds of error that are tried again (timeout, agent_failure, resource, network, rate_limit, "
        "interrupted, unknown, or one's own). Absent: all but invalid.",
    )


class Cache(Part):
    """That a recorded output serves equal tasks of other runs: same type, tools, parameters as written, and key."""

    key: str = Field(
        min_length=1,
        description="A template of what the output depends on; any value. No secrets: they would have to be recorded.",
    )
    ttl_s: float = Field(gt=0, le=MAX_S, description="Seconds for which an output serves.")


class Task(Part):
    """One step: what to run, with which parameters, after what."""

    name: str = Field(pattern=NAME_PATTERN, description="An identifier, unique in the flow.")
    type: str = Field(
        "tool",
        min_length=1,
        description="tool (the default): the required tools run as a pipeline; agent: a language model works on the "
        "description and the parameters with the required tools; wait: parameters {seconds} or {until}; "
        "flow: parameters {flow_id, inputs}; or free text such as data_processing: an agent that offers the required "
        "tools takes the task.",
    )
    description: str | None = Field(None, description="What the task is for.")
    required_tools: Sequence[str] = Field(
        (), description="Tools by name. The first gets the parameters, each next one the output before it as well."
    )
    preferred_agent_type: str | None = Field(None, description="Agents of this type go first, where one exists.")
    complexity: float = Field(1, gt=0, le=1e9, description="Weight in load balancing.")
    parameters: dict[str, Any] = Field(
        default_factory=dict, description="JSON data; {{ expression }} in any string is evaluated (CEL)."
    )
    depends_on: Sequence[str] = Field(
        (), description="Task names, or stage:<name>. A template that names a task is a dependency too."
    )
    when: str | bool | None = Field(None, description="A condition (CEL, braces optional); false: the task is skipped.")
    for_each: str | Sequence[Any] | None = Field(
        None,
        description="A list (CEL, braces optional, or literal): the task runs once an item, with item and index in "
        "scope; its output is the list of the items' outputs.",
    )
    max_parallel: int | None = Field(None, ge=1, description="Items of for_each at once. Absent: unbounded.")
    continue_on_item_failure: bool = Field(False, description="Whether the other items go on when one fails.")
    retry: Retry | None = Field(None, description="Absent: the executor's defaults.")
    timeout_s: float | None = Field(None, gt=0, le=MAX_S, description="Seconds for one attempt. Absent: none.")
    output_schema: dict[str, Any] | bool | None = Field(
        None, description="JSON Schema of the output; a misfit fails the attempt as invalid."
    )
    resources: dict[Annotated[str, Field(pattern=NAME_PATTERN)], Annotated[float, Field(gt=0, le=1e9)]] = Field(
        default_factory=dict, description="Amounts of declared resource pools that it needs, by pool."
    )
    on_interrupt: Literal["retry", "fail"] = Field(
        "retry", description="What becomes of the task when a crash cuts its attempt off."
    )
    cache: Cache | None = Field(
        None, description="Where an equal task completed not longer than ttl_s ago, its output is taken instead."
    )


class StageTask(Task):
    """A task of a stage."""

    on_failure: Sequence[Task] = Field(
        (),
        description="Tasks that run, one after another, if it failed: when all others have ended, before the run does.",
    )


class Stage(Part):
    """Tasks that run one after another or side by side."""

    name: str = Field(pattern=NAME_PATTERN, description="An identifier, unique among stages.")
    tasks: Sequence[StageTask] = Field((), description="The stage's tasks.")
    execution_mode: Literal["sequential", "parallel"] = Field(
        "sequential", description="Whether its tasks run in the order given or as soon as their dependencies allow."
    )
    continue_on_task_failure: bool = Field(False, description="Whether later tasks and stages go on when one fails.")
    depends_on: Sequence[str] | None = Field(None, description="Stage names. Absent: the stage before; []: none.")
    when: str | bool | None = Field(
        None, description="A condition (CEL, braces optional); false: its tasks are skipped."
    )
    max_parallel: int | None = Field(None, ge=1, description="Tasks at once in a parallel stage. Absent: unbounded.")


class Context(TypedDict, total=False):
    """Data for the whole flow; any further keys are free, and in scope as `context.<key>`."""

    __pydantic_config__ = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)  # type: ignore[misc] # pydantic's way to configure a TypedDict

    environment: str | None
    timeout: Annotated[float | None, Field(gt=0, le=MAX_S, description="Seconds for the whole run, less time paused.")]


class WorkflowDefinition(Part):
    """A workflow: stages of tasks. Only `stages` and the names in them are required."""

    id: str | None = Field(
        None, min_length=1, max_length=128, description="Taken as the flow's id; no control characters or slashes."
    )
    name: str | None = Field(None, description="For people.")
    description: str | None = Field(None, description="What the flow is for.")
    stages: Sequence[Stage] = Field(description="In order: each waits for the one before unless depends_on says else.")
    inputs: dict[str, Any] | bool | None = Field(
        None, description="JSON Schema of the inputs that a run is given; checked when it is submitted."
    )
    output: Any = Field(
        None, description="A template of the run's output. Absent: the outputs of the last stage's tasks by name."
    )
    continue_on_failure: bool = Field(False, description="Whether later stages go on when one fails.")
    monitoring_required: bool = Field(False, description="With framework auto: prefer an engine with a monitor.")
    complex_orchestration: bool = Field(False, description="With framework auto: prefer ControlFlow.")
    context: Context = Field(default_factory=Context, description="Free data, and timeout in seconds.")
    tags: Sequence[str] = Field((), description="Labels to find flows by.")
    on_failure: Sequence[Task] = Field(
        (), description="Tasks that run, one after another, before the run ends as failed; after those of its tasks."
    )

    def tasks(self) -> list[StageTask]:
        """Every task of the stages, in the order of the definition."""
        return [task for stage in self.stages for task in stage.tasks]

    def compensations(self) -> list[Task]:
        """Every on_failure task: those of the tasks, then the flow's own."""
        return [*(task for failed in self.tasks() for task in failed.on_failure), *self.on_failure]

    @property
    def has_output(self) -> bool:
        """Whether `output` was given."""
        return "output" in self.model_fields_set and self.output is not None


class WaitParameters(Part):
    """Parameters of a task of type wait: one of the two."""

    seconds: float | None = Field(None, ge=0, le=MAX_S)
    until: str | None = Field(None, description="ISO 8601, with an offset or Z.")


class FlowParameters(Part):
    """Parameters of a task of type flow."""

    flow_id: str = Field(min_length=1, max_length=128)
    inputs: dict[str, Any] | str = Field(default_factory=dict)


DEFINITION = TypeAdapter(WorkflowDefinition)
