-- Who is told of runs' events, and the messages: each waits, is being sent, was sent, or was given up.

CREATE TABLE notifications (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    notification_id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('webhook', 'slack')),
    url TEXT, -- NULL: the value of the named secret
    secret_name TEXT,
    secret TEXT, -- a generated one; in no answer, entry or log
    events TEXT NOT NULL CHECK (json_valid(events)),
    flow_id TEXT, -- may be gone
    tag TEXT,
    since INTEGER NOT NULL, -- it is told of what the journal has after this entry
    disabled TEXT, -- why nothing is sent any more
    created_at REAL NOT NULL,
    CHECK ((kind = 'slack') = (url IS NULL)),
    CHECK ((secret_name IS NULL) != (secret IS NULL))
) STRICT;

CREATE TABLE dispatches (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    dispatch_id TEXT NOT NULL UNIQUE, -- the message's own id, the same at each try
    notification_id TEXT REFERENCES notifications (notification_id), -- NULL: an answer to a Slack command
    reply_url TEXT, -- where that goes; in no answer, entry or log
    reply_type TEXT CHECK (reply_type IN ('ephemeral', 'in_channel')),
    type TEXT NOT NULL,
    run_id TEXT NOT NULL, -- may be pruned
    flow_id TEXT NOT NULL,
    at REAL NOT NULL, -- when it happened
    state TEXT NOT NULL CHECK (state IN ('pending', 'sending', 'sent', 'dead')),
    attempts INTEGER NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    due_at REAL NOT NULL, -- pending: of the next try; sending: from then on another server may try
    body TEXT, -- of a message that failed: each try sends the same
    status INTEGER, -- of the last answer
    error TEXT, -- why the last try failed
    ended_at REAL,
    CHECK ((notification_id IS NULL) = (reply_url IS NOT NULL)),
    CHECK ((reply_url IS NULL) = (reply_type IS NULL)),
    CHECK ((state IN ('sent', 'dead')) = (ended_at IS NOT NULL)),
    CHECK (state != 'dead' OR error IS NOT NULL)
) STRICT;

CREATE UNIQUE INDEX dispatches_sending ON dispatches (notification_id) WHERE state = 'sending'; -- one at a time
CREATE INDEX dispatches_pending ON dispatches (notification_id, due_at, seq) WHERE state = 'pending';
CREATE INDEX dispatches_notification ON dispatches (notification_id, seq);
CREATE INDEX dispatches_ended ON dispatches (ended_at) WHERE ended_at IS NOT NULL;
CREATE INDEX triggers_slack ON triggers (flow_id) WHERE kind = 'slack'; -- whose commands are answered
