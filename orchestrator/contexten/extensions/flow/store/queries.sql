-- Every statement but the migrations. Loaded by name; `?` are bound in order.

-- name: last_event
SELECT seq FROM sqlite_sequence WHERE name = 'events'

-- name: group_start
SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'events'), 0), user_version FROM pragma_user_version

-- name: insert_event
INSERT INTO events (seq, run_id, flow_id, type, task, item, attempt, at, actor, data)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: setting
SELECT value FROM settings WHERE key = ?

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
    request_digest, rerun_of, parent_run_id, parent_task, parent_item, completed, total, cursor, created_at
) VALUES (?, ?, ?, ?, 'scheduled', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: count_slots
SELECT count(*) FROM runs WHERE state = 'running' AND parent_run_id IS NULL

-- name: queue_head
SELECT run_id FROM runs WHERE state = 'scheduled' AND parent_run_id IS NULL ORDER BY queue_key, seq LIMIT ?

-- name: claim_run
UPDATE runs SET state = 'running', owner = ?, fence = fence + 1, started_at = coalesce(started_at, ?), wake_at = NULL
WHERE run_id = ? AND state = 'scheduled'

-- name: take_over_run
UPDATE runs SET owner = ?, fence = fence + 1 WHERE run_id = ? AND state = 'running' AND owner IS NOT ?

-- name: abandoned_runs
SELECT run_id, owner FROM runs WHERE state = 'running' AND parent_run_id IS NULL AND owner IS NOT ? ORDER BY seq

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
UPDATE runs SET state = ?, owner = NULL, request = NULL, completed = completed + ?, cursor = ?, ended_at = ?, error = ?,
    failed_tasks = ?, output = ?, output_digest = ?, reason = coalesce(?, reason), wake_at = NULL
WHERE run_id = ? AND state = 'running' AND fence = ?

-- name: park_run
UPDATE runs SET state = 'waiting', owner = NULL, completed = completed + ?, cursor = ?, wake_at = ?
WHERE run_id = ? AND state = 'running' AND fence = ?

-- name: pause_owned_run
UPDATE runs SET state = 'paused', owner = NULL, request = NULL, completed = completed + ?, cursor = ?, paused_at = ?,
    wake_at = ?
WHERE run_id = ? AND state = 'running' AND fence = ?

-- name: release_run
UPDATE runs SET owner = NULL, cursor = ? WHERE run_id = ? AND state = 'running' AND fence = ?

-- name: due_runs
SELECT run_id, flow_id FROM runs WHERE state = 'waiting' AND parent_run_id IS NULL AND wake_at <= ? ORDER BY wake_at

-- name: next_wake
SELECT min(wake_at) FROM runs WHERE state = 'waiting' AND parent_run_id IS NULL

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
UPDATE runs SET state = 'cancelled', ended_at = ?, reason = ?, cursor = ?, request = NULL, wake_at = NULL, paused_at = NULL
WHERE run_id = ? AND state IN ('scheduled', 'waiting', 'paused')

-- name: unfinished_tasks
SELECT task, item, state, attempts FROM tasks WHERE run_id = ? AND state IN ('running', 'retrying', 'waiting')

-- name: pending_tasks
SELECT json_extract(task.value, '$.name')
FROM runs JOIN flow_versions USING (flow_id, version),
     json_each(flow_versions.definition, '$.stages') AS stage, json_each(stage.value, '$.tasks') AS task
WHERE runs.run_id = ?1
  AND NOT EXISTS (
      SELECT 1 FROM tasks WHERE tasks.run_id = ?1 AND item = -1 AND tasks.task = json_extract(task.value, '$.name'))

-- name: cancel_task
UPDATE tasks SET state = 'cancelled', ended_at = ?, reason = ?, wake_at = NULL, cursor = ?
WHERE run_id = ? AND task = ? AND item = ?

-- name: set_queue_key
UPDATE runs SET queue_key = ? WHERE run_id = ?

-- name: requeue_all
SELECT run_id, priority, created_at FROM runs WHERE state IN ('scheduled', 'waiting', 'paused', 'running') AND parent_run_id IS NULL

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
ORDER BY flows.seq DESC LIMIT :limit

-- name: list_runs
SELECT runs.* FROM runs
WHERE seq < :before AND (:status IS NULL OR state = :status) AND (:flow_id IS NULL OR flow_id = :flow_id)
  AND (:tag IS NULL OR EXISTS (
      SELECT 1 FROM flows, json_each(flows.tags) WHERE flows.flow_id = runs.flow_id AND value = :tag))
ORDER BY seq DESC LIMIT :limit

-- name: read_run
SELECT *, coalesce(output, (SELECT body FROM blobs WHERE digest = output_digest)) AS whole_output
FROM runs WHERE run_id = ?

-- name: read_runs
SELECT * FROM runs WHERE run_id IN (SELECT value FROM json_each(?))

-- name: read_tasks
SELECT task, item, state, attempts, agent, child_run_id, started_at, ended_at, wake_at, reason, error, output_bytes,
       taken_over, cursor
FROM tasks WHERE run_id = ? AND cursor > ?

-- name: read_failed_task
SELECT task, item, attempts, error FROM tasks WHERE run_id = ? AND state = 'failed' ORDER BY ended_at, item LIMIT 20

-- name: read_output
SELECT state, coalesce(output, (SELECT body FROM blobs WHERE digest = output_digest))
FROM tasks WHERE run_id = ? AND task = ? AND item = -1

-- name: read_outputs
SELECT task, coalesce(output, (SELECT body FROM blobs WHERE digest = output_digest)), output_digest, output_bytes
FROM tasks WHERE run_id = ? AND item = -1 AND state = 'completed'

-- name: read_events
SELECT seq, run_id, flow_id, type, task, item, attempt, at, actor, data FROM events WHERE seq > ? ORDER BY seq LIMIT ?

-- name: read_run_events
SELECT seq, run_id, flow_id, type, task, item, attempt, at, actor, data FROM events
WHERE run_id = ? AND seq > ? ORDER BY seq LIMIT ?

-- name: count_runs
SELECT state, count(*) FROM runs GROUP BY state

-- name: count_tasks
SELECT state, count(*) FROM tasks WHERE item = -1 GROUP BY state

-- name: queue_preview
SELECT run_id FROM runs WHERE state = 'scheduled' AND parent_run_id IS NULL ORDER BY queue_key, seq LIMIT ?

-- name: queue_place
SELECT count(*) FROM runs AS ahead, runs AS mine
WHERE mine.run_id = ? AND ahead.state = 'scheduled' AND ahead.parent_run_id IS NULL
  AND (ahead.queue_key, ahead.seq) < (mine.queue_key, mine.seq)

-- name: duration_stats
SELECT count(*), avg(ended_at - started_at), max(ended_at - started_at) FROM runs
WHERE state = 'completed' AND started_at IS NOT NULL

-- name: retry_stats
SELECT coalesce(sum(attempts), 0), coalesce(sum(attempts > 1), 0) FROM tasks

-- name: prunable
SELECT run_id FROM runs
WHERE ended_at IS NOT NULL AND parent_run_id IS NULL AND (ended_at < ? OR seq <= ?)
ORDER BY ended_at LIMIT ?

-- name: keep_line
SELECT seq FROM runs WHERE ended_at IS NOT NULL AND parent_run_id IS NULL ORDER BY seq DESC LIMIT 1 OFFSET ?

-- name: children
SELECT run_id FROM runs WHERE parent_run_id = ?

-- name: delete_events
DELETE FROM events WHERE run_id = ?

-- name: delete_tasks
DELETE FROM tasks WHERE run_id = ?

-- name: forget_latest
UPDATE flows SET latest_run_id = NULL WHERE latest_run_id = ?

-- name: delete_run
DELETE FROM runs WHERE run_id = ?

-- name: delete_orphan_blobs
DELETE FROM blobs WHERE
    NOT EXISTS (SELECT 1 FROM tasks WHERE tasks.output_digest = blobs.digest)
    AND NOT EXISTS (SELECT 1 FROM tasks WHERE tasks.items_digest = blobs.digest)
    AND NOT EXISTS (SELECT 1 FROM runs WHERE runs.output_digest = blobs.digest)

-- name: verify_runs
SELECT run_id, state, total, completed FROM runs ORDER BY seq

-- name: verify_tasks
SELECT run_id, task, item, state, reason FROM tasks ORDER BY run_id

-- name: verify_events
SELECT run_id, type, task, item, attempt FROM events
WHERE run_id IS NOT NULL AND (type LIKE 'run.%' OR type LIKE 'task.%') ORDER BY run_id, seq

-- name: awaited_children
SELECT runs.run_id, runs.state FROM runs JOIN tasks ON tasks.run_id = runs.parent_run_id AND tasks.child_run_id = runs.run_id
WHERE runs.parent_run_id = ? AND tasks.state = 'waiting' ORDER BY runs.seq

-- name: forget_attempts
UPDATE tasks SET attempts = attempts - 1, agent = NULL WHERE run_id = ? AND state = 'running' AND agent IS NOT NULL

-- name: count_queued
SELECT count(*) FROM runs WHERE state = 'scheduled' AND parent_run_id IS NULL

-- name: flow_version
SELECT version FROM flows WHERE flow_id = ?
