"""data_processor: data reshaped by JMESPath (any size) or CEL (small shaping)."""

from __future__ import annotations

from functools import partial

import anyio
from pydantic import Field, field_validator, model_validator
from typing_extensions import override

from ...definition.expressions import compile_expression
from ...definition.scope import Scope
from ...definition.values import NotJson, check_json
from ...errors import AttemptError
from ...outside.daemon_thread import call_in_daemon_thread
from ..protocol import AttemptContext, Json
from .tool import Absent, Tool, ToolEnvironment, ToolParameters, body_of

_ROOTS = ("data",)
_INLINE_WEIGHT = 2000  # values; a query over them takes a few milliseconds, one over more goes to a worker thread


class DataProcessorParameters(ToolParameters):
    """What data_processor takes: data, and exactly one of query and expression."""

    data: Json = Field(None, description="what to work on. Defaults to the output before (of http_client, its body)")
    query: str | None = Field(
        None,
        min_length=1,
        max_length=4096,
        description="JMESPath, for data of any size",
        examples=["orders[?status=='open'].{id: id, total: total}"],
    )
    expression: str | None = Field(
        None,
        min_length=1,
        max_length=4096,
        description="CEL with `data` in scope, and sum, avg, min, max, sort_by, group_by, unique, flatten, join, "
        "split; for lists of up to a few thousand items",
        examples=["{'open': data.filter(o, o.status == 'open').size()}"],
    )

    @field_validator("query")
    @classmethod
    def _check_query(cls, query: str | None) -> str | None:
        from .jmespath_query import check_query

        if query is not None:
            check_query(query)
        return query

    @field_validator("expression")
    @classmethod
    def _check_expression(cls, expression: str | None) -> str | None:
        if expression is not None:
            compile_expression(expression, _ROOTS)
        return expression

    @model_validator(mode="after")
    def _exactly_one(self) -> DataProcessorParameters:
        if (self.query is None) == (self.expression is None):
            raise ValueError("give exactly one of query (JMESPath) and expression (CEL)")
        return self


class DataProcessor(Tool[DataProcessorParameters]):
    """Computes without side effects; large data in a worker thread."""

    name = "data_processor"
    description = (
        "Filters, reshapes and aggregates data with a JMESPath `query` (any size) or a CEL `expression` (small "
        "shaping, `data` in scope). Output: the result, null where a query finds nothing."
    )
    piped = frozenset({"data"})
    code = frozenset({"query", "expression"})
    parameters = DataProcessorParameters

    def __init__(self) -> None:
        self._limiter = anyio.CapacityLimiter(4)  # they compute, and share the interpreter's lock

    @override
    async def run(
        self,
        parameters: DataProcessorParameters,
        previous: Json | Absent,
        context: AttemptContext,
        environment: ToolEnvironment,
    ) -> Json:
        from .jmespath_query import weigh

        if "data" in parameters.model_fields_set:
            data = parameters.data
        elif isinstance(previous, Absent):
            raise AttemptError(
                "parameters/data is missing: nothing came before data_processor in this task.", kind="invalid"
            )
        else:
            data = body_of(previous)
        call = partial(_process, parameters, data, environment.settings.max_output_bytes)
        if weigh(data, limit=_INLINE_WEIGHT) > _INLINE_WEIGHT:
            return await call_in_daemon_thread(call, name="flow-data", limiter=self._limiter)
        return call()


def _process(parameters: DataProcessorParameters, data: Json, max_bytes: int) -> Json:
    result = _evaluate(parameters.expression, data) if parameters.expression else _query(parameters.query or "", data)
    try:
        check_json(result, max_bytes=max_bytes)
    except NotJson as problem:
        raise AttemptError(f"The result is not JSON data that can be kept: {problem}.", kind="invalid") from None
    return result


def _query(query: str, data: Json) -> Json:
    from .jmespath_query import QueryError, run_query

    try:
        return run_query(query, data)
    except QueryError as error:
        raise AttemptError(f"parameters/query: {error}.", kind="invalid") from None


def _evaluate(expression: str, data: Json) -> Json:
    return compile_expression(expression, _ROOTS).evaluate(Scope(data=data))
