-- Times are seconds since the epoch, UTC. JSON is text. A task without a row is pending.

CREATE TABLE settings (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE flows (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    flow_id TEXT NOT NULL UNIQUE CHECK (length(flow_id) BETWEEN 1 AND 128),
    name TEXT NOT NULL,
    description TEXT,
    tags TEXT NOT NULL CHECK (json_valid(tags)),
    listed INTEGER NOT NULL CHECK (listed IN (0, 1)),
    version INTEGER NOT NULL CHECK (version >= 1),
    latest_run_id TEXT,
    runs INTEGER NOT NULL DEFAULT 0, -- ever submitted
    created_at REAL NOT NULL,
    updated_at REAL NOT NULL
) STRICT;

CREATE TABLE flow_versions (
    flow_id TEXT NOT NULL REFERENCES flows (flow_id),
    version INTEGER NOT NULL CHECK (version >= 1),
    digest TEXT NOT NULL,
    definition TEXT NOT NULL CHECK (json_valid(definition)),
    created_at REAL NOT NULL,
    PRIMARY KEY (flow_id, version)
) STRICT, WITHOUT ROWID;

-- Outputs and for_each lists over 64 KiB, stored once under the digest of their text.
CREATE TABLE blobs (
    digest TEXT PRIMARY KEY,
    body TEXT NOT NULL
) STRICT;

CREATE TABLE runs (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    run_id TEXT NOT NULL UNIQUE,
    flow_id TEXT NOT NULL,
    version INTEGER NOT NULL,
    name TEXT NOT NULL,
    state TEXT NOT NULL CHECK (
        state IN ('scheduled', 'running', 'waiting', 'paused', 'completed', 'failed', 'cancelled')
    ),
    framework TEXT NOT NULL,
    priority INTEGER NOT NULL,
    queue_key REAL NOT NULL,
    inputs TEXT NOT NULL CHECK (json_valid(inputs)),
    timeout_s REAL CHECK (timeout_s > 0),
    idempotency_key TEXT,
    request_digest TEXT,
    rerun_of TEXT,
    parent_run_id TEXT REFERENCES runs (run_id),
    parent_task TEXT,
    parent_item INTEGER,
    owner TEXT,
    fence INTEGER NOT NULL DEFAULT 0,
    request TEXT CHECK (request IN ('pause', 'cancel')),
    reason TEXT,
    wake_at REAL,
    completed INTEGER NOT NULL DEFAULT 0,
    total INTEGER NOT NULL,
    cursor INTEGER NOT NULL DEFAULT 0,
    error TEXT CHECK (error IS NULL OR json_valid(error)),
    failed_tasks TEXT CHECK (failed_tasks IS NULL OR json_valid(failed_tasks)),
    output TEXT,
    output_digest TEXT REFERENCES blobs (digest),
    created_at REAL NOT NULL,
    started_at REAL,
    ended_at REAL,
    paused_at REAL,
    paused_s REAL NOT NULL DEFAULT 0,
    FOREIGN KEY (flow_id, version) REFERENCES flow_versions (flow_id, version),
    CHECK (owner IS NULL OR state = 'running'), -- a running run without an owner was released by an orderly stop
    CHECK ((state IN ('completed', 'failed', 'cancelled')) = (ended_at IS NOT NULL)),
    CHECK ((state = 'paused') = (paused_at IS NOT NULL)),
    CHECK (state != 'failed' OR error IS NOT NULL)
) STRICT;

CREATE INDEX runs_queue ON runs (queue_key, seq) WHERE state = 'scheduled' AND parent_run_id IS NULL;
CREATE INDEX runs_state ON runs (state, seq);
CREATE INDEX runs_wake ON runs (wake_at) WHERE state = 'waiting';
CREATE INDEX runs_flow ON runs (flow_id, seq);
CREATE INDEX runs_parent ON runs (parent_run_id) WHERE parent_run_id IS NOT NULL;
CREATE INDEX runs_ended ON runs (ended_at) WHERE ended_at IS NOT NULL;
CREATE UNIQUE INDEX runs_idempotency ON runs (flow_id, idempotency_key) WHERE idempotency_key IS NOT NULL;

CREATE TABLE tasks (
    run_id TEXT NOT NULL REFERENCES runs (run_id),
    task TEXT NOT NULL,
    item INTEGER NOT NULL DEFAULT -1 CHECK (item >= -1), -- -1: the task itself, else an item of its for_each
    state TEXT NOT NULL CHECK (
        state IN ('running', 'retrying', 'waiting', 'completed', 'failed', 'skipped', 'cancelled')
    ),
    attempts INTEGER NOT NULL DEFAULT 0,
    interruptions INTEGER NOT NULL DEFAULT 0,
    agent TEXT,
    items TEXT CHECK (items IS NULL OR json_valid(items)),
    items_digest TEXT REFERENCES blobs (digest),
    child_run_id TEXT,
    started_at REAL,
    ended_at REAL,
    wake_at REAL,
    reason TEXT,
    error TEXT CHECK (error IS NULL OR json_valid(error)),
    output TEXT,
    output_digest TEXT REFERENCES blobs (digest),
    output_bytes INTEGER,
    taken_over INTEGER NOT NULL DEFAULT 0 CHECK (taken_over IN (0, 1)),
    cursor INTEGER NOT NULL,
    PRIMARY KEY (run_id, task, item),
    CHECK ((state IN ('completed', 'failed', 'skipped', 'cancelled')) = (ended_at IS NOT NULL)),
    CHECK (state != 'completed' OR output IS NOT NULL OR output_digest IS NOT NULL),
    CHECK (state != 'failed' OR error IS NOT NULL)
) STRICT, WITHOUT ROWID;

CREATE TABLE events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    run_id TEXT,
    flow_id TEXT,
    type TEXT NOT NULL,
    task TEXT,
    item INTEGER,
    attempt INTEGER,
    at REAL NOT NULL,
    actor TEXT,
    data TEXT CHECK (data IS NULL OR json_valid(data))
) STRICT;

CREATE INDEX events_run ON events (run_id, seq);

-- Deleting a blob asks who refers to it.
CREATE INDEX tasks_output_digest ON tasks (output_digest) WHERE output_digest IS NOT NULL;
CREATE INDEX tasks_items_digest ON tasks (items_digest) WHERE items_digest IS NOT NULL;
CREATE INDEX runs_output_digest ON runs (output_digest) WHERE output_digest IS NOT NULL;
