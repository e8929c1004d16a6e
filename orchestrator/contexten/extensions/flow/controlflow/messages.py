"""What crosses the pipe between the engine and its child: one JSON object a line."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

MAX_LINE_BYTES = 16 << 20
"""Of one message: more than the largest output that can be kept (10 MiB)."""


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelChoice(_Message):
    """A model and how it is called."""

    name: str
    """As its provider knows it."""
    label: str
    """As the settings and flows write it."""
    base_url: str | None
    api_key: str = Field(repr=False)
    key_variable: str
    """Where the parent found the key."""
    temperature: float | None
    timeout_s: float
    """Of one call."""


class AgentSpec(_Message):
    """One agent that works on the task."""

    name: str
    instructions: str | None
    model: ModelChoice
    tools: tuple[str, ...]
    """Safe names."""


class ToolSpec(_Message):
    """A tool as models are told of it; calls of it are answered by the parent."""

    name: str
    description: str
    parameters: dict[str, Any]


class FlowSpec(_Message):
    """The flow around the task. Tasks of one `thread` know each other's conversations."""

    thread: str
    name: str
    description: str | None
    instructions: str | None
    context: dict[str, Any]


class Work(_Message):
    """To the child: make this attempt."""

    type: Literal["work"] = "work"
    id: int
    flow: FlowSpec
    task: str
    """Its id among the flow's tasks: letters, digits, `_` and `-`, at most 40."""
    objective: str
    instructions: str | None
    upstream: dict[str, Any]
    """What the completed tasks before it gave, by their ids."""
    output_schema: dict[str, Any] | bool | None
    agents: tuple[AgentSpec, ...]
    tools: tuple[ToolSpec, ...]
    turn_strategy: str | None
    entry: str | None
    """The agent that begins, or moderates."""
    max_model_calls: int
    max_tokens: int | None


class Cancel(_Message):
    """To the child: end that attempt."""

    type: Literal["cancel"] = "cancel"
    id: int


class ToolAnswer(_Message):
    """To the child: what a tool gave, or why it failed."""

    type: Literal["tool_answer"] = "tool_answer"
    id: int
    call: int
    is_error: bool
    text: str


class Ping(_Message):
    """To the child: say that your loop turns."""

    type: Literal["ping"] = "ping"


class Ready(_Message):
    """From the child: the library is there."""

    type: Literal["ready"] = "ready"
    version: str


class Unfit(_Message):
    """From the child: the library cannot be used."""

    type: Literal["unfit"] = "unfit"
    reason: str


class Pong(_Message):
    """From the child: it turns."""

    type: Literal["pong"] = "pong"


class ModelCalled(_Message):
    """From the child: a model answered, or did not (`error` is the class of what went wrong)."""

    type: Literal["model_called"] = "model_called"
    id: int
    agent: str
    model: str
    ms: float
    input_tokens: int | None = None
    output_tokens: int | None = None
    stop_reason: str | None = None
    error: str | None = None


class ToolCall(_Message):
    """From the child: call that tool and answer."""

    type: Literal["tool_call"] = "tool_call"
    id: int
    call: int
    tool: str
    arguments: dict[str, Any]


class Done(_Message):
    """From the child: the attempt's output. Nothing follows."""

    type: Literal["done"] = "done"
    id: int
    output: Any


class Failed(_Message):
    """From the child: the attempt failed. Nothing follows."""

    type: Literal["failed"] = "failed"
    id: int
    kind: str
    message: str
    details: dict[str, Any] | None = None


Request = Work | Cancel | ToolAnswer | Ping
OfAttempt = ModelCalled | ToolCall | Done | Failed
Answer = Ready | Unfit | Pong | OfAttempt

_REQUESTS: TypeAdapter[Request] = TypeAdapter(Annotated[Request, Field(discriminator="type")])
_ANSWERS: TypeAdapter[Answer] = TypeAdapter(Annotated[Answer, Field(discriminator="type")])


def read_request(line: bytes) -> Request:
    """A message to the child. Raises ValueError where it is none."""
    return _REQUESTS.validate_json(line)


def read_answer(line: bytes) -> Answer:
    """A message from the child. Raises ValueError where it is none."""
    return _ANSWERS.validate_json(line)


def write(message: Request | Answer) -> bytes:
    """A message as a line. Raises ValueError where it is too long or holds what JSON cannot."""
    line = message.model_dump_json().encode() + b"\n"
    if len(line) > MAX_LINE_BYTES:
        raise ValueError(f"a message of {len(line)} bytes is over {MAX_LINE_BYTES}")
    return line
