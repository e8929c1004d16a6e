"""The definition format: models, checker, templates and the compiled plan.

`check` is the way in for everything that was not checked before; `compile_plan` for stored definitions.
"""

from .catalog import AgentSpec, Catalog, Limits, ParameterHook, ToolSpec
from .checker import CheckReport, check
from .expressions import Expression, ExpressionError, ExpressionProblem, compile_expression
from .model import Retry, Stage, Task, WorkflowDefinition
from .names import is_flow_id, is_identifier, make_flow_id, make_identifier
from .patching import apply_patch
from .plan import Plan, StageNode, TaskNode, compile_plan
from .schema import json_schema
from .schemas import check_inputs, misfits
from .scope import Scope
from .templates import Constant, Template, TemplateProblem, compile_condition, compile_template, has_template
from .values import MAX_DEPTH, MAX_INTEGER, NotJson, check_json

__all__ = [
    "MAX_DEPTH",
    "MAX_INTEGER",
    "AgentSpec",
    "Catalog",
    "CheckReport",
    "Constant",
    "Expression",
    "ExpressionError",
    "ExpressionProblem",
    "Limits",
    "NotJson",
    "ParameterHook",
    "Plan",
    "Retry",
    "Scope",
    "Stage",
    "StageNode",
    "Task",
    "TaskNode",
    "Template",
    "TemplateProblem",
    "ToolSpec",
    "WorkflowDefinition",
    "apply_patch",
    "check",
    "check_inputs",
    "check_json",
    "compile_condition",
    "compile_expression",
    "compile_plan",
    "compile_template",
    "has_template",
    "is_flow_id",
    "is_identifier",
    "json_schema",
    "make_flow_id",
    "make_identifier",
    "misfits",
]
