"""Completion of the ids in resource templates."""

from __future__ import annotations

from typing import Any

from mcp.server.mcpserver import MCPServer
from mcp_types import (
    Completion,
    CompletionArgument,
    CompletionContext,
    PromptReference,
    ResourceTemplateReference,
)

from contexten.extensions.flow.errors import FlowError
from contexten.extensions.flow.reference import TEXT_TOPICS
from contexten_resources.served import Served

_LOOKED_AT = 100  # the newest; completion helps a person find what is of now
_SHOWN = 100  # as many as the protocol lets an answer have


def register(server: MCPServer[Any], app: Served) -> None:
    """Answer completion/complete for flow_id, run_id, task and topic."""

    async def candidates(name: str, known: dict[str, str]) -> list[str]:
        match name:
            case "topic":
                return list(TEXT_TOPICS)
            case "flow_id":
                return [flow.flow_id for flow in (await app.service.list_flows(limit=_LOOKED_AT)).flows]
            case "run_id":
                return [run.run_id for run in (await app.service.list_runs(limit=_LOOKED_AT)).runs]
            case "task" if "run_id" in known:
                run = await app.service.get_run(known["run_id"], detail="tasks")
                return [task.name for task in run.tasks or []]
        return []

    @server.completion()  # type: ignore[no-untyped-call, untyped-decorator]  # the SDK's decorator has no annotation
    async def complete(
        ref: PromptReference | ResourceTemplateReference,
        argument: CompletionArgument,
        context: CompletionContext | None,
    ) -> Completion | None:
        if not isinstance(ref, ResourceTemplateReference):
            return None
        try:
            found = await candidates(argument.name, (context.arguments if context is not None else None) or {})
        except FlowError:  # the id given so far names nothing
            return None
        fitting = [value for value in found if value.startswith(argument.value)]
        return Completion(values=fitting[:_SHOWN], total=len(fitting), has_more=len(fitting) > _SHOWN)
