"""ControlFlow itself, imported and tamed. Of the child process only."""

from __future__ import annotations

import sys
import textwrap
import warnings
from importlib import import_module
from importlib.metadata import version
from typing import Any

from . import prefect_stub

_PREFECT = "controlflow.utilities.prefect"
_CHARS_A_TOKEN = 3  # cautious: where the count decides what of a long history a model still sees


class Library:
    """The parts of ControlFlow that are used here, by the names that it gives them."""

    def __init__(self, *, with_prefect: bool) -> None:
        """Import it, which takes about 10 s. `with_prefect`: what it runs is recorded by the Prefect API that the
        environment names. Raises ImportError, or whatever a broken installation raises."""
        warnings.simplefilter("ignore")  # the archived library's own, about libraries that moved on
        if not with_prefect:
            sys.modules[_PREFECT] = prefect_stub
        main: Any = import_module("controlflow")
        strategies: Any = import_module("controlflow.orchestration.turn_strategies")
        openai: Any = import_module("langchain_openai")
        self.version = version("controlflow")
        self.Agent = main.Agent
        self.Task = main.Task
        self.Flow = main.Flow
        self.run_tasks_async = main.run_tasks_async
        self.ChatModel = openai.ChatOpenAI
        self.Tool = import_module("controlflow.tools.tools").Tool
        self.History = import_module("controlflow.events.history").InMemoryHistory
        self.CallbackHandler = import_module("controlflow.handlers.callback_handler").CallbackHandler
        self.TaskStatus = import_module("controlflow.tasks.task").TaskStatus
        conditions: Any = import_module("controlflow.orchestration.conditions")
        self.AllComplete = conditions.AllComplete
        self.turn_strategies = {
            "popcorn": strategies.Popcorn,
            "moderated": strategies.Moderated,
            "random": strategies.Random,
            "round_robin": strategies.RoundRobin,
            "most_busy": strategies.MostBusy,
        }
        _tame()


def _tame() -> None:
    compiler: Any = import_module("controlflow.events.message_compiler")
    trim = compiler.trim_messages

    def trim_messages(messages: list[Any], max_tokens: int | None) -> list[Any]:
        kept: list[Any] = trim(messages, max_tokens)
        while kept and kept[0].type == "tool":  # the call that it answers was cut, and providers refuse it alone
            kept = kept[1:]
        return kept

    compiler.count_tokens = _count_tokens  # its own downloads a vocabulary
    compiler.trim_messages = trim_messages
    for name in ("controlflow.tasks.task", "controlflow.agents.agent", "controlflow.flows.flow"):
        import_module(name).unwrap = _unwrap  # type: ignore[attr-defined]  # theirs joins the lines of what it is given
    events: Any = import_module("controlflow.events.events")
    # Events that only its printing needs; making one of a malformed call raises.
    events.AgentMessage.to_tool_calls = lambda message, tools: []


def _count_tokens(message: Any) -> int:
    return len(message.model_dump_json()) // _CHARS_A_TOKEN


def _unwrap(text: str) -> str:
    return textwrap.dedent(text).strip()
