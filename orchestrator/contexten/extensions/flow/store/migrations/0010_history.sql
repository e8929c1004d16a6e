-- What history and metrics are told from without reading whole rows: ended runs by their end, tasks that were tried
-- again, the journal's entries about what models used, messages that are not sent.

DROP INDEX runs_ended;
CREATE INDEX runs_ended ON runs (ended_at, flow_id, state, parent_run_id, created_at, started_at, run_id)
WHERE ended_at IS NOT NULL;
CREATE INDEX tasks_retried ON tasks (run_id, attempts) WHERE attempts > 1;
CREATE INDEX events_usage ON events (run_id, task, item) WHERE type = 'task.usage';
CREATE INDEX dispatches_unsent ON dispatches (state, notification_id, seq) WHERE state != 'sent';
