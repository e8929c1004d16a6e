-- History: what ended, over a span of time. :most bounds the runs that are looked at, those that ended last.
-- A percentile is the nearest rank: the least value that so many of a hundred do not exceed.

-- name: history_of_runs -- by flow, by day (UTC) or by the kind of error that failed them; sub-flows count to their root
WITH RECURSIVE ended AS MATERIALIZED (
    SELECT run_id, flow_id, state, ended_at,
           max(ended_at - started_at, 0) AS duration_s, max(started_at - created_at, 0) AS wait_s
    FROM runs INDEXED BY runs_ended
    WHERE ended_at IS NOT NULL AND ended_at >= :since AND ended_at < :until AND parent_run_id IS NULL
      AND (:flow_id IS NULL OR flow_id = :flow_id)
    ORDER BY ended_at DESC LIMIT :most
), failed AS MATERIALIZED (
    SELECT ended.run_id, coalesce(runs.error ->> 'kind', 'unknown') AS kind
    FROM ended JOIN runs ON runs.run_id = ended.run_id WHERE ended.state = 'failed'
), keyed AS MATERIALIZED (
    SELECT ended.*, kind,
           CASE :by WHEN 'flow' THEN flow_id WHEN 'day' THEN date(ended_at, 'unixepoch') ELSE kind END AS key
    FROM ended LEFT JOIN failed USING (run_id)
), ranked AS (
    SELECT key, state, duration_s, wait_s,
           count(duration_s) OVER (PARTITION BY key) AS started,
           row_number() OVER (PARTITION BY key ORDER BY duration_s IS NULL, duration_s) AS by_duration,
           row_number() OVER (PARTITION BY key ORDER BY wait_s IS NULL, wait_s) AS by_wait
    FROM keyed WHERE key IS NOT NULL
), shown AS MATERIALIZED (
    SELECT key, count(*) AS runs, sum(state = 'completed') AS completed, sum(state = 'failed') AS failed,
           sum(state = 'cancelled') AS cancelled,
           max(CASE WHEN by_duration = (started * 50 + 99) / 100 THEN duration_s END) AS p50_s,
           max(CASE WHEN by_duration = (started * 95 + 99) / 100 THEN duration_s END) AS p95_s,
           max(CASE WHEN by_wait = (started * 50 + 99) / 100 THEN wait_s END) AS wait_p50_s,
           max(CASE WHEN by_wait = (started * 95 + 99) / 100 THEN wait_s END) AS wait_p95_s
    FROM ranked GROUP BY key
    ORDER BY CASE :by WHEN 'day' THEN key END DESC, runs DESC, key LIMIT :limit
), family (run_id, key) AS MATERIALIZED (
    SELECT run_id, key FROM keyed WHERE key IN (SELECT key FROM shown)
    UNION ALL
    SELECT runs.run_id, family.key FROM family JOIN runs ON runs.parent_run_id = family.run_id
), retried AS MATERIALIZED (
    SELECT key, sum(attempts - 1) AS retries
    FROM family JOIN tasks INDEXED BY tasks_retried ON tasks.run_id = family.run_id AND attempts > 1 GROUP BY key
), used AS MATERIALIZED (
    SELECT key, sum(input_tokens) AS input_tokens, sum(output_tokens) AS output_tokens, sum(cost_usd) AS cost_usd
    FROM family JOIN model_usage USING (run_id) GROUP BY key
), failures AS MATERIALIZED (
    SELECT key, json_group_object(kind, number) AS failures
    FROM (SELECT key, kind, count(*) AS number FROM keyed WHERE kind IS NOT NULL GROUP BY key, kind ORDER BY 3 DESC, 2)
    GROUP BY key
)
SELECT shown.*, coalesce(retries, 0) AS retries, input_tokens, output_tokens, cost_usd, failures,
       (SELECT count(*) FROM ended) >= :most AS is_cut
FROM shown LEFT JOIN retried USING (key) LEFT JOIN used USING (key) LEFT JOIN failures USING (key)

-- name: history_of_tasks -- by the agent that tried last, or by each tool required; at most :most_tasks of the latest runs
WITH RECURSIVE ended AS MATERIALIZED (
    SELECT run_id FROM runs INDEXED BY runs_ended
    WHERE ended_at IS NOT NULL AND ended_at >= :since AND ended_at < :until AND (:flow_id IS NULL OR flow_id = :flow_id)
    ORDER BY ended_at DESC LIMIT :most
), tried AS MATERIALIZED (
    SELECT tasks.run_id, task, item, state, agent, attempts, max(ended_at - started_at, 0) AS duration_s,
           CASE WHEN state = 'failed' THEN coalesce(error ->> 'kind', 'unknown') END AS kind
    FROM ended CROSS JOIN tasks USING (run_id)
    WHERE agent IS NOT NULL AND attempts > 0 AND ended_at IS NOT NULL AND taken_over = 0
    LIMIT :most_tasks
), parts AS (
    SELECT flow_id, version, task.value AS part
    FROM flow_versions, json_each(definition, '$.stages') AS stage, json_each(stage.value, '$.tasks') AS task
    WHERE :by = 'tool' AND (:flow_id IS NULL OR flow_id = :flow_id)
), definitions AS (
    SELECT flow_id, version, part FROM parts
    UNION ALL
    SELECT flow_id, version, task.value FROM parts, json_each(part, '$.on_failure') AS task
    UNION ALL
    SELECT flow_id, version, task.value FROM flow_versions, json_each(definition, '$.on_failure') AS task
    WHERE :by = 'tool' AND (:flow_id IS NULL OR flow_id = :flow_id)
), required AS MATERIALIZED (
    SELECT DISTINCT flow_id, version, part ->> 'name' AS task, tool.value AS tool
    FROM definitions, json_each(part, '$.required_tools') AS tool
), keyed AS MATERIALIZED (
    SELECT tried.*, agent AS key FROM tried WHERE :by = 'agent'
    UNION ALL
    SELECT tried.*, tool FROM tried CROSS JOIN runs USING (run_id) JOIN required USING (flow_id, version, task)
    WHERE :by = 'tool'
), ranked AS (
    SELECT *, count(duration_s) OVER (PARTITION BY key) AS started,
           row_number() OVER (PARTITION BY key ORDER BY duration_s IS NULL, duration_s) AS by_duration
    FROM keyed
), shown AS MATERIALIZED (
    SELECT key, count(*) AS tasks, sum(attempts) AS attempts, sum(state = 'completed') AS completed,
           sum(state = 'failed') AS failed, sum(state = 'cancelled') AS cancelled,
           max(CASE WHEN by_duration = (started * 50 + 99) / 100 THEN duration_s END) AS p50_s,
           max(CASE WHEN by_duration = (started * 95 + 99) / 100 THEN duration_s END) AS p95_s,
           sum(attempts - 1) AS retries
    FROM ranked GROUP BY key ORDER BY tasks DESC, key LIMIT :limit
), used AS MATERIALIZED (
    SELECT key, sum(data ->> 'input_tokens') AS input_tokens, sum(data ->> 'output_tokens') AS output_tokens,
           sum(data ->> 'cost_usd') AS cost_usd
    FROM events INDEXED BY events_usage JOIN keyed
      ON keyed.run_id = events.run_id AND keyed.task = events.task AND keyed.item = coalesce(events.item, -1)
    WHERE type = 'task.usage' GROUP BY key
), failures AS MATERIALIZED (
    SELECT key, json_group_object(kind, number) AS failures
    FROM (SELECT key, kind, count(*) AS number FROM keyed WHERE kind IS NOT NULL GROUP BY key, kind ORDER BY 3 DESC, 2)
    GROUP BY key
)
SELECT shown.*, NULL AS wait_p50_s, NULL AS wait_p95_s, input_tokens, output_tokens, cost_usd, failures,
       (SELECT count(*) FROM ended) >= :most OR (SELECT count(*) FROM tried) >= :most_tasks AS is_cut
FROM shown LEFT JOIN used USING (key) LEFT JOIN failures USING (key)

-- name: export_runs -- a page, in the order of their submission
SELECT seq, run_id, flow_id, version, name, state, framework, priority, created_at, started_at, ended_at, completed,
       total, reason, error ->> 'kind' AS error_kind, error ->> 'message' AS error_message, rerun_of, parent_run_id,
       parent_task,
       (SELECT coalesce(sum(attempts - 1), 0) FROM tasks INDEXED BY tasks_retried
        WHERE tasks.run_id = runs.run_id AND attempts > 1) AS retries,
       (SELECT sum(input_tokens) FROM model_usage WHERE model_usage.run_id = runs.run_id) AS input_tokens,
       (SELECT sum(output_tokens) FROM model_usage WHERE model_usage.run_id = runs.run_id) AS output_tokens,
       (SELECT sum(cost_usd) FROM model_usage WHERE model_usage.run_id = runs.run_id) AS cost_usd
FROM runs
WHERE seq > :after AND seq <= :last AND created_at >= :since AND created_at < :until
  AND (:flow_id IS NULL OR flow_id = :flow_id)
ORDER BY seq LIMIT :page

-- name: export_events -- a page, in the order of the journal
SELECT seq, at, type, run_id, flow_id, task, item, attempt, actor, data FROM events
WHERE seq > :after AND seq <= :last AND at >= :since AND at < :until AND (:flow_id IS NULL OR flow_id = :flow_id)
ORDER BY seq LIMIT :page

-- name: last_run
SELECT seq FROM sqlite_sequence WHERE name = 'runs'
