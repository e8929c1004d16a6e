-- Each process that drives the database has a row; it owns runs as `server_id` for as long as the row is there.

CREATE TABLE servers (
    server_id TEXT PRIMARY KEY,
    host TEXT NOT NULL,
    pid INTEGER NOT NULL,
    holder TEXT NOT NULL,
    started_at REAL NOT NULL,
    beat INTEGER NOT NULL DEFAULT 0 CHECK (beat >= 0), -- others watch whether it moves
    beat_at REAL NOT NULL -- for people: no lease depends on it
) STRICT, WITHOUT ROWID;
