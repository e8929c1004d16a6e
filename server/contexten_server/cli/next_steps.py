"""What a person at the command line does next after an error.

The library's errors name the calls of an agent; here, and here only, they become commands.
"""

from __future__ import annotations

import re

from contexten.extensions.flow.errors import FlowError

_CALL = re.compile(r"\bcall\b|\w\(", re.IGNORECASE)
"""Words meant for an agent. Better nothing than a step that cannot be taken here."""

_BY_CODE = {
    "run_not_found": "`contexten-flow list --runs` shows the runs",
    "flow_not_found": "`contexten-flow list` shows the saved flows, `contexten-flow list --runs` the runs; "
    "`contexten-flow save FILE` saves a flow",
    "not_found": "`contexten-flow list --runs` shows the runs",
    "task_not_found": "`contexten-flow status ID` shows the run's tasks",
    "trigger_not_found": "`contexten-flow trigger list` shows the triggers",
    "delivery_not_found": "`contexten-flow trigger deliveries` shows what was delivered",
    "notification_not_found": "`contexten-flow notify list` shows the receivers",
    "dispatch_not_found": "`contexten-flow notify dispatches` shows the messages",
    "illegal_move": "`contexten-flow status ID` shows the run and its tasks; `contexten-flow run FILE` starts another",
    "invalid_inputs": "correct --inputs at the places named and run it again",
    "idempotency_conflict": "use another --idempotency-key; `contexten-flow list --runs` shows the earlier run",
    "store_full": "free space on the disk of the database, then repeat the command",
    "closing": "repeat the command",
}

_BY_ISSUE = {
    "no_able_agent": "allow the tool in the settings; `contexten-flow doctor` shows what is off and how to enable it",
    "invalid_page": "take --page from the end of the last answer, or leave it out to begin again",
    "unknown_strategy": "name one of these",
    "not_waiting": "`contexten-flow notify dispatches --state dead` shows the messages that were given up",
}
"""Where one code stands for many things, the first problem says which."""


def next_step(error: FlowError) -> str | None:
    """The next step for whoever typed the command; the library's own words where they name no call."""
    if error.issues and error.issues[0].code in _BY_ISSUE:
        return _BY_ISSUE[error.issues[0].code]
    if error.code == "invalid_definition":
        if any(issue.patch for issue in error.issues):
            return "`contexten-flow validate FILE --fix` applies the mends that are known; correct the rest by hand"
        return "correct the places named, then check them with `contexten-flow validate FILE`"
    if error.code in _BY_CODE:
        return _BY_CODE[error.code]
    return None if error.next is None or _CALL.search(error.next) else error.next
