-- name: insert_notification
INSERT INTO notifications (
    notification_id, name, kind, url, secret_name, secret, events, flow_id, tag, since, created_at
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: read_notification
SELECT * FROM notifications WHERE notification_id = ?

-- name: list_notifications
SELECT * FROM notifications WHERE seq < ? ORDER BY seq DESC LIMIT ?

-- name: notification_ids
SELECT notification_id FROM notifications

-- name: needs_notifications -- whether anybody hears of runs: a receiver, or who uses a Slack command
SELECT EXISTS (SELECT 1 FROM notifications) OR EXISTS (SELECT 1 FROM triggers WHERE kind = 'slack')

-- name: count_dispatches -- that wait or were given up, of those notifications
SELECT notification_id, sum(state != 'dead') AS pending, sum(state = 'dead') AS dead
FROM dispatches INDEXED BY dispatches_unsent
WHERE notification_id IN (SELECT value FROM json_each(?)) AND state IN ('pending', 'sending', 'dead') AND state != 'sent'
GROUP BY notification_id

-- name: delete_notification
DELETE FROM notifications WHERE notification_id = ?

-- name: delete_dispatches_of
DELETE FROM dispatches WHERE seq IN (SELECT seq FROM dispatches WHERE notification_id = ? LIMIT ?)

-- name: disable_notification
UPDATE notifications SET disabled = ? WHERE notification_id = ? AND disabled IS NULL

-- name: enable_notification -- it is told of what comes after this
UPDATE notifications SET disabled = NULL, since = ? WHERE notification_id = ? AND disabled IS NOT NULL

-- name: give_up_dispatches
UPDATE dispatches INDEXED BY dispatches_unsent SET state = 'dead', error = ?, ended_at = ?
WHERE notification_id = ? AND state IN ('pending', 'sending') AND state != 'sent'

-- name: entries_to_tell -- as read_entries_of, but by what never changes after them: what is passed over stays untold
SELECT seq, run_id, flow_id, type, task, item, attempt, at, actor, data FROM events
WHERE seq > ? AND seq <= ? AND type IN (SELECT value FROM json_each(?))
  AND EXISTS (SELECT 1 FROM runs WHERE runs.run_id = events.run_id AND parent_run_id IS NULL)
  AND (
    EXISTS (
        SELECT 1 FROM notifications
        WHERE since < events.seq AND disabled IS NULL
          AND (notifications.flow_id IS NULL OR notifications.flow_id = events.flow_id)
          AND type IN (SELECT value FROM json_each(notifications.events)))
    OR type IN ('run.completed', 'run.failed', 'run.cancelled') AND EXISTS (
        SELECT 1 FROM triggers
        WHERE kind = 'slack' AND (triggers.flow_id IS NULL OR triggers.flow_id = events.flow_id)))
ORDER BY seq LIMIT ?

-- name: notifications_of -- who is told of an entry of the journal: its place, type and run; never of a sub-flow's run
SELECT notifications.notification_id, runs.flow_id
FROM runs JOIN flows USING (flow_id) JOIN notifications
WHERE runs.run_id = ?3 AND runs.parent_run_id IS NULL AND notifications.since < ?1 AND notifications.disabled IS NULL
  AND ?2 IN (SELECT value FROM json_each(notifications.events))
  AND (notifications.flow_id IS NULL OR notifications.flow_id = runs.flow_id)
  AND (notifications.tag IS NULL OR notifications.tag IN (SELECT value FROM json_each(flows.tags)))

-- name: slack_reply_of -- where Slack wants to hear of the end of a run that a command of it started
SELECT payload ->> 'response_url', coalesce(config ->> 'response', 'ephemeral'), runs.flow_id
FROM runs
    JOIN deliveries ON delivery_id = substr(runs.idempotency_key, 10, instr(substr(runs.idempotency_key, 10) || ':', ':') - 1)
    JOIN triggers USING (trigger_id)
WHERE runs.run_id = ?3 AND runs.idempotency_key GLOB 'delivery:*' AND kind = 'slack'
  AND ?2 IN ('run.completed', 'run.failed', 'run.cancelled')
  AND payload ->> 'response_url' IS NOT NULL

-- name: insert_dispatch
INSERT INTO dispatches (
    dispatch_id, notification_id, reply_url, reply_type, type, run_id, flow_id, at, state, due_at
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'pending', ?)

-- name: read_dispatch
SELECT dispatches.*, coalesce(kind, 'reply') AS kind
FROM dispatches LEFT JOIN notifications USING (notification_id) WHERE dispatch_id = ?

-- name: list_dispatches -- most were sent: those, or all
SELECT dispatches.*, coalesce(kind, 'reply') AS kind
FROM dispatches LEFT JOIN notifications USING (notification_id)
WHERE dispatches.seq < :before AND (:state IS NULL OR state = :state)
ORDER BY dispatches.seq DESC LIMIT :limit

-- name: list_dispatches_of
SELECT dispatches.*, kind FROM dispatches JOIN notifications USING (notification_id)
WHERE dispatches.notification_id = :notification_id AND dispatches.seq < :before AND (:state IS NULL OR state = :state)
ORDER BY dispatches.seq DESC LIMIT :limit

-- name: list_unsent_dispatches
SELECT dispatches.*, coalesce(kind, 'reply') AS kind
FROM dispatches INDEXED BY dispatches_unsent LEFT JOIN notifications USING (notification_id)
WHERE state = :state AND state != 'sent' AND dispatches.seq < :before
ORDER BY dispatches.seq DESC LIMIT :limit

-- name: list_unsent_dispatches_of
SELECT dispatches.*, kind FROM dispatches INDEXED BY dispatches_unsent JOIN notifications USING (notification_id)
WHERE state = :state AND state != 'sent' AND dispatches.notification_id = :notification_id AND dispatches.seq < :before
ORDER BY dispatches.seq DESC LIMIT :limit

-- name: dispatch_ids
SELECT dispatch_id FROM dispatches ORDER BY seq DESC LIMIT 1000

-- name: next_dispatch -- when a message may be sent: one at a time to a receiver, answers to Slack side by side
SELECT min(at) FROM (
    SELECT coalesce(
        (SELECT due_at FROM dispatches WHERE notification_id = notifications.notification_id AND state = 'sending'),
        (SELECT min(due_at) FROM dispatches WHERE notification_id = notifications.notification_id AND state = 'pending')
    ) AS at
    FROM notifications WHERE disabled IS NULL
    UNION ALL
    SELECT min(due_at) FROM dispatches WHERE notification_id IS NULL AND state = 'pending'
    UNION ALL
    SELECT min(due_at) FROM dispatches WHERE notification_id IS NULL AND state = 'sending')

-- name: due_dispatches -- the first of each receiver to whom nothing is being sent, and answers to Slack
SELECT dispatch_id FROM (
    SELECT coalesce(
        (SELECT dispatch_id FROM dispatches
         WHERE notification_id = notifications.notification_id AND state = 'sending'),
        (SELECT dispatch_id FROM dispatches
         WHERE notification_id = notifications.notification_id AND state = 'pending' ORDER BY due_at, seq LIMIT 1)
    ) AS dispatch_id
    FROM notifications WHERE disabled IS NULL
    UNION ALL
    SELECT dispatch_id FROM dispatches WHERE notification_id IS NULL AND state = 'pending' AND due_at <= ?1
    UNION ALL
    SELECT dispatch_id FROM dispatches WHERE notification_id IS NULL AND state = 'sending' AND due_at <= ?1)
JOIN dispatches USING (dispatch_id)
WHERE due_at <= ?1 ORDER BY due_at, seq LIMIT ?2

-- name: claim_dispatch
UPDATE dispatches SET state = 'sending', attempts = attempts + 1, due_at = ?
WHERE dispatch_id = ? AND state IN ('pending', 'sending') RETURNING dispatch_id, notification_id, reply_url, reply_type,
    type, run_id, flow_id, at, attempts, body

-- name: receiver
SELECT kind, url, secret_name, secret FROM notifications WHERE notification_id = ?

-- name: end_sending
UPDATE dispatches SET state = 'sent', status = ?, error = NULL, body = NULL, ended_at = ?
WHERE dispatch_id = ? AND state = 'sending' AND attempts = ?

-- name: put_sending_off
UPDATE dispatches SET state = 'pending', status = ?, error = ?, body = ?, due_at = ?
WHERE dispatch_id = ? AND state = 'sending' AND attempts = ?

-- name: give_sending_up
UPDATE dispatches SET state = 'dead', status = ?, error = ?, body = ?, ended_at = ?
WHERE dispatch_id = ? AND state = 'sending' AND attempts = ?

-- name: revive_dispatch
UPDATE dispatches SET state = 'pending', due_at = ?, ended_at = NULL, attempts = iif(state = 'dead', 0, attempts)
WHERE dispatch_id = ? AND state IN ('pending', 'dead')

-- name: delete_old_dispatches
DELETE FROM dispatches WHERE seq IN (
    SELECT seq FROM dispatches WHERE ended_at IS NOT NULL AND (ended_at < ? OR seq <= ?) ORDER BY ended_at LIMIT ?
) RETURNING seq

-- name: keep_line_of_dispatches
SELECT seq FROM dispatches WHERE ended_at IS NOT NULL ORDER BY seq DESC LIMIT 1 OFFSET ?
