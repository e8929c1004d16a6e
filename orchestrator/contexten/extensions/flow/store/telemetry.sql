-- What is measured of the database, and read to tell a run's story.

-- name: unfinished_runs -- by state, without those of sub-flows
SELECT state, count(*) FROM runs INDEXED BY runs_state
WHERE state IN ('scheduled', 'running', 'waiting', 'paused') AND parent_run_id IS NULL GROUP BY state

-- name: unsent_dispatches -- by state
SELECT state, count(*) FROM dispatches INDEXED BY dispatches_unsent WHERE state != 'sent' GROUP BY state

-- name: gauges
SELECT (SELECT created_at FROM runs WHERE state = 'scheduled' AND parent_run_id IS NULL ORDER BY seq LIMIT 1)
           AS oldest_queued,
       (SELECT count(*) FROM servers) AS servers,
       (SELECT count(*) FROM deliveries WHERE state = 'accepted') AS deliveries_waiting,
       coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'events'), 0) AS events

-- name: story_run -- that has ended and is no sub-flow's
SELECT run_id, flow_id, version, state, ended_at, error ->> 'kind' AS kind FROM runs
WHERE run_id = ? AND ended_at IS NOT NULL AND parent_run_id IS NULL

-- name: story_children
SELECT run_id, flow_id, version, state, ended_at, error ->> 'kind' AS kind, parent_task, parent_item FROM runs
WHERE parent_run_id = ? AND ended_at IS NOT NULL ORDER BY seq

-- name: story_events -- of one run, without what its tasks logged: how many
SELECT seq, run_id, flow_id, type, task, item, attempt, at, actor, data FROM events
WHERE run_id = ? AND type != 'task.log' ORDER BY seq LIMIT ?

-- name: story_agents
SELECT task, item, agent FROM tasks WHERE run_id = ?
