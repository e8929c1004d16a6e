"""The public MCP conformance suite against our running server, one test a scenario and revision.

Run are all scenarios that need nothing of their own in the server. The others ask for fixture tools,
resources or prompts with fixed names and behaviour, or for extensions that this server does not offer;
NEEDS_FIXTURES says which, and a test holds both lists against the suite.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from .conftest import NodeProgram

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

MODERN = "2026-07-28"
LEGACY = "2025-11-25"

BOTH = (
    "completion-complete",
    "dns-rebinding-protection",
    "prompts-list",
    "resources-list",
    "server-sse-multiple-streams",
    "tools-list",
)
SCENARIOS = {
    MODERN: (
        *BOTH,
        "caching",
        "http-header-validation",
        "input-required-result-unsupported-methods",
        "sep-2164-resource-not-found",
        "server-stateless",
    ),
    LEGACY: (
        *BOTH,
        "logging-set-level",
        "ping",
        "resources-subscribe",
        "resources-unsubscribe",
        "server-initialize",
        "server-session-lifecycle",
    ),
}

# Checks inside a scenario that can only be made on a fixture; all its other checks must pass.
FIXTURE_CHECKS = {
    "server-stateless": {
        "sep-2575-server-rejects-undeclared-capability": "calls the tool test_missing_capability, which samples",
        "sep-2575-missing-capability-http-400": "the same",
    }
}

_INPUT_REQUIRED = "the tools or the prompt test_input_required_result_*"
NEEDS_FIXTURES = {
    "elicitation-sep1034-defaults": "the tool test_elicitation_sep1034_defaults",
    "elicitation-sep1330-enums": "the tool test_elicitation_sep1330_enums",
    "http-custom-header-server-validation": "a tool with a string parameter marked x-mcp-header",
    "input-required-result-basic-elicitation": _INPUT_REQUIRED,
    "input-required-result-basic-list-roots": _INPUT_REQUIRED,
    "input-required-result-basic-sampling": _INPUT_REQUIRED,
    "input-required-result-capability-check": _INPUT_REQUIRED,
    "input-required-result-ignore-extra-params": _INPUT_REQUIRED,
    "input-required-result-missing-input-response": _INPUT_REQUIRED,
    "input-required-result-multi-round": _INPUT_REQUIRED,
    "input-required-result-multiple-input-requests": _INPUT_REQUIRED,
    "input-required-result-non-tool-request": _INPUT_REQUIRED,
    "input-required-result-request-state": _INPUT_REQUIRED,
    "input-required-result-result-type": _INPUT_REQUIRED,
    "input-required-result-tampered-state": _INPUT_REQUIRED,
    "input-required-result-validate-input": _INPUT_REQUIRED,
    "json-schema-2020-12": "the tool json_schema_2020_12_tool",
    "prompts-get-embedded-resource": "the prompt test_prompt_with_embedded_resource",
    "prompts-get-simple": "the prompt test_simple_prompt",
    "prompts-get-with-args": "the prompt test_prompt_with_arguments",
    "prompts-get-with-image": "the prompt test_prompt_with_image",
    "resources-read-binary": "the resource test://static-binary",
    "resources-read-text": "the resource test://static-text",
    "resources-templates-read": "the resource template test://template/{id}/data",
    "sep-2640-skills-directory": "the skills extension",
    "sep-2640-skills-enumeration": "the skills extension",
    "sep-2640-skills-manifest": "the skills extension",
    "server-sse-polling": "the tool test_reconnection, which closes its own stream",
    "tasks-capability-negotiation": "the tasks extension and its fixture tools",
    "tasks-dispatch-and-envelope": "the tasks extension and its fixture tools",
    "tasks-lifecycle": "the tasks extension and its fixture tools",
    "tasks-mrtr-composition": "the tasks extension and its fixture tools",
    "tasks-mrtr-input": "the tasks extension and its fixture tools",
    "tasks-request-headers": "the tasks extension and its fixture tools",
    "tasks-request-state-removal": "the tasks extension and its fixture tools",
    "tasks-required-task-error": "the tasks extension and its fixture tools",
    "tasks-status-notifications": "the tasks extension and its fixture tools",
    "tasks-wire-fields": "the tasks extension and its fixture tools",
    "tools-call-audio": "the tool test_audio_content",
    "tools-call-elicitation": "the tool test_elicitation",
    "tools-call-embedded-resource": "the tool test_embedded_resource",
    "tools-call-error": "the tool test_error_handling",
    "tools-call-image": "the tool test_image_content",
    "tools-call-mixed-content": "the tool test_multiple_content_types",
    "tools-call-sampling": "the tool test_sampling",
    "tools-call-simple-text": "the tool test_simple_text",
    "tools-call-with-logging": "the tool test_tool_with_logging",
    "tools-call-with-progress": "the tool test_tool_with_progress",
}


def _checks(folder: Path) -> list[dict[str, Any]]:
    reports = list(folder.glob("*/checks.json"))
    return [check for report in reports for check in json.loads(report.read_text())]


@pytest.mark.parametrize(
    ("revision", "scenario"), [(revision, name) for revision, names in SCENARIOS.items() for name in sorted(names)]
)
async def test_the_server_passes_a_public_conformance_scenario(
    conformance: NodeProgram, served_url: str, tmp_path: Path, revision: str, scenario: str
) -> None:
    _, out, err = await conformance(
        "server", "--url", served_url, "--scenario", scenario, "--spec-version", revision, "-o", str(tmp_path)
    )

    checks = _checks(tmp_path)
    fixture_checks = FIXTURE_CHECKS.get(scenario, {})
    failed = [
        f"{check['id']}: {check.get('errorMessage') or check['description']}"
        for check in checks
        if check["status"] == "FAILURE" and check["id"] not in fixture_checks
    ]
    passed = [check["id"] for check in checks if check["status"] == "SUCCESS" and check["id"] != "wire-schema-valid"]
    assert not failed, "\n".join(failed)
    assert passed, f"no check was made:\n{out}\n{err}"


async def test_every_scenario_of_the_suite_is_run_or_left_out_for_a_reason(conformance: NodeProgram) -> None:
    _, out, _ = await conformance("list", "--server")

    server_part = out.split("Client scenarios")[0]
    listed = {name: set(marks.split(",")) for name, marks in re.findall(r"- (\S+) \[([^\]]+)\]", server_part)}
    for revision, names in SCENARIOS.items():
        expected = {name for name, marks in listed.items() if revision in marks and name not in NEEDS_FIXTURES}
        assert set(names) == expected
    assert set(NEEDS_FIXTURES) <= set(listed)
    assert set(listed) == set(NEEDS_FIXTURES) | {name for names in SCENARIOS.values() for name in names}
