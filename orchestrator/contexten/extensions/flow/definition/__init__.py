"""The definition format: models, checker, templates and the compiled plan.

`check` is the way in for everything that was not checked before; `compile_plan` for stored definitions.
"""

from .catalog import AgentSpec, Catalog, Limits, ParameterHook, ToolSpec
from .checker import CheckReport, check
from .expressions import Expression, ExpressionError, ExpressionProblem, compile_expression
from .jsontext import DuplicateKeys, load_json
from .model import MAX_S, Retry, Stage, Task, WorkflowDefinition
from .names import is_flow_id, is_identifier, make_flow_id, make_identifier
from .naming import named_tasks
from .patching import apply_patch, check_patch
from .plan import Plan, StageNode, TaskNode, compile_plan
from .schema import json_schema
from .schemas import check_inputs, misfits
from .scope import FAILURE_FIELDS, Scope
from .templates import Constant, Template, TemplateProblem, compile_condition, compile_template, has_template
from .values import MAX_DEPTH, MAX_INTEGER, NotJson, check_json, copy_json

__all__ = [
    "FAILURE_FIELDS",
    "MAX_DEPTH",
    "MAX_INTEGER",
    "MAX_S",
    "AgentSpec",
    "Catalog",
    "CheckReport",
    "Constant",
    "DuplicateKeys",
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
    "check_patch",
    "compile_condition",
    "compile_expression",
    "compile_plan",
    "compile_template",
    "copy_json",
    "has_template",
    "is_flow_id",
    "is_identifier",
    "json_schema",
    "load_json",
    "make_flow_id",
    "make_identifier",
    "misfits",
    "named_tasks",
]
