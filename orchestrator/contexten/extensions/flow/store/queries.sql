-- Every statement but the migrations. Loaded by name; `?` are bound in order.

-- name: last_event
SELECT seq FROM sqlite_sequence WHERE name = 'events'

-- name: journal_bounds
SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'events'), 0),
       coalesce((SELECT CAST(value AS INTEGER) FROM settings WHERE key = 'pruned'), 0)

-- name: is_of_run
SELECT 1 FROM events WHERE seq = ? AND run_id = ?

-- name: group_start
SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'events'), 0), user_version,
       EXISTS (SELECT 1 FROM servers WHERE server_id = ?)
FROM pragma_user_version

-- name: insert_event
INSERT INTO events (seq, run_id, flow_id, type, task, item, attempt, at, actor, data)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: setting
SELECT value FROM settings WHERE key = ?

-- name: scheduling_settings
SELECT key, value FROM settings WHERE key IN ('strategy', 'max_concurrent_flows', 'in_force', 'queue_keys')

-- name: put_setting
INSERT INTO settings (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value

-- name: put_blob
INSERT INTO blobs (digest, body) VALUES (?, ?) ON CONFLICT (digest) DO NOTHING

-- name: flow_head
SELECT flows.version, flow_versions.digest, flows.listed
FROM flows JOIN flow_versions USING (flow_id, version) WHERE flow_id = ?

-- name: insert_flow
INSERT INTO flows (flow_id, name, description, tags, listed, version, created_at, updated_at)
VALUES (?, ?, ?, ?, ?, 1, ?, ?)

-- name: insert_version
INSERT INTO flow_versions (flow_id, version, digest, definition, created_at) VALUES (?, ?, ?, ?, ?)

-- name: update_flow
UPDATE flows SET version = ?, name = ?, description = ?, tags = ?, updated_at = ? WHERE flow_id = ? AND version = ?

-- name: list_flow
UPDATE flows SET listed = 1, updated_at = ? WHERE flow_id = ?

-- name: set_latest_run
UPDATE flows SET latest_run_id = ?, runs = runs + 1 WHERE flow_id = ?

-- name: run_by_key
SELECT run_id, request_digest FROM runs WHERE flow_id = ? AND idempotency_key = ?

-- name: insert_run
INSERT INTO runs (
    run_id, flow_id, version, name, state, framework, priority, queue_key, inputs, timeout_s, idempotency_key,
    request_digest, rerun_of, parent_run_id, parent_task, parent_item, completed, total, cursor, created_at,
    deadline, on_deadline, estimate_s, demands, blocked
) VALUES (?, ?, ?, ?, 'scheduled', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: count_slots
SELECT count(*) FROM runs WHERE state = 'running' AND parent_run_id IS NULL

-- name: queue_head
SELECT run_id FROM runs INDEXED BY runs_queue
WHERE state = 'scheduled' AND parent_run_id IS NULL AND blocked IS NULL ORDER BY queue_key, seq LIMIT ?

-- name: claim_run
UPDATE runs SET state = 'running', owner = ?1, fence = fence + 1, started_at = coalesce(started_at, ?2), claimed_at = ?2,
    wake_at = NULL
WHERE run_id = ?3 AND state = 'scheduled'

-- name: take_over_run
UPDATE runs SET owner = ?, fence = fence + 1 WHERE run_id = ? AND state = 'running' AND owner IS NOT ?

-- name: abandoned_runs
SELECT run_id, owner FROM runs
WHERE state = 'running' AND parent_run_id IS NULL
  AND (owner IS NULL OR owner NOT IN (SELECT server_id FROM servers))
  AND (request IS NOT NULL OR run_id NOT IN (SELECT value FROM json_each(?)))
  AND run_id NOT IN (SELECT value FROM json_each(?))
ORDER BY seq LIMIT ?

-- name: untried_server
SELECT 1 FROM servers, json_each(?3) AS wanted
WHERE server_id != ?1 AND NOT EXISTS (
    SELECT 1 FROM events, json_each(events.data, '$.unserved') AS unserved
    WHERE events.run_id = ?2 AND events.type = 'run.released' AND unserved.value = wanted.value
      AND events.data ->> 'server_id' = servers.server_id)
LIMIT 1

-- name: has_abandoned_runs
SELECT EXISTS (
    SELECT 1 FROM runs
    WHERE state = 'running' AND parent_run_id IS NULL
      AND (owner IS NULL OR owner NOT IN (SELECT server_id FROM servers)))

-- name: count_owned_runs
SELECT count(*) FROM runs WHERE state = 'running' AND parent_run_id IS NULL AND owner = ?

-- name: owned_runs
SELECT run_id, flow_id, fence FROM runs WHERE state = 'running' AND owner = ?

-- name: insert_server
INSERT INTO servers (server_id, host, pid, holder, started_at, beat_at) VALUES (?, ?, ?, ?, ?, ?)

-- name: beat
UPDATE servers SET beat = beat + 1, beat_at = ? WHERE server_id = ?

-- name: beats
SELECT server_id, beat FROM servers

-- name: count_servers
SELECT count(*) FROM servers

-- name: expel_server
DELETE FROM servers WHERE server_id = ? AND beat = ? RETURNING holder, host, pid

-- name: delete_server
DELETE FROM servers WHERE server_id = ?

-- name: list_servers
SELECT server_id, host, pid, holder, started_at, beat_at,
       (SELECT count(*) FROM runs WHERE state = 'running' AND parent_run_id IS NULL AND owner = server_id) AS runs
FROM servers ORDER BY started_at, server_id

-- name: claimed_run
SELECT run_id, flow_id, version, name, framework, priority, fence, inputs, timeout_s, request, reason, completed,
       created_at, started_at, paused_s, parent_run_id, parent_task, parent_item, rerun_of, state,
       coalesce(output, (SELECT body FROM blobs WHERE digest = output_digest)), error
FROM runs WHERE run_id = ?

-- name: live_children
SELECT run_id, state FROM runs
WHERE parent_run_id = ? AND state IN ('scheduled', 'running', 'waiting', 'paused') ORDER BY seq

-- name: claimed_tasks
SELECT task, item, state, attempts, interruptions, agent,
       coalesce(items, (SELECT body FROM blobs WHERE digest = items_digest)), items_digest, child_run_id,
       started_at, ended_at, wake_at, reason, error,
       coalesce(output, (SELECT body FROM blobs WHERE digest = output_digest)), output_digest, output_bytes, taken_over
FROM tasks WHERE run_id = ?

-- name: insert_task
INSERT INTO tasks (
    task, item, state, attempts, interruptions, agent, items, items_digest, child_run_id, started_at, ended_at, wake_at,
    reason, error, output, output_digest, output_bytes, taken_over, cursor, run_id
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: update_task
UPDATE tasks SET
    state = ?, attempts = ?, interruptions = ?, agent = ?, child_run_id = ?, ended_at = ?, wake_at = ?,
    reason = ?, error = ?, output = ?, output_digest = ?, output_bytes = ?, cursor = ?
WHERE run_id = ? AND task = ? AND item = ? AND state = ?

-- name: advance_run
UPDATE runs SET completed = completed + ?, cursor = ? WHERE run_id = ? AND state = 'running' AND fence = ?

-- name: end_run
UPDATE runs SET state = ?1, owner = NULL, request = NULL, completed = completed + ?2, cursor = ?3, ended_at = ?4,
    slot_s = slot_s + ?4 - coalesce(claimed_at, ?4), error = ?5, failed_tasks = ?6, output = ?7, output_digest = ?8,
    reason = coalesce(?9, reason), wake_at = NULL
WHERE run_id = ?10 AND state = 'running' AND fence = ?11

-- name: park_run
UPDATE runs SET state = 'waiting', owner = NULL, completed = completed + ?1, cursor = ?2, wake_at = ?3,
    slot_s = slot_s + ?4 - coalesce(claimed_at, ?4)
WHERE run_id = ?5 AND state = 'running' AND fence = ?6

-- name: pause_owned_run
UPDATE runs SET state = 'paused', owner = NULL, request = NULL, completed = completed + ?1, cursor = ?2, paused_at = ?3,
    slot_s = slot_s + ?3 - coalesce(claimed_at, ?3), wake_at = ?4
WHERE run_id = ?5 AND state = 'running' AND fence = ?6

-- name: release_run
UPDATE runs SET owner = NULL, cursor = ? WHERE run_id = ? AND state = 'running' AND fence = ?

-- name: due_runs
SELECT run_id, flow_id FROM runs INDEXED BY runs_wake
WHERE state = 'waiting' AND parent_run_id IS NULL AND wake_at <= ? ORDER BY wake_at LIMIT ?

-- name: next_wake
SELECT min(at) FROM (
    SELECT min(wake_at) AS at FROM runs INDEXED BY runs_wake WHERE state = 'waiting' AND parent_run_id IS NULL
    UNION ALL
    SELECT min(deadline) FROM runs WHERE deadline IS NOT NULL AND deadline_missed = 0 AND ended_at IS NULL)

-- name: schedule_run
UPDATE runs SET state = 'scheduled', reason = NULL, cursor = ?, paused_s = paused_s + CASE WHEN paused_at IS NULL OR started_at IS NULL THEN 0 ELSE ? - paused_at END,
    paused_at = NULL
WHERE run_id = ? AND state IN ('waiting', 'paused')

-- name: run_for_request
SELECT state, flow_id, request, parent_run_id, version FROM runs WHERE run_id = ?

-- name: set_request
UPDATE runs SET request = ?, reason = ?, cursor = ? WHERE run_id = ?

-- name: pause_idle_run
UPDATE runs SET state = 'paused', paused_at = ?, reason = ?, cursor = ?, request = NULL
WHERE run_id = ? AND state IN ('scheduled', 'waiting')

-- name: cancel_idle_run
UPDATE runs SET state = 'cancelled', ended_at = ?, reason = ?, cursor = ?, request = NULL, wake_at = NULL, paused_at = NULL,
    blocked = NULL
WHERE run_id = ? AND state IN ('scheduled', 'waiting', 'paused')

-- name: unfinished_tasks
SELECT task, item, state, attempts FROM tasks WHERE run_id = ? AND state IN ('running', 'retrying', 'waiting')

-- name: pending_tasks
WITH definitions AS (
    SELECT definition FROM runs JOIN flow_versions USING (flow_id, version) WHERE run_id = ?1
), parts AS (
    SELECT task.value AS part
    FROM definitions, json_each(definition, '$.stages') AS stage, json_each(stage.value, '$.tasks') AS task
), all_tasks AS (
    SELECT json_extract(part, '$.name') AS name FROM parts
    UNION ALL
    SELECT json_extract(task.value, '$.name') FROM parts, json_each(part, '$.on_failure') AS task
    UNION ALL
    SELECT json_extract(task.value, '$.name') FROM definitions, json_each(definition, '$.on_failure') AS task
)
SELECT name FROM all_tasks
WHERE NOT EXISTS (SELECT 1 FROM tasks WHERE run_id = ?1 AND item = -1 AND task = name)

-- name: cancel_task
UPDATE tasks SET state = 'cancelled', ended_at = ?, reason = ?, wake_at = NULL, cursor = ?
WHERE run_id = ? AND task = ? AND item = ?

-- name: set_queue_key
UPDATE runs SET queue_key = ? WHERE run_id = ?

-- name: requeue_all
SELECT run_id, flow_id, seq, created_at, priority, deadline, estimate_s, demands, version FROM runs
WHERE state IN ('scheduled', 'waiting', 'paused', 'running') AND parent_run_id IS NULL

-- name: run_flow
SELECT flow_id FROM runs WHERE run_id = ?

-- name: run_owner
SELECT owner FROM runs WHERE run_id = ?

-- name: run_fence
SELECT flow_id, fence FROM runs WHERE run_id = ?

-- name: set_run_cursor
UPDATE runs SET cursor = ? WHERE run_id = ?

-- name: count_interruptions
UPDATE tasks SET interruptions = interruptions + 1, agent = NULL
WHERE run_id = ? AND state = 'running' AND agent IS NOT NULL -- an agent says that an attempt is in flight

-- name: read_flow
SELECT flows.flow_id, flows.name, flows.description, flows.version, flows.tags, flows.listed, flows.created_at,
       flows.updated_at, flows.latest_run_id, flow_versions.definition,
       flows.runs
FROM flows JOIN flow_versions ON flow_versions.flow_id = flows.flow_id AND flow_versions.version = coalesce(?, flows.version)
WHERE flows.flow_id = ?

-- name: read_definition
SELECT definition FROM flow_versions WHERE flow_id = ? AND version = ?

-- name: flow_ids
SELECT flow_id FROM flows WHERE listed ORDER BY seq DESC LIMIT 5000

-- name: run_ids
SELECT run_id FROM runs ORDER BY seq DESC LIMIT 1000

-- name: list_flows
SELECT flows.seq, flows.flow_id, flows.name, flows.description, flows.version, flows.tags, flows.created_at,
       flows.updated_at, flows.latest_run_id, flows.runs
FROM flows LEFT JOIN runs AS latest ON latest.run_id = flows.latest_run_id
WHERE flows.listed AND flows.seq < :before
  AND (:status IS NULL OR coalesce(latest.state, 'idle') = :status)
  AND (:tag IS NULL OR EXISTS (SELECT 1 FROM json_each(flows.tags) WHERE value = :tag))
  AND (:search IS NULL OR flows.name LIKE :search ESCAPE '\' OR flows.flow_id LIKE :search ESCAPE '\'
       OR flows.latest_run_id LIKE :search ESCAPE '\'
       OR EXISTS (SELECT 1 FROM json_each(flows.tags) WHERE value LIKE :search ESCAPE '\'))
ORDER BY flows.seq DESC LIMIT :limit

-- name: list_runs
SELECT runs.* FROM runs
WHERE seq < :before AND (:status IS NULL OR state = :status) AND (:flow_id IS NULL OR flow_id = :flow_id)
  AND (:tag IS NULL OR EXISTS (
      SELECT 1 FROM flows, json_each(flows.tags) WHERE flows.flow_id = runs.flow_id AND value = :tag))
  AND (:search IS NULL OR name LIKE :search ESCAPE '\' OR run_id LIKE :search ESCAPE '\'
       OR flow_id LIKE :search ESCAPE '\'
       OR flow_id IN (
           SELECT flows.flow_id FROM flows, json_each(flows.tags) WHERE value LIKE :search ESCAPE '\'))
ORDER BY seq DESC LIMIT :limit

-- name: read_run
SELECT *, coalesce(output, (SELECT body FROM blobs WHERE digest = output_digest)) AS whole_output
FROM runs WHERE run_id = ?

-- name: read_runs
SELECT * FROM runs WHERE run_id IN (SELECT value FROM json_each(?))

-- name: read_tasks
SELECT task, item, state, agent, child_run_id, started_at, ended_at, wake_at, reason, error, output_bytes,
       taken_over, cursor,
       CASE item WHEN -1 THEN ( -- those of a for_each are its items'
           SELECT sum(attempts) FROM tasks AS part WHERE part.run_id = tasks.run_id AND part.task = tasks.task
       ) ELSE attempts END AS attempts
FROM tasks WHERE run_id = ? AND cursor > ?

-- name: read_failed_task
SELECT task, item, attempts, error FROM tasks WHERE run_id = ? AND state = 'failed'
ORDER BY task IS NOT ?, ended_at, item < 0, item LIMIT 1 -- an item goes before the for_each that it failed

-- name: recovery_steps
SELECT attempt, json_extract(data, '$.recovery') AS did FROM events
WHERE run_id = ? AND task = ? AND item IS ? AND type IN ('task.retrying', 'task.failed')
  AND json_extract(data, '$.recovery') IS NOT NULL
ORDER BY seq LIMIT 50

-- name: failure_history -- of a task and kind in the flow's other runs: flow_id, run_id, task, kind, how many runs
WITH recent AS (
    SELECT run_id, rerun_of FROM runs WHERE flow_id = ?1 AND run_id IS NOT ?2 ORDER BY seq DESC LIMIT ?5)
SELECT count(*) AS runs,
       sum(EXISTS (
           SELECT 1 FROM tasks
           WHERE run_id = recent.run_id AND task = ?3 AND state = 'failed' AND json_extract(error, '$.kind') = ?4
       )) AS failed,
       sum(EXISTS (
           SELECT 1 FROM tasks JOIN events USING (run_id, task)
           WHERE run_id = recent.run_id AND task = ?3 AND state = 'completed' AND attempts > 1
             AND type = 'task.retrying' AND json_extract(data, '$.kind') = ?4
             AND coalesce(events.item, -1) = tasks.item
       )) AS mended_by_retry,
       sum(rerun_of IS NOT NULL AND EXISTS (
           SELECT 1 FROM tasks
           WHERE run_id = recent.rerun_of AND task = ?3 AND state = 'failed' AND json_extract(error, '$.kind') = ?4
       ) AND EXISTS (
           SELECT 1 FROM tasks
           WHERE run_id = recent.run_id AND task = ?3 AND item = -1 AND state = 'completed' AND NOT taken_over
       )) AS mended_by_rerun
FROM recent

-- name: read_output
SELECT state, coalesce(output, (SELECT body FROM blobs WHERE digest = output_digest))
FROM tasks WHERE run_id = ? AND task = ? AND item = -1

-- name: read_outputs
SELECT task, coalesce(output, (SELECT body FROM blobs WHERE digest = output_digest)), output_digest, output_bytes
FROM tasks WHERE run_id = ? AND item = -1 AND state = 'completed'

-- name: read_events
SELECT seq, run_id, flow_id, type, task, item, attempt, at, actor, data FROM events WHERE seq > ? ORDER BY seq LIMIT ?

-- name: read_changes
SELECT seq, run_id, flow_id, type FROM events WHERE seq > ? ORDER BY seq LIMIT ?

-- name: read_run_events
SELECT seq, run_id, flow_id, type, task, item, attempt, at, actor, data FROM events
WHERE run_id = ? AND seq > ? ORDER BY seq LIMIT ?

-- name: count_runs -- of those that sub-flows are not: a sub-flow's has no slot of its own
SELECT state, count(*) FROM runs WHERE parent_run_id IS NULL GROUP BY state

-- name: task_figures -- reads all tasks
SELECT state, sum(item = -1) AS tasks, sum(attempts) AS attempts, sum(attempts > 1) AS retried FROM tasks GROUP BY state

-- name: queue_preview
SELECT run_id FROM runs INDEXED BY runs_queue
WHERE state = 'scheduled' AND parent_run_id IS NULL AND blocked IS NULL ORDER BY queue_key, seq LIMIT ?

-- name: queue_rows -- in the order in which they will start: how many
SELECT runs.* FROM runs INDEXED BY runs_queue
WHERE state = 'scheduled' AND parent_run_id IS NULL AND blocked IS NULL ORDER BY queue_key, seq LIMIT ?

-- name: held_rows -- kept out of the queue, those first that waited longest: how many
SELECT runs.* FROM runs INDEXED BY runs_blocked
WHERE state = 'scheduled' AND parent_run_id IS NULL AND blocked IS NOT NULL ORDER BY seq LIMIT ?

-- name: count_held
SELECT count(*) FROM runs INDEXED BY runs_blocked
WHERE state = 'scheduled' AND parent_run_id IS NULL AND blocked IS NOT NULL

-- name: queue_place
SELECT count(*) FROM runs AS ahead, runs AS mine
WHERE mine.run_id = ? AND ahead.state = 'scheduled' AND ahead.parent_run_id IS NULL AND ahead.blocked IS NULL
  AND (ahead.queue_key, ahead.seq) < (mine.queue_key, mine.seq)

-- name: duration_stats
SELECT count(*), avg(ended_at - started_at), max(ended_at - started_at) FROM runs
WHERE state = 'completed' AND started_at IS NOT NULL AND parent_run_id IS NULL

-- name: failure_figures -- in the latest entries of the journal: how many
SELECT type, coalesce(json_extract(data, '$.kind'), json_extract(data, '$.error.kind')) AS kind,
       json_extract(data, '$.agent') AS agent, json_extract(data, '$.tools') AS tools, count(*) AS number
FROM events
WHERE seq > (SELECT seq FROM sqlite_sequence WHERE name = 'events') - ?
  AND (type = 'run.failed' OR (type = 'task.running' AND attempt IS NOT NULL)
       OR (type IN ('task.retrying', 'task.failed') AND json_extract(data, '$.agent') IS NOT NULL))
GROUP BY 1, 2, 3, 4

-- name: entry_time -- of the first of the latest entries of the journal: how many
SELECT at FROM events WHERE seq > (SELECT seq FROM sqlite_sequence WHERE name = 'events') - ? ORDER BY seq LIMIT 1

-- name: waits -- of runs that have started, from their submission: how many
SELECT * FROM (
    SELECT started_at - created_at FROM runs
    WHERE state = 'running' AND parent_run_id IS NULL ORDER BY seq DESC LIMIT ?1)
UNION ALL
SELECT * FROM (
    SELECT started_at - created_at FROM runs
    WHERE ended_at IS NOT NULL AND started_at IS NOT NULL AND parent_run_id IS NULL ORDER BY ended_at DESC LIMIT ?1)

-- name: oldest_queued
SELECT created_at FROM runs WHERE state = 'scheduled' AND parent_run_id IS NULL ORDER BY seq LIMIT 1

-- name: prunable
SELECT run_id FROM runs
WHERE ended_at IS NOT NULL AND parent_run_id IS NULL AND (ended_at < ? OR seq <= ?)
ORDER BY ended_at LIMIT ?

-- name: keep_line
SELECT seq FROM runs WHERE ended_at IS NOT NULL AND parent_run_id IS NULL ORDER BY seq DESC LIMIT 1 OFFSET ?

-- name: children
SELECT run_id FROM runs WHERE parent_run_id = ?

-- name: last_of_run
SELECT max(seq) FROM events WHERE run_id = ?

-- name: delete_events
DELETE FROM events WHERE run_id = ?

-- name: delete_tasks
DELETE FROM tasks WHERE run_id = ?

-- name: forget_latest
UPDATE flows SET latest_run_id = (
    SELECT run_id FROM runs
    WHERE runs.flow_id = flows.flow_id AND parent_run_id IS NULL AND run_id != ?1 ORDER BY seq DESC LIMIT 1)
WHERE flow_id = (SELECT flow_id FROM runs WHERE run_id = ?1) AND latest_run_id = ?1

-- name: delete_run
DELETE FROM runs WHERE run_id = ?

-- name: delete_orphan_blobs
DELETE FROM blobs WHERE
    NOT EXISTS (SELECT 1 FROM tasks WHERE tasks.output_digest = blobs.digest)
    AND NOT EXISTS (SELECT 1 FROM tasks WHERE tasks.items_digest = blobs.digest)
    AND NOT EXISTS (SELECT 1 FROM runs WHERE runs.output_digest = blobs.digest)
    AND NOT EXISTS (SELECT 1 FROM cache WHERE cache.output_digest = blobs.digest)

-- name: prunable_flows
SELECT flow_id FROM flows
WHERE NOT listed AND (updated_at < ? OR seq <= ?)
  AND NOT EXISTS (SELECT 1 FROM runs WHERE runs.flow_id = flows.flow_id)
  AND NOT EXISTS (SELECT 1 FROM triggers WHERE triggers.flow_id = flows.flow_id)
  AND flow_id NOT IN ( -- that another flow runs as its sub-flow
      SELECT value FROM flow_versions AS saved, json_tree(saved.definition)
      WHERE instr(saved.definition, '"flow_id"') AND key = 'flow_id' AND type = 'text')
ORDER BY seq LIMIT ?

-- name: keep_line_of_flows
SELECT seq FROM flows WHERE NOT listed ORDER BY seq DESC LIMIT 1 OFFSET ?

-- name: delete_versions
DELETE FROM flow_versions WHERE flow_id = ?

-- name: delete_flow
DELETE FROM flows WHERE flow_id = ?

-- name: delete_entries_of_no_run
DELETE FROM events WHERE seq IN (
    SELECT seq FROM events WHERE run_id IS NULL AND (at < ? OR seq <= ?) ORDER BY seq LIMIT ?)
RETURNING seq

-- name: keep_line_of_entries
SELECT seq FROM events WHERE run_id IS NULL ORDER BY seq DESC LIMIT 1 OFFSET ?

-- name: awaited_children
SELECT runs.run_id, runs.state FROM runs JOIN tasks ON tasks.run_id = runs.parent_run_id AND tasks.child_run_id = runs.run_id
WHERE runs.parent_run_id = ? AND tasks.state = 'waiting' ORDER BY runs.seq

-- name: forget_attempts
UPDATE tasks SET attempts = attempts - 1, agent = NULL WHERE run_id = ? AND state = 'running' AND agent IS NOT NULL

-- name: count_queued
SELECT count(*) FROM runs WHERE state = 'scheduled' AND parent_run_id IS NULL

-- name: flow_version
SELECT version FROM flows WHERE flow_id = ?

-- name: insert_dependency
INSERT INTO dependencies (run_id, on_id, on_run_id, on_failure, ended) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (run_id, on_id) DO NOTHING

-- name: bind_dependencies
UPDATE dependencies SET on_run_id = ? WHERE on_id = ? AND on_run_id IS NULL

-- name: dependency_run
SELECT run_id, state FROM runs WHERE run_id = ?

-- name: flow_latest
SELECT latest_run_id FROM flows WHERE flow_id = ?

-- name: open_dependencies
SELECT on_run_id FROM dependencies WHERE run_id = ? AND is_open = 1 AND ended IS NULL AND on_run_id IS NOT NULL

-- name: runs_with_ended_dependencies
SELECT DISTINCT dependencies.run_id
FROM dependencies INDEXED BY dependencies_ended CROSS JOIN runs ON runs.run_id = dependencies.run_id
WHERE dependencies.ended IS NOT NULL AND is_open = 1 AND runs.state = 'scheduled' LIMIT ?

-- name: failed_dependency
SELECT on_id, ended FROM dependencies
WHERE run_id = ? AND is_open = 1 AND ended IN ('failed', 'cancelled') AND on_failure = 'fail' LIMIT 1

-- name: close_dependencies
UPDATE dependencies SET is_open = 0 WHERE run_id = ? AND ended IS NOT NULL

-- name: has_open_dependency
SELECT 1 FROM dependencies WHERE run_id = ? AND is_open = 1 LIMIT 1

-- name: read_dependencies
SELECT on_id, on_run_id, on_failure, ended, is_open FROM dependencies WHERE run_id = ?

-- name: delete_dependencies
DELETE FROM dependencies WHERE run_id = ?

-- name: unblock_run
UPDATE runs SET blocked = NULL WHERE run_id = ? AND blocked = ?

-- name: block_run
UPDATE runs SET blocked = ? WHERE run_id = ?

-- name: any_blocked
SELECT 1 FROM runs WHERE blocked IS NOT NULL LIMIT 1

-- name: blocking_limits -- one step in the index for each, however many runs it keeps back
WITH RECURSIVE keys (blocked) AS (
    SELECT min(blocked) FROM runs INDEXED BY runs_blocked WHERE blocked IS NOT NULL
    UNION ALL
    SELECT (SELECT min(runs.blocked) FROM runs INDEXED BY runs_blocked WHERE runs.blocked > keys.blocked)
    FROM keys WHERE blocked IS NOT NULL)
SELECT blocked FROM keys WHERE blocked IS NOT NULL AND blocked != 'dependencies'

-- name: unblock_first
UPDATE runs SET blocked = NULL WHERE run_id IN (
    SELECT run_id FROM runs WHERE blocked = ? AND state = 'scheduled' ORDER BY queue_key, seq LIMIT ?)

-- name: queue_window
SELECT run_id, flow_id, seq, created_at, priority, deadline, estimate_s, demands, version
FROM runs INDEXED BY runs_queue
WHERE state = 'scheduled' AND parent_run_id IS NULL AND blocked IS NULL ORDER BY queue_key, seq LIMIT ?

-- name: slot_holders
SELECT run_id, started_at, estimate_s, demands, owner FROM runs WHERE state = 'running' AND parent_run_id IS NULL

-- name: flow_slots
SELECT count(*) FROM runs INDEXED BY runs_flow_active WHERE state = 'running' AND parent_run_id IS NULL AND flow_id = ?

-- name: tag_slots
SELECT count(*) FROM runs JOIN flows USING (flow_id)
WHERE runs.state = 'running' AND runs.parent_run_id IS NULL
  AND EXISTS (SELECT 1 FROM json_each(flows.tags) WHERE value = ?)

-- name: flow_tags
SELECT value FROM flows, json_each(flows.tags) WHERE flow_id = ?

-- name: read_limits
SELECT kind, name, size FROM limits

-- name: any_limit
SELECT 1 FROM limits WHERE kind IN ('flow', 'tag') LIMIT 1

-- name: put_limit
INSERT INTO limits (kind, name, size) VALUES (?, ?, ?) ON CONFLICT (kind, name) DO UPDATE SET size = excluded.size

-- name: drop_limit
DELETE FROM limits WHERE kind = ? AND name = ?

-- name: due_deadlines
SELECT run_id, flow_id, deadline, on_deadline FROM runs
WHERE deadline <= ? AND deadline_missed = 0 AND ended_at IS NULL ORDER BY deadline LIMIT ?

-- name: miss_deadline
UPDATE runs SET deadline_missed = 1, cursor = ? WHERE run_id = ?

-- name: fail_idle_run
UPDATE runs SET state = 'failed', ended_at = ?, reason = ?, cursor = ?, error = ?, request = NULL, wake_at = NULL,
    paused_at = NULL, blocked = NULL
WHERE run_id = ? AND state = 'scheduled'

-- name: run_durations
SELECT version, ended_at - started_at - paused_s, slot_s FROM runs INDEXED BY runs_flow_ended
WHERE flow_id = ? AND state = 'completed' AND ended_at IS NOT NULL AND rerun_of IS NULL ORDER BY seq DESC LIMIT ?

-- name: task_durations
SELECT tasks.task, tasks.ended_at - tasks.started_at
FROM (
    SELECT run_id, seq FROM runs WHERE flow_id = ?1 AND state = 'completed' AND ended_at IS NOT NULL
    UNION ALL
    SELECT run_id, seq FROM runs WHERE flow_id = ?1 AND state = 'failed' AND ended_at IS NOT NULL
    UNION ALL
    SELECT run_id, seq FROM runs WHERE flow_id = ?1 AND state = 'cancelled' AND ended_at IS NOT NULL
    ORDER BY seq DESC LIMIT ?2) AS latest
JOIN tasks USING (run_id)
WHERE tasks.state = 'completed' AND tasks.item = -1 AND tasks.taken_over = 0 AND tasks.started_at IS NOT NULL

-- name: running_for_forecast
SELECT run_id, flow_id, version, created_at, started_at, priority, deadline, estimate_s, demands FROM runs
WHERE state = 'running' AND parent_run_id IS NULL

-- name: history_for_forecast
SELECT run_id, created_at, slot_s, priority, deadline, estimate_s, demands FROM runs
WHERE ended_at IS NOT NULL AND started_at IS NOT NULL AND parent_run_id IS NULL ORDER BY seq DESC LIMIT ?

-- name: limit_holders
SELECT run_id FROM runs JOIN flows USING (flow_id)
WHERE runs.state = 'running' AND runs.parent_run_id IS NULL
  AND ((? = 'flow' AND flow_id = ?) OR (? = 'tag' AND EXISTS (SELECT 1 FROM json_each(flows.tags) WHERE value = ?)))
LIMIT ?

-- name: put_cached
INSERT INTO cache (key, run_id, output, output_digest, output_bytes, recorded_at, expires_at)
VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (key) DO UPDATE SET
    run_id = excluded.run_id, output = excluded.output, output_digest = excluded.output_digest,
    output_bytes = excluded.output_bytes, recorded_at = excluded.recorded_at, expires_at = excluded.expires_at

-- name: find_cached
SELECT run_id, coalesce(output, (SELECT body FROM blobs WHERE digest = output_digest)) AS body, output_digest,
       output_bytes, recorded_at
FROM cache WHERE key = ? AND recorded_at >= ?

-- name: count_cache_hits
INSERT INTO settings (key, value) VALUES ('cache_hits', CAST(?1 AS TEXT))
ON CONFLICT (key) DO UPDATE SET value = CAST(CAST(value AS INTEGER) + ?1 AS TEXT)

-- name: cache_figures
SELECT coalesce((SELECT CAST(value AS INTEGER) FROM settings WHERE key = 'cache_hits'), 0), (SELECT count(*) FROM cache)

-- name: delete_cached
DELETE FROM cache WHERE key IN (SELECT key FROM cache WHERE expires_at < ? LIMIT ?) RETURNING key

-- name: free_mirrors
SELECT run_id FROM mirrors
WHERE server_id IS NULL OR (server_id IS NOT ?1 AND server_id NOT IN (SELECT server_id FROM servers)) LIMIT ?2

-- name: take_mirror
UPDATE mirrors SET server_id = ?1
WHERE run_id = ?2 AND (server_id IS NULL OR server_id NOT IN (SELECT server_id FROM servers))

-- name: is_mirrored_by
SELECT 1 FROM mirrors WHERE run_id = ? AND server_id = ?

-- name: end_mirror
DELETE FROM mirrors WHERE run_id = ? AND server_id = ?

-- name: delete_mirror
DELETE FROM mirrors WHERE run_id = ?

-- name: mirrored_run
SELECT runs.run_id, runs.flow_id, runs.version, runs.name, runs.inputs, runs.parent_run_id, runs.parent_task,
       runs.parent_item, runs.rerun_of, flows.tags,
       EXISTS (SELECT 1 FROM events WHERE events.run_id = runs.run_id AND type = 'run.mirrored') AS is_told
FROM runs JOIN flows ON flows.flow_id = runs.flow_id WHERE runs.run_id = ?

-- name: add_usage
INSERT INTO model_usage (run_id, model, calls, input_tokens, output_tokens, cost_usd)
VALUES (?1, coalesce(?2, ''), coalesce(?6, 1), coalesce(?3, 0), coalesce(?4, 0), ?5)
ON CONFLICT (run_id, model) DO UPDATE SET
    calls = min(calls + excluded.calls, 9007199254740992),
    input_tokens = min(input_tokens + excluded.input_tokens, 9007199254740992),
    output_tokens = min(output_tokens + excluded.output_tokens, 9007199254740992),
    cost_usd = CASE WHEN cost_usd IS NULL AND excluded.cost_usd IS NULL THEN NULL
        ELSE coalesce(cost_usd, 0) + coalesce(excluded.cost_usd, 0) END

-- name: usage_of_run
SELECT model, calls, input_tokens, output_tokens, cost_usd FROM model_usage WHERE run_id = ? ORDER BY model

-- name: usage_by_model
SELECT model, sum(calls) AS calls, sum(input_tokens) AS input_tokens, sum(output_tokens) AS output_tokens,
       sum(cost_usd) AS cost_usd
FROM model_usage GROUP BY model ORDER BY model

-- name: delete_usage
DELETE FROM model_usage WHERE run_id = ?

-- name: ended_mirrors
SELECT mirrors.run_id FROM mirrors JOIN runs ON runs.run_id = mirrors.run_id
WHERE mirrors.server_id = ? AND runs.ended_at IS NOT NULL

-- name: monitor_url
SELECT data ->> 'url' FROM events WHERE run_id = ? AND type = 'run.mirrored' ORDER BY seq DESC LIMIT 1
