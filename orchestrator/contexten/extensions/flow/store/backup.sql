-- name: set_identity
UPDATE settings SET value = ? WHERE key = 'database'

-- name: count_unfinished_runs
SELECT count(*) FROM runs WHERE state NOT IN ('completed', 'failed', 'cancelled')
