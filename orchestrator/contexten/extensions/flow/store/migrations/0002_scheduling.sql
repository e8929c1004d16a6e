-- Deadlines, estimates, demands and dependencies of runs; the constraint that keeps a queued run from starting.

ALTER TABLE runs ADD COLUMN deadline REAL;
ALTER TABLE runs ADD COLUMN on_deadline TEXT CHECK (on_deadline IN ('continue', 'cancel'));
ALTER TABLE runs ADD COLUMN deadline_missed INTEGER NOT NULL DEFAULT 0 CHECK (deadline_missed IN (0, 1));
ALTER TABLE runs ADD COLUMN estimate_s REAL CHECK (estimate_s >= 0);
ALTER TABLE runs ADD COLUMN demands TEXT CHECK (demands IS NULL OR json_valid(demands)); -- pool: amount
ALTER TABLE runs ADD COLUMN claimed_at REAL; -- since when it holds its slot, or held it last
ALTER TABLE runs ADD COLUMN slot_s REAL NOT NULL DEFAULT 0; -- how long it has held one, up to when it gave it back
ALTER TABLE runs ADD COLUMN blocked TEXT; -- 'dependencies', 'flow:ID' or 'tag:TAG': out of the ready index until that frees

DROP INDEX runs_queue;
CREATE INDEX runs_queue ON runs (queue_key, seq) WHERE state = 'scheduled' AND parent_run_id IS NULL AND blocked IS NULL;
CREATE INDEX runs_blocked ON runs (blocked, queue_key, seq) WHERE blocked IS NOT NULL;
CREATE INDEX runs_deadline ON runs (deadline) WHERE deadline IS NOT NULL AND deadline_missed = 0 AND ended_at IS NULL;
CREATE INDEX runs_flow_ended ON runs (flow_id, state, seq) WHERE ended_at IS NOT NULL;
CREATE INDEX runs_flow_active ON runs (flow_id) WHERE state = 'running' AND parent_run_id IS NULL;

-- What a run waits for before it starts: a run, or the first run that a flow will have.
CREATE TABLE dependencies (
    run_id TEXT NOT NULL REFERENCES runs (run_id),
    on_id TEXT NOT NULL, -- as it was asked for
    on_run_id TEXT, -- NULL: the flow has no run yet
    on_failure TEXT NOT NULL CHECK (on_failure IN ('fail', 'run')),
    ended TEXT CHECK (ended IN ('completed', 'failed', 'cancelled')), -- how it ended; NULL: not yet
    is_open INTEGER NOT NULL DEFAULT 1 CHECK (is_open IN (0, 1)), -- the run still waits for it
    PRIMARY KEY (run_id, on_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX dependencies_run ON dependencies (on_run_id) WHERE on_run_id IS NOT NULL AND ended IS NULL;
CREATE INDEX dependencies_flow ON dependencies (on_id) WHERE on_run_id IS NULL;
CREATE INDEX dependencies_ended ON dependencies (run_id) WHERE ended IS NOT NULL AND is_open = 1;

CREATE TRIGGER dependency_ends AFTER UPDATE OF ended_at ON runs
WHEN NEW.ended_at IS NOT NULL AND OLD.ended_at IS NULL
BEGIN
    UPDATE dependencies SET ended = NEW.state WHERE on_run_id = NEW.run_id AND ended IS NULL;
    UPDATE dependencies SET is_open = 0 WHERE run_id = NEW.run_id;
END;

-- The sizes of resource pools, and how many runs of a flow or of a tag may hold a slot at once.
CREATE TABLE limits (
    kind TEXT NOT NULL CHECK (kind IN ('pool', 'flow', 'tag')),
    name TEXT NOT NULL,
    size REAL NOT NULL CHECK (size >= 0),
    PRIMARY KEY (kind, name)
) STRICT, WITHOUT ROWID;
