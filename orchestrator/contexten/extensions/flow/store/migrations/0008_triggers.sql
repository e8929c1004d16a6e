-- Triggers and what was delivered to them; how far those have read who make something of the journal's entries.

CREATE TABLE consumers (
    name TEXT PRIMARY KEY,
    place INTEGER NOT NULL CHECK (place >= 0)
) STRICT, WITHOUT ROWID;

ALTER TABLE servers ADD COLUMN handlers TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(handlers)); -- JSON list of names

CREATE TABLE triggers (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    trigger_id TEXT NOT NULL UNIQUE CHECK (length(trigger_id) BETWEEN 1 AND 128),
    name TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (
        kind IN ('cron', 'interval', 'once', 'github', 'linear', 'slack', 'webhook', 'file', 'flow')
    ),
    config TEXT NOT NULL CHECK (json_valid(config)),
    flow_id TEXT, -- may be gone
    handler TEXT, -- instead of a flow: a function of a Python program, by name
    inputs TEXT CHECK (inputs IS NULL OR json_valid(inputs)),
    filter TEXT,
    secret TEXT, -- a generated one; in no answer, entry or log
    enabled INTEGER NOT NULL CHECK (enabled IN (0, 1)),
    next_at REAL, -- of a schedule: when it fires next
    full_at REAL NOT NULL DEFAULT 0, -- of a rate: when its bucket of tokens is full again
    server_id TEXT, -- NULL, or a server that is no more: nobody starts its deliveries
    created_at REAL NOT NULL,
    updated_at REAL NOT NULL,
    CHECK ((flow_id IS NULL) != (handler IS NULL)),
    CHECK (next_at IS NULL OR kind IN ('cron', 'interval', 'once'))
) STRICT;

CREATE INDEX triggers_next ON triggers (next_at) WHERE next_at IS NOT NULL;
CREATE INDEX triggers_flow ON triggers (kind) WHERE kind = 'flow';

CREATE TABLE deliveries (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    delivery_id TEXT NOT NULL UNIQUE,
    trigger_id TEXT NOT NULL REFERENCES triggers (trigger_id),
    event_id TEXT NOT NULL, -- the sender's own
    type TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('accepted', 'started', 'filtered', 'failed')),
    round INTEGER NOT NULL DEFAULT 0 CHECK (round >= 0), -- how often it was delivered again
    run_id TEXT, -- may be pruned
    earlier_run_ids TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(earlier_run_ids)), -- of rounds before, as they came
    reason TEXT,
    error TEXT CHECK (error IS NULL OR json_valid(error)),
    is_active INTEGER NOT NULL DEFAULT 0 CHECK (is_active IN (0, 1)), -- its run was not seen to have ended
    received_at REAL NOT NULL,
    ended_at REAL,
    payload TEXT NOT NULL CHECK (json_valid(payload)), -- last: what came after it would be read through it
    UNIQUE (trigger_id, event_id),
    CHECK ((state = 'accepted') = (ended_at IS NULL)),
    CHECK ((state = 'started') = (run_id IS NOT NULL)),
    CHECK ((state = 'failed') = (error IS NOT NULL)),
    CHECK (is_active = 0 OR state = 'started')
) STRICT;

CREATE INDEX deliveries_accepted ON deliveries (trigger_id, seq) WHERE state = 'accepted';
CREATE INDEX deliveries_active ON deliveries (trigger_id) WHERE is_active = 1;
CREATE INDEX deliveries_trigger ON deliveries (trigger_id, seq);
CREATE INDEX deliveries_failed ON deliveries (state, seq) WHERE state = 'failed'; -- few of many
CREATE INDEX deliveries_ended ON deliveries (ended_at) WHERE ended_at IS NOT NULL;
