-- name: consumer_place
SELECT place FROM consumers WHERE name = ?

-- name: insert_consumer
INSERT INTO consumers (name, place) VALUES (?, ?) ON CONFLICT (name) DO NOTHING

-- name: delete_consumer
DELETE FROM consumers WHERE name = ?

-- name: move_consumer
UPDATE consumers SET place = ? WHERE name = ? AND place = ?

-- name: read_entries_of -- those types, after a place and up to another
SELECT seq, run_id, flow_id, type, task, item, attempt, at, actor, data FROM events
WHERE seq > ? AND seq <= ? AND type IN (SELECT value FROM json_each(?)) ORDER BY seq LIMIT ?
