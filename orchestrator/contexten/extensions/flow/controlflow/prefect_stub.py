"""What ControlFlow takes of Prefect, doing nothing: it stands in for `controlflow.utilities.prefect`.

Without it ControlFlow starts a Prefect server of its own wherever no API is configured.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any


def _undecorated(*args: Any, **_: Any) -> Any:
    """A decorator, with arguments or without, that changes nothing."""
    if args and callable(args[0]):
        return args[0]
    unchanged: Callable[[Any], Any] = lambda function: function  # noqa: E731 - a decorator of one line
    return unchanged


prefect_task = prefect_flow = _undecorated


def create_markdown_artifact(*args: Any, **kwargs: Any) -> None:
    """Artifacts are kept nowhere: the journal has what happened."""


create_json_artifact = create_python_artifact = create_markdown_artifact


def prefect_flow_context(**_: Any) -> AbstractContextManager[None]:
    """A block that is no run of anything."""
    return nullcontext()


prefect_task_context = prefect_flow_context
