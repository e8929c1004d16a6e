-- name: verify_runs
SELECT run_id, state, completed FROM runs ORDER BY run_id

-- name: verify_tasks
SELECT run_id, task, item, state, reason FROM tasks ORDER BY run_id

-- name: verify_events
SELECT run_id, type, task, item FROM events
WHERE run_id IS NOT NULL AND (type LIKE 'run.%' OR type LIKE 'task.%') ORDER BY run_id, seq

-- name: verify_deliveries
SELECT delivery_id, state FROM deliveries ORDER BY delivery_id

-- name: verify_delivery_events -- without those of a trigger that was deleted after them; whether it is there
WITH
    told AS (
        SELECT seq, type, data ->> '$.delivery_id' AS delivery_id, data ->> '$.trigger_id' AS trigger_id FROM events
        WHERE type IN (
            'trigger.delivered', 'trigger.redelivered', 'trigger.started', 'trigger.filtered', 'trigger.failed')),
    deletions AS MATERIALIZED (
        SELECT data ->> '$.trigger_id' AS trigger_id, max(seq) AS seq FROM events
        WHERE type = 'trigger.deleted' GROUP BY 1)
SELECT delivery_id, type, trigger_id IN (SELECT trigger_id FROM triggers)
FROM told LEFT JOIN deletions USING (trigger_id)
WHERE told.seq > coalesce(deletions.seq, 0) ORDER BY delivery_id, told.seq

-- name: verify_consumers -- those that claim to have read what the journal has not reached
SELECT name, place FROM consumers WHERE place > (SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'events')

-- name: verify_tables
SELECT name FROM sqlite_master WHERE type = 'table'
