"""Flows for processes that are killed, each with the output that it must have in the end."""

from __future__ import annotations

from typing import Any

NOW = {"delay_s": 0, "jitter": 0}
SOON = {"delay_s": 0.02, "jitter": 0}


def work(name: str, **fields: Any) -> dict[str, Any]:
    """A task of the ledger's agent; `does` are its parameters."""
    does = fields.pop("does", {})
    return {"name": name, "type": "test", "required_tools": ["work"], "parameters": does, **fields}


def stage(name: str, *tasks: dict[str, Any], mode: str = "sequential", **fields: Any) -> dict[str, Any]:
    return {"name": name, "execution_mode": mode, "tasks": list(tasks), **fields}


def subflow(name: str, flow_id: str, **inputs: Any) -> dict[str, Any]:
    return {"name": name, "type": "flow", "parameters": {"flow_id": flow_id, "inputs": inputs}}


def wait(name: str, seconds: float) -> dict[str, Any]:
    return {"name": name, "type": "wait", "parameters": {"seconds": seconds}}


CHILD = {
    "stages": [
        stage(
            "c",
            work("c_left", does={"value": "{{ inputs.n }}"}),
            work("c_right", retry=NOW | {"max_attempts": 2}, does={"failures": 1}),
            mode="parallel",
        )
    ],
    "output": "{{ tasks.c_left.output.value + 1 }}",
}

MIXED = {
    "stages": [
        stage("first", work("one", does={"value": 1}), work("two", does={"value": "{{ tasks.one.output.value + 1 }}"})),
        stage(
            "middle",
            work("fan", for_each=[10, 20, 30], max_parallel=2, does={"value": "{{ item * 2 }}"}),
            work("flaky", retry=SOON | {"max_attempts": 3}, does={"failures": 2}),
            subflow("sub", "child", n="{{ tasks.two.output.value }}"),
            wait("pause", 0.08),
            work("never", when="{{ tasks.two.output.value > 2 }}"),
            mode="parallel",
        ),
        stage(
            "shaky",
            work("breaks", retry={"max_attempts": 1}, does={"failures": 9}),
            work("after", depends_on=["breaks"]),
            mode="parallel",
            continue_on_task_failure=True,
        ),
        stage("last", work("end", does={"value": "{{ tasks.fan.output[2].value }}"})),
    ],
    "output": {
        "fan": "{{ tasks.fan.output }}",
        "sub": "{{ tasks.sub.output }}",
        "tried": "{{ tasks.flaky.output.task }}",
        "end": "{{ tasks.end.output.value }}",
        "never": "{{ tasks.never.output }}",
    },
}
MIXED_OUTPUT = {
    "fan": [{"task": "fan", "item": i, "value": v} for i, v in enumerate((20, 40, 60))],
    "sub": 3,
    "tried": "flaky",
    "end": 60,
    "never": None,
}
MIXED_STATES = {
    "one": "completed",
    "two": "completed",
    "fan": "completed",
    "flaky": "completed",
    "sub": "completed",
    "pause": "completed",
    "never": "skipped",
    "breaks": "failed",
    "after": "skipped",
    "end": "completed",
}
MIXED_TRIES = {"flaky": 3, "c_right": 2}
"""Attempt numbers of tasks that fail at first; of the others the only number is 1."""
