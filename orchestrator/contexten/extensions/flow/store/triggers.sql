-- Triggers and their deliveries. Loaded by name; `?` are bound in order.

-- name: insert_trigger
INSERT INTO triggers (trigger_id, name, kind, config, flow_id, handler, inputs, filter, secret, enabled, next_at,
                      created_at, updated_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: update_trigger
UPDATE triggers SET name = ?, config = ?, inputs = ?, filter = ?, enabled = ?, next_at = ?, updated_at = ?
WHERE trigger_id = ? AND updated_at = ?

-- name: delete_trigger
DELETE FROM triggers WHERE trigger_id = ?

-- name: read_trigger
SELECT * FROM triggers WHERE trigger_id = ?

-- name: list_triggers
SELECT * FROM triggers
WHERE seq < :before AND (:flow_id IS NULL OR flow_id = :flow_id) AND (:kind IS NULL OR kind = :kind)
ORDER BY seq DESC LIMIT :limit

-- name: trigger_ids
SELECT trigger_id FROM triggers ORDER BY seq DESC LIMIT 1000

-- name: file_triggers
SELECT * FROM triggers WHERE kind = 'file' AND enabled = 1 ORDER BY seq

-- name: any_flow_trigger
SELECT 1 FROM triggers WHERE kind = 'flow' LIMIT 1

-- name: flow_edges -- which flow's end starts which: trigger_id, flow before, flow after
SELECT trigger_id, value, flow_id FROM triggers, json_each(config, '$.flow_ids')
WHERE kind = 'flow' AND flow_id IS NOT NULL

-- name: triggers_of_end -- those that hear of a flow's runs when they end so, of those that were there by then
SELECT trigger_id, config ->> '$.max_pending' FROM triggers
WHERE kind = 'flow' AND enabled = 1 AND created_at <= ?
  AND EXISTS (SELECT 1 FROM json_each(config, '$.flow_ids') WHERE value = ?)
  AND EXISTS (SELECT 1 FROM json_each(config, '$.states') WHERE value = ?)
ORDER BY seq

-- name: ended_run
SELECT run_id, flow_id, name, state, parent_run_id, created_at, started_at, ended_at, error, reason, output FROM runs
WHERE run_id = ?

-- name: due_triggers -- for who has those handlers
SELECT * FROM triggers
WHERE next_at <= ? AND (handler IS NULL OR handler IN (SELECT value FROM json_each(?))) ORDER BY next_at LIMIT ?

-- name: next_trigger_at -- for who has those handlers
SELECT next_at FROM triggers
WHERE next_at IS NOT NULL AND (handler IS NULL OR handler IN (SELECT value FROM json_each(?))) ORDER BY next_at LIMIT 1

-- name: move_trigger -- a schedule that has fired
UPDATE triggers SET next_at = ? WHERE trigger_id = ? AND next_at = ? AND enabled = 1

-- name: delivery_of_event -- from the first to the last of its ids
SELECT delivery_id FROM deliveries WHERE trigger_id = ? AND event_id BETWEEN ? AND ? LIMIT 1

-- name: trigger_for_delivery
SELECT flow_id FROM triggers WHERE trigger_id = ?

-- name: waiting_deliveries -- of those triggers
SELECT trigger_id, count(*) FROM deliveries INDEXED BY deliveries_accepted
WHERE state = 'accepted' AND trigger_id IN (SELECT value FROM json_each(?)) GROUP BY trigger_id

-- name: count_waiting -- up to that many
SELECT count(*) FROM (
    SELECT 1 FROM deliveries INDEXED BY deliveries_accepted WHERE trigger_id = ? AND state = 'accepted' LIMIT ?)

-- name: insert_delivery
INSERT INTO deliveries (delivery_id, trigger_id, event_id, type, payload, state, received_at)
VALUES (?, ?, ?, ?, ?, 'accepted', ?)

-- name: free_triggers -- that have deliveries which nobody starts, for who has those handlers
WITH RECURSIVE waiting (trigger_id) AS ( -- steps from one trigger to the next, over all that waits for it
    SELECT min(trigger_id) FROM deliveries INDEXED BY deliveries_accepted WHERE state = 'accepted'
    UNION ALL
    SELECT (
        SELECT min(trigger_id) FROM deliveries INDEXED BY deliveries_accepted
        WHERE state = 'accepted' AND trigger_id > waiting.trigger_id)
    FROM waiting WHERE waiting.trigger_id IS NOT NULL)
SELECT trigger_id, flow_id FROM waiting CROSS JOIN triggers USING (trigger_id)
WHERE enabled = 1
  AND (server_id IS NULL OR server_id NOT IN (SELECT server_id FROM servers))
  AND (handler IS NULL OR handler IN (SELECT value FROM json_each(?)))
LIMIT ?

-- name: tell_handlers
UPDATE servers SET handlers = ? WHERE server_id = ?

-- name: handled -- the handlers that servers have
SELECT DISTINCT value FROM servers, json_each(handlers)

-- name: take_trigger
UPDATE triggers SET server_id = ?1
WHERE trigger_id = ?2 AND (server_id IS NULL OR server_id NOT IN (SELECT server_id FROM servers))

-- name: leave_trigger
UPDATE triggers SET server_id = NULL WHERE trigger_id = ? AND server_id = ?

-- name: left_waiting -- of a trigger whose deliveries wait although nobody starts them
SELECT flow_id FROM triggers
WHERE trigger_id = ?1 AND enabled = 1
  AND EXISTS (SELECT 1 FROM deliveries INDEXED BY deliveries_accepted WHERE trigger_id = ?1 AND state = 'accepted')

-- name: started_trigger -- where that server starts its deliveries
SELECT trigger_id, kind, config, flow_id, handler, inputs, filter, full_at FROM triggers
WHERE trigger_id = ? AND server_id = ? AND enabled = 1

-- name: next_deliveries
SELECT delivery_id FROM deliveries INDEXED BY deliveries_accepted
WHERE trigger_id = ? AND state = 'accepted' ORDER BY seq LIMIT ?

-- name: waiting_delivery
SELECT delivery_id, event_id, type, payload, round, received_at FROM deliveries
WHERE delivery_id = ? AND state = 'accepted'

-- name: active_runs -- of a trigger
SELECT runs.run_id FROM deliveries INDEXED BY deliveries_active JOIN runs ON runs.run_id = deliveries.run_id
WHERE trigger_id = ? AND is_active = 1 AND runs.ended_at IS NULL ORDER BY deliveries.seq

-- name: forget_ended_runs -- of a trigger
UPDATE deliveries INDEXED BY deliveries_active SET is_active = 0
WHERE trigger_id = ? AND is_active = 1
  AND NOT EXISTS (SELECT 1 FROM runs WHERE runs.run_id = deliveries.run_id AND runs.ended_at IS NULL)

-- name: remember_active_runs -- of a trigger that had no bound
UPDATE deliveries SET is_active = 1
WHERE trigger_id = ? AND state = 'started' AND is_active = 0
  AND EXISTS (SELECT 1 FROM runs WHERE runs.run_id = deliveries.run_id AND runs.ended_at IS NULL)

-- name: settle_delivery
UPDATE deliveries SET state = ?1, run_id = ?2, reason = ?3, error = ?4, is_active = ?5, ended_at = ?6
WHERE delivery_id = ?7 AND state = 'accepted' AND round = ?8
  AND EXISTS (SELECT 1 FROM triggers WHERE triggers.trigger_id = deliveries.trigger_id AND server_id = ?9)

-- name: fill_bucket
UPDATE triggers SET full_at = ? WHERE trigger_id = ?

-- name: read_delivery
SELECT * FROM deliveries WHERE delivery_id = ?

-- name: delivery_to_repeat
SELECT trigger_id, run_id, flow_id,
       is_active AND EXISTS (SELECT 1 FROM runs WHERE runs.run_id = deliveries.run_id AND ended_at IS NULL)
FROM deliveries JOIN triggers USING (trigger_id) WHERE delivery_id = ?

-- name: list_deliveries
SELECT seq, delivery_id, trigger_id, event_id, type, state, round, run_id, earlier_run_ids, reason, error, received_at,
       ended_at
FROM deliveries
WHERE seq < :before AND (:state IS NULL OR state = :state)
ORDER BY seq DESC LIMIT :limit

-- name: list_deliveries_of -- a trigger
SELECT seq, delivery_id, trigger_id, event_id, type, state, round, run_id, earlier_run_ids, reason, error, received_at,
       ended_at
FROM deliveries
WHERE trigger_id = :trigger_id AND seq < :before AND (:state IS NULL OR state = :state)
ORDER BY seq DESC LIMIT :limit

-- name: list_failed_deliveries -- of a trigger, or of all
SELECT seq, delivery_id, trigger_id, event_id, type, state, round, run_id, earlier_run_ids, reason, error, received_at,
       ended_at
FROM deliveries INDEXED BY deliveries_failed
WHERE state = 'failed' AND seq < :before AND (:trigger_id IS NULL OR trigger_id = :trigger_id)
ORDER BY seq DESC LIMIT :limit

-- name: latest_payload
SELECT type, payload FROM deliveries WHERE trigger_id = ? ORDER BY seq DESC LIMIT 1

-- name: deliver_again
UPDATE deliveries SET state = 'accepted', round = round + 1, run_id = NULL, reason = NULL, error = NULL, is_active = 0,
    ended_at = NULL,
    earlier_run_ids = iif(run_id IS NULL, earlier_run_ids, json_insert(earlier_run_ids, '$[#]', run_id))
WHERE delivery_id = ? AND state != 'accepted'

-- name: clear_deliveries -- of a trigger: those that are done with
DELETE FROM deliveries WHERE seq IN (
    SELECT seq FROM deliveries WHERE trigger_id = ? AND state != 'accepted' AND is_active = 0 LIMIT ?)

-- name: delete_deliveries -- of a trigger
DELETE FROM deliveries WHERE trigger_id = ?

-- name: keep_line_of_deliveries
SELECT seq FROM deliveries WHERE ended_at IS NOT NULL ORDER BY seq DESC LIMIT 1 OFFSET ?

-- name: prune_deliveries
DELETE FROM deliveries WHERE seq IN (
    SELECT seq FROM deliveries
    WHERE ended_at IS NOT NULL AND (ended_at < ? OR seq <= ?) AND NOT EXISTS (
        SELECT 1 FROM runs WHERE is_active = 1 AND runs.run_id = deliveries.run_id AND runs.ended_at IS NULL)
    LIMIT ?)
