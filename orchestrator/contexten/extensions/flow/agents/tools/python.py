"""python: a function that the settings allow, called with keyword or positional arguments."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import anyio
from pydantic import Field
from typing_extensions import override

from ...definition.values import NotJson, check_json
from ...errors import AttemptError
from ...outside.daemon_thread import call_in_daemon_thread
from ...settings import FlowSettings
from ..protocol import AttemptContext, Json
from .tool import Absent, Tool, ToolEnvironment, ToolParameters, body_of

ENABLE_FUNCTIONS = (
    "name the functions in allow_functions in the settings (CONTEXTEN_FLOW_ALLOW_FUNCTIONS=package.module:function)"
)
MAX_THREADS = 64  # functions that hang keep a thread each; more calls wait for a free one


class PythonParameters(ToolParameters):
    """What python takes."""

    function: str = Field(
        max_length=512,
        pattern=r"^[\w.]+:[\w.]+$",
        description="the function, as module:name; the settings must allow it",
        examples=["reports.totals:by_region"],
    )
    arguments: dict[str, Json] | list[Json] = Field(
        default_factory=dict,
        description="keyword arguments as an object, or positional ones as a list. In a pipeline they default to the "
        "output before, where that is an object (of http_client, its body)",
    )


class Python(Tool[PythonParameters]):
    """Calls functions: async ones on the event loop, others on a thread that a cancelled attempt leaves to itself."""

    name = "python"
    description = (
        "Calls a Python function that the settings allow, with keyword or positional arguments. Output: what it "
        "returns, which must be JSON data."
    )
    piped = frozenset({"arguments"})
    parameters = PythonParameters

    def __init__(self, settings: FlowSettings) -> None:
        self._functions = frozenset(settings.allow_functions)
        self._max_bytes = settings.max_output_bytes
        self._limiter = anyio.CapacityLimiter(MAX_THREADS)

    @override
    async def run(
        self,
        parameters: PythonParameters,
        previous: Json | Absent,
        context: AttemptContext,
        environment: ToolEnvironment,
    ) -> Json:
        name = parameters.function
        if name not in self._functions:
            allowed = ", ".join(sorted(self._functions)) or "none"
            raise AttemptError(
                f"parameters/function: {name!r} is not allowed (allowed: {allowed}); {ENABLE_FUNCTIONS}.",
                kind="invalid",
            )
        function = await self._in_thread(partial(_find, name))
        positional, named = _arguments(parameters, previous, function)
        call = partial(function, *positional, **named)
        if inspect.iscoroutinefunction(inspect.unwrap(function)) or inspect.iscoroutinefunction(function):
            try:
                output = await call()
            except SystemExit:  # it would end the server
                raise RuntimeError(f"{name} raised SystemExit") from None
        else:
            output = await self._in_thread(call)
            if inspect.isawaitable(output):
                output = await output
        try:
            check_json(output, max_bytes=self._max_bytes)
        except NotJson as problem:
            raise AttemptError(f"{name} returned what is not JSON data: {problem}.", kind="invalid") from None
        return output

    async def _in_thread(self, call: Callable[[], Any]) -> Any:
        return await call_in_daemon_thread(call, name="flow-python", limiter=self._limiter)


def _find(name: str) -> Callable[..., Any]:
    module_name, _, path = name.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
        for part in path.split("."):
            found = getattr(found, part)
    except ImportError as error:
        missing = f": no module {error.name}" if error.name else ""
        raise AttemptError(
            f"parameters/function: the module of {name!r} cannot be imported{missing}.", kind="invalid"
        ) from None
    except AttributeError:
        raise AttemptError(f"parameters/function: {module_name} has no {path}.", kind="invalid") from None
    if not callable(found):
        raise AttemptError(f"parameters/function: {name!r} is not a function.", kind="invalid")
    function: Callable[..., Any] = found
    return function


def _arguments(
    parameters: PythonParameters, previous: Json | Absent, function: Callable[..., Any]
) -> tuple[list[Json], dict[str, Json]]:
    """The positional and the keyword arguments. Raises AttemptError where the function does not take them."""
    arguments = parameters.arguments
    if "arguments" not in parameters.model_fields_set and not isinstance(previous, Absent):
        before = body_of(previous)
        if not isinstance(before, dict):
            raise AttemptError(
                "parameters/arguments is missing, and the output before python is not an object to take them from.",
                kind="invalid",
            )
        arguments = before
    positional, named = (arguments, {}) if isinstance(arguments, list) else ([], arguments)
    try:
        inspect.signature(function).bind(*positional, **named)
    except TypeError as error:
        raise AttemptError(f"parameters/arguments: {parameters.function}: {error}.", kind="invalid") from None
    except ValueError:
        pass  # some built-in functions tell no signature
    return positional, named
