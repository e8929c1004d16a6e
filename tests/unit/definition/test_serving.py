from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from contexten.extensions.flow.definition import AgentSpec, Catalog, CheckReport, WorkflowDefinition, apply_patch, check


def flow(*tasks: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"stages": [{"name": "main", "tasks": list(tasks)}], **fields}


def check_task(catalog: Catalog, **task: Any) -> CheckReport:
    return check(flow({"name": "a", **task}), catalog)


def codes(report: CheckReport) -> list[tuple[str, str]]:
    return [(issue.code, issue.path.removeprefix("/stages/0/tasks/0")) for issue in report.issues]


PIPELINE = ["http_client", "json_parser", "data_processor"]


def test_a_pipelines_parameters_are_the_union_of_its_tools(catalog: Catalog) -> None:
    parameters = {"url": "http://x", "pointer": "/a", "query": "[0]", "json": {"k": 1}}
    assert check_task(catalog, required_tools=PIPELINE, parameters=parameters).issues == ()


def test_what_a_later_tool_gets_from_the_one_before_is_not_missing(catalog: Catalog) -> None:
    report = check_task(catalog, required_tools=["data_processor"], parameters={"query": "[0]"})
    assert codes(report) == [("missing_parameter", "/parameters")]
    assert check_task(catalog, required_tools=["json_parser", "data_processor"], parameters={"query": "x"}).issues == ()


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({}, ("missing_parameter", "/parameters")),
        ({"url": "x", "mehtod": "GET"}, ("unknown_parameter", "/parameters/mehtod")),
        ({"url": "x", "timeout_s": "soon"}, ("wrong_type", "/parameters/timeout_s")),
        ({"url": "x", "timeout_s": -1}, ("invalid_parameters", "/parameters/timeout_s")),
        ({"url": "x", "headers": {"a": 5}}, ("wrong_type", "/parameters/headers/a")),
    ],
)
def test_parameters_that_do_not_fit_are_refused(parameters: Any, expected: Any, catalog: Catalog) -> None:
    assert codes(check_task(catalog, required_tools=["http_client"], parameters=parameters)) == [expected]


def test_a_misspelt_parameter_is_renamed_by_its_patch(catalog: Catalog) -> None:
    raw = flow({"name": "a", "required_tools": ["http_client"], "parameters": {"ulr": "http://x"}})
    issue = next(issue for issue in check(raw, catalog).issues if issue.code == "unknown_parameter")
    assert issue.suggestion == "url"
    assert issue.patch is not None
    assert check(apply_patch(raw, issue.patch), catalog).issues == ()


def test_templates_are_not_checked_for_their_type(catalog: Catalog) -> None:
    parameters = {"url": "{{ inputs.u }}", "timeout_s": "{{ inputs.t }}", "headers": {"a": "{{ inputs.h }}"}}
    assert check_task(catalog, required_tools=["http_client"], parameters=parameters).issues == ()


def test_a_tools_own_warnings_are_shown_at_the_parameter(catalog: Catalog) -> None:
    report = check_task(catalog, required_tools=["http_client"], parameters={"url": "http://localhost/"})
    assert [(warning.code, warning.path) for warning in report.warnings] == [
        ("private_address", "/stages/0/tasks/0/parameters/url")
    ]


def test_an_agent_of_ones_own_takes_any_parameters(catalog: Catalog) -> None:
    mine = AgentSpec(name="mine", agent_type="coder", tools=("http_client", "review"))
    catalog = replace(catalog, agents=(*catalog.agents, mine))
    assert check_task(catalog, required_tools=["http_client"], parameters={"anything": 1}).issues == ()
    assert check_task(catalog, required_tools=["review"], type="code_review").warnings == ()
    report = check_task(catalog, required_tools=["http_client"], preferred_agent_type="tool", parameters={"x": 1})
    assert ("unknown_parameter", "/parameters/x") in codes(report)


def test_tools_that_no_one_agent_offers_together_are_refused(catalog: Catalog) -> None:
    mine = AgentSpec(name="mine", agent_type="coder", tools=("review",))
    catalog = replace(catalog, agents=(*catalog.agents, mine))
    report = check_task(catalog, required_tools=["http_client", "review"])
    assert codes(report) == [("no_able_agent", "/required_tools")]
    assert "lacks" in report.issues[0].message


def test_without_agents_nothing_can_run() -> None:
    assert codes(check_task(Catalog())) == [("no_able_agent", "")]


def test_a_preference_that_nobody_meets_is_a_warning(catalog: Catalog) -> None:
    report = check_task(catalog, required_tools=["json_parser"], preferred_agent_type="tol")
    assert report.issues == ()
    assert [(warning.code, warning.suggestion) for warning in report.warnings] == [("no_preferred_agent", "tool")]


def test_a_kind_in_another_case_is_warned_of(catalog: Catalog) -> None:
    report = check_task(catalog, type="Wait", required_tools=["json_parser"])
    assert "unusual_type" in [warning.code for warning in report.warnings]


def test_fields_of_for_each_without_it_are_refused(catalog: Catalog) -> None:
    assert codes(check_task(catalog, max_parallel=3)) == [("unused_field", "/max_parallel")]


# sub-flows


def saved(catalog: Catalog, **raw: dict[str, Any]) -> Catalog:
    definitions = {name: WorkflowDefinition.model_validate(value) for name, value in raw.items()}
    return replace(catalog, flows=definitions.get, flow_ids=lambda: definitions)


def start(flow_id: str, **parameters: Any) -> dict[str, Any]:
    return {"name": "sub", "type": "flow", "parameters": {"flow_id": flow_id, **parameters}}


CHILD = flow(
    {"name": "x"},
    inputs={
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer", "default": 1}},
        "required": ["city", "days"],
        "additionalProperties": False,
    },
)


def test_a_sub_flow_is_looked_up_and_its_inputs_are_checked(catalog: Catalog) -> None:
    catalog = saved(catalog, child=CHILD)
    assert check(flow(start("child", inputs={"city": "Oslo"})), catalog).issues == ()
    assert (
        check(flow(start("child", inputs={"city": "{{ inputs.c }}", "days": "{{ inputs.d }}"})), catalog).issues == ()
    )
    assert check(flow(start("child", inputs="{{ inputs }}")), catalog).issues == ()
    assert codes(check(flow(start("child", inputs={"city": 5})), catalog)) == [
        ("invalid_inputs", "/parameters/inputs/city")
    ]
    assert codes(check(flow(start("child")), catalog)) == [("invalid_inputs", "/parameters")]
    report = check(flow(start("child", inputs={"city": "{{ inputs.c }}", "citty": 1})), catalog)
    assert codes(report) == [("invalid_inputs", "/parameters/inputs")]


def test_an_unknown_sub_flow_is_refused_with_the_near_one(catalog: Catalog) -> None:
    catalog = saved(catalog, child=CHILD)
    issue = check(flow(start("chlid", inputs={"city": "Oslo"})), catalog).issues[0]
    assert (issue.code, issue.suggestion) == ("unknown_flow", "child")
    assert issue.patch is not None


def test_a_sub_flows_id_is_literal(catalog: Catalog) -> None:
    assert codes(check(flow(start("{{ inputs.f }}")), saved(catalog))) == [
        ("invalid_parameters", "/parameters/flow_id")
    ]


def test_a_flow_does_not_start_itself(catalog: Catalog) -> None:
    raw = flow(start("me"), id="me")
    issue = check(raw, saved(catalog)).issues[0]
    assert (issue.code, issue.got) == ("recursion", "me -> me")
    assert check(flow(start("me")), saved(catalog), flow_id="me").issues[0].code == "recursion"


def test_a_flow_does_not_come_back_to_itself_through_others(catalog: Catalog) -> None:
    catalog = saved(catalog, b=flow(start("c")), c=flow(start("a")), a=flow({"name": "x"}))
    issue = check(flow(start("b"), id="a"), catalog).issues[0]
    assert (issue.code, issue.got) == ("recursion", "a -> b -> c -> a")


def for_model(catalog: Catalog, **task: Any) -> CheckReport:
    return check_task(replace(catalog, has_model=True), **task)


@pytest.mark.parametrize("kind", ["agent", "judgement"])
@pytest.mark.parametrize("given", [{}, {"parameters": {"case": 1}}])
def test_a_template_in_a_models_description_is_told_and_moved(
    catalog: Catalog, kind: str, given: dict[str, Any]
) -> None:
    raw = flow({"name": "a", "type": kind, "description": "Greet {{ inputs.who }}.", **given})
    report = check(raw, replace(catalog, has_model=True))
    (warning,) = (one for one in report.warnings if one.code == "unrendered_template")
    assert warning.path == "/stages/0/tasks/0/description"
    assert "put this text into parameters.objective" in warning.message
    assert warning.patch is not None
    (mended,) = apply_patch(raw, warning.patch)["stages"][0]["tasks"]
    assert "description" not in mended
    assert mended["parameters"] == {**given.get("parameters", {}), "objective": "Greet {{ inputs.who }}."}
    again = for_model(catalog, **mended)
    assert "unrendered_template" not in [one.code for one in again.warnings]


def test_a_template_in_a_description_is_moved_only_to_where_it_fits(catalog: Catalog) -> None:
    told = "Greet {{ inputs.who }}."
    both = for_model(catalog, type="agent", description=told, parameters={"objective": "Be kind."})
    tools = for_model(
        catalog,
        type="shaping",
        description=told,
        required_tools=["data_processor"],
        parameters={"data": 1, "query": "@"},
    )
    for report in (both, tools):
        assert [(one.code, one.patch) for one in report.warnings] == [("unrendered_template", None)]
    assert for_model(catalog, type="tool", description=told, required_tools=["json_parser"]).warnings == ()
    assert for_model(catalog, type="agent", description="Greet.", parameters={"who": told}).warnings == ()
