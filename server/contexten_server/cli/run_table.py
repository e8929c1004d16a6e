"""How a run looks on a terminal: its tasks with their states, and what became of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from contexten.extensions.flow.views import EventView, RunView, TaskView
from contexten_server.cli.printable import in_line
from contexten_server.cli.screen import STATE_STYLES, duration_text, plain_table, state_text

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

MOST_ROWS = 40
"""Tasks that a live table shows: more would scroll a terminal."""


def run_heading(run: RunView) -> Text:
    """Name, id, state and progress of a run in one line."""
    from rich.text import Text

    heading = Text.assemble(
        (in_line(run.name), "bold"), "  ", (run.run_id, "bright_black"), "  ", state_text(run.state)
    )
    heading.append(f"  {run.progress.completed}/{run.progress.total} tasks")
    if run.duration_s is not None:
        heading.append(f"  {duration_text(run.duration_s)}", style="bright_black")
    return heading


def _remark(task: TaskView) -> str:
    if task.error is not None:
        return f"{task.error.kind}: {task.error.message}"
    if task.reason:
        return task.reason
    if task.items:
        return ", ".join(f"{count} {state}" for state, count in task.items.items())
    if task.taken_over:
        return "taken over"
    return ""


def task_table(tasks: list[TaskView], *, most: int | None = None) -> Table:
    """Tasks by stage; with `most`, those under way and the latest first to stay."""
    table = plain_table("stage", "task", "state", "tries", "time", "")
    shown = tasks
    if most is not None and len(tasks) > most:
        busy = [task for task in tasks if task.state not in {"pending", "completed", "skipped"}]
        rest = [task for task in tasks if task not in busy]
        chosen = {task.name for task in (busy + rest)[:most]}
        shown = [task for task in tasks if task.name in chosen]
    stage = None
    for task in shown:
        table.add_row(
            (task.stage or "on failure") if task.stage != stage else "",
            task.name,
            state_text(task.state),
            str(task.attempts or ""),
            duration_text(task.duration_s),
            _remark(task),
        )
        stage = task.stage
    if len(shown) < len(tasks):
        table.add_row("", f"and {len(tasks) - len(shown)} more", "", "", "", "")
    return table


def run_group(run: RunView, *, most: int | None = None) -> Group:
    """A run with its tasks, as far as they were asked for."""
    from rich.console import Group
    from rich.text import Text

    parts: list[Text | Table] = [run_heading(run)]
    if run.tasks:
        parts.append(task_table(run.tasks, most=most))
    if run.error is not None:
        where = f" in {run.error.task}" if run.error.task else ""
        parts.append(Text.assemble((in_line(f"{run.error.kind}{where}: "), "bold red"), run.error.message))
    if run.reason:
        parts.append(Text(f"reason: {in_line(run.reason)}"))
    if run.note:
        parts.append(Text(run.note, style="yellow"))
    return Group(*parts)


def event_text(event: EventView) -> Text:
    """A journal entry in one line: when, what, where, and what it carries."""
    from rich.text import Text

    state = event.type.rpartition(".")[2]
    line = Text.assemble(
        (event.at.replace("T", " ")[:23], "bright_black"), "  ", (f"{event.type:<16}", STATE_STYLES.get(state, ""))
    )
    if event.task:
        place = event.task if event.item is None else f"{event.task}[{event.item}]"
        line.append(f"  {in_line(place)}", style="bold")
    if event.attempt is not None and event.attempt > 1:
        line.append(f"  try {event.attempt}")
    if event.details:
        line.append("  " + _brief(event.details), style="bright_black")
    if event.actor:
        line.append(f"  by {in_line(event.actor)}", style="bright_black")
    return line


def _brief(data: dict[str, object], limit: int = 160) -> str:
    import json

    text = json.dumps(data, ensure_ascii=False)
    return text if len(text) <= limit else text[: limit - 1] + "…"
