"""What the run view works out before it draws: places in a graph, and the course of a run from its journal."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

import contexten_server

MODULES = Path(contexten_server.__file__).parent / "dashboard" / "assets" / "run"

_SCRIPT = """
const {{ layOut, NODE }} = await import({layout});
const {{ RunRecord }} = await import({record});
const {{ duration, relativeTime, bytes }} = await import({format});
const task = (task, depends_on = [], stage = "s") => ({{ task, stage, depends_on }});
{body}
"""


def run(body: str) -> str:
    """What a script with the view's modules prints."""
    node = shutil.which("node") or pytest.skip("needs Node.js: install the program `node`")
    modules = {name: json.dumps((MODULES / f"{name}.js").as_uri()) for name in ("layout", "record", "format")}
    script = _SCRIPT.format(body=body, **modules)
    done = subprocess.run(
        [node, "--input-type=module", "-e", script], capture_output=True, check=False, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_in_a_graph_each_task_stands_past_those_it_follows_and_none_on_another() -> None:
    said = run("""
        const graph = [];
        for (let layer = 0; layer < 8; layer += 1)
          for (let at = 0; at < 6; at += 1)
            graph.push(task(`t${layer}_${at}`, layer ? [`t${layer - 1}_${(at * 5) % 6}`, `t0_${at}`] : []));
        for (const isDown of [false, true]) {
          const { nodes, width, height } = layOut(graph, { isDown });
          const [along, size] = isDown ? ["y", NODE.height] : ["x", NODE.width];
          for (const { task, depends_on } of graph)
            for (const before of depends_on)
              if (nodes.get(before)[along] + size > nodes.get(task)[along]) console.log("behind", task, before);
          const places = [...nodes.values()];
          for (const [i, a] of places.entries()) {
            if (a.x < 0 || a.y < 0 || a.x + NODE.width > width || a.y + NODE.height > height) console.log("outside", a);
            for (const b of places.slice(i + 1))
              if (Math.abs(a.x - b.x) < NODE.width && Math.abs(a.y - b.y) < NODE.height) console.log("on", a, b);
          }
        }
        console.log("done");
    """)
    assert said == "done"


def test_a_graph_of_a_thousand_tasks_in_any_shape_is_laid_out_soon_and_whole() -> None:
    said = run("""
        const many = Array.from({ length: 1000 }, (_, at) => at);
        const shapes = {
          chain: many.map((at) => task(`t${at}`, ["t0", `t${at - 1}`].slice(2 - Math.min(at, 2)))),
          wide: many.map((at) => task(`t${at}`, at < 500 ? [] : ["stage:a"], at < 500 ? "a" : "b")),
          mixed: many.map((at) => {
            const depends_on = at < 40 ? [] : [`t${at - 40}`, `t${(at * 7) % (at - 30)}`];
            return task(`t${at}`, depends_on, `s${Math.floor(at / 100)}`);
          }),
          loose: many.map((at) => task(`t${at}`)),
        };
        for (const [shape, graph] of Object.entries(shapes)) {
          const begun = performance.now();
          const { nodes, edges } = layOut(graph);
          if (performance.now() - begun > 5000) console.log("slow", shape);
          console.log(shape, nodes.size, edges.length > 5000);
        }
    """)
    assert said.split("\n") == [f"{shape} 1000 false" for shape in ("chain", "wide", "mixed", "loose")]


_JOURNAL = """
const at = (second) => new Date(second * 1000).toISOString();
const event = (type, second, more = {}) => ({ type, at: at(second), cursor: `c${second}`, ...more });
const second = (time) => (time === null ? "now" : time / 1000);
const told = (spans) => spans.map(({ state, from, to, outcome, attempt }) =>
  [state, second(from), second(to), outcome, attempt].filter((part) => part !== undefined).join(" "));
const record = new RunRecord();
const graph = [task("a"), task("each"), task("z")];
record.take({ run_id: "r", state: "running", created_at: at(0), graph, tasks: [] });
"""


def test_attempts_waits_and_an_interruption_are_read_from_the_journal() -> None:
    said = run(
        _JOURNAL
        + """
        record.hear([
          event("run.scheduled", 0), event("run.running", 1),
          event("task.running", 1, { task: "a", attempt: 1 }),
          event("task.log", 2, { task: "a", details: { message: "hello" } }),
          event("task.retrying", 3, { task: "a", attempt: 1, details: { kind: "network", message: "gone" } }),
          event("task.running", 5, { task: "a", attempt: 2 }),
          event("task.running", 6, { task: "a", attempt: 3 }),
          event("task.completed", 9, { task: "a", attempt: 3 }),
          event("run.paused", 9), event("run.scheduled", 10), event("run.running", 10), event("run.completed", 12),
        ]);
        const { state, attempts, duration_s, error } = record.tasks.get("a");
        console.log(told(record.of("a")).join("; "));
        console.log(state, attempts, duration_s, error === undefined, record.tasks.get("z").state);
        console.log(told(record.course.list).join("; "));
        """
    )
    assert [line.split("; ") for line in said.split("\n")] == [
        ["running 1 3 retrying 1", "retrying 3 5 running 1", "running 5 6 running 2", "running 6 9 completed 3"],
        ["completed 3 8 true pending"],
        [
            "scheduled 0 1 running",
            "running 1 9 paused",
            "paused 9 10 scheduled",
            "scheduled 10 10 running",
            "running 10 12 completed",
        ],
    ]


def test_items_of_a_for_each_leave_the_course_of_their_task_alone() -> None:
    said = run(
        _JOURNAL
        + """
        record.hear([
          event("task.running", 1, { task: "each" }),
          event("task.running", 1, { task: "each", item: 0, attempt: 1 }),
          event("task.failed", 2, { task: "each", item: 0, attempt: 1, details: { kind: "x", message: "y" } }),
        ]);
        console.log(record.tasks.get("each").state, told(record.of("each")).join("; "));
        """
    )
    assert said == "running running 1 now running"


@pytest.mark.parametrize(
    ("call", "text"),
    [
        ("duration(0.0004)", "0 ms"),
        ("duration(0.9996)", "1.0 s"),
        ("duration(59.96)", "1 min"),
        ("duration(7384)", "2 h 3 min"),
        ("duration(90000)", "1 d 1 h"),
        ("bytes(812)", "812 B"),
        ("bytes(3355443)", "3.2 MiB"),
        ("relativeTime(new Date(0).toISOString(), 125_000)", "2 min ago"),
    ],
)
def test_figures_are_short(call: str, text: str) -> None:
    assert run(f"console.log({call})") == text
