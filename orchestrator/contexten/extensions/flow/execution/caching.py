"""Recorded outputs that serve equal tasks: looked up before a task's first attempt, kept with its completion.

There is no lock: of two equal tasks that start at the same time both run, and the output of the later one stays.
"""

from __future__ import annotations

import hashlib
import json
import logging
from functools import partial
from typing import TYPE_CHECKING

from ..definition import misfits
from ..errors import AttemptError, StoreError
from ..store import CachedOutput, CacheEntry, StoredText
from ..store.cache import cached_output
from ..store.sql import SQL
from .draft import Draft
from .messages import CacheRead
from .outcome import Failed
from .unit import Unit

if TYPE_CHECKING:
    from .run import RunExecution

logger = logging.getLogger(__name__)


def serve(run: RunExecution, unit: Unit, draft: Draft) -> bool:
    """Whether a unit that is about to start needs no attempt now: it is being looked up (the run hears of it as
    CacheRead), a recorded output served it, or its key cannot be made and it has failed."""
    if unit.lookup is None:
        _look_up(run, unit, draft)
        return True
    found = unit.lookup.found
    if found is None:
        return False
    age_s = max(0.0, draft.at - found.recorded_at)
    run.tasks.complete(unit, found.output, draft, data={"cached_from": found.run_id, "age_s": round(age_s, 3)})
    draft.cache_hits += 1
    return True


def keep(unit: Unit, output: StoredText, draft: Draft) -> None:
    """Keep what an attempt put out for others, under the key that was asked for before it.

    One that another server began has no such key here, and a key made now might be that of other data."""
    cache = unit.node.task.cache
    if cache is not None and unit.lookup is not None:
        draft.cached.append(CacheEntry(unit.lookup.key, output, cache.ttl_s))


def _look_up(run: RunExecution, unit: Unit, draft: Draft) -> None:
    try:
        key = _key(run, unit)
    except AttemptError as error:
        run.tasks.fail(unit, Failed(kind=error.kind, message=error.message), draft, final=True)
        return
    unit.is_preparing = True
    run.tasks.live[unit] = None
    begin = partial(run.host.spawn, _read, run, unit, key, name=f"cache {unit.row.task}")
    if draft.is_empty:  # nothing to make durable first
        begin()
    else:
        draft.effects.append(begin)


async def _read(run: RunExecution, unit: Unit, key: str) -> None:
    cache, found = unit.node.task.cache, None
    since = run.host.clock.timestamp() - (cache.ttl_s if cache is not None else 0.0)
    try:
        row = await run.host.store.row(SQL["find_cached"], (key, since))
        found = cached_output(row) if row is not None else None
        if found is not None and _is_misfit(unit, found):
            found = None
    except StoreError as error:  # the task can do without
        logger.warning("the cache could not be read: %s", error, extra={"run_id": run.run_id})
    run.post(CacheRead(unit, key, found))


def _is_misfit(unit: Unit, found: CachedOutput) -> bool:
    """Whether an output, perhaps of a task without that schema, is none that the task may put out."""
    schema = unit.node.task.output_schema
    return schema is not None and bool(misfits(schema, json.loads(found.output.text)))


def _key(run: RunExecution, unit: Unit) -> str:
    """The digest under which an output is kept: of all that decides who does the task and what is asked of them, as it
    is written, and the rendered key. Raises AttemptError where the key's template fails."""
    task, template = unit.node.task, unit.node.cache_key
    value = template.render(run.tasks.scope_of(unit)) if template is not None else None
    engine = run.claimed.framework if run.staff.worker(task) is not None else None
    asked = [task.type, task.required_tools, task.preferred_agent_type, engine, task.description, task.parameters]
    text = json.dumps([*asked, value], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
