-- Outputs that serve equal tasks of other runs. `key` is a digest of what is asked of whom, and of the rendered key.

CREATE TABLE cache (
    key TEXT PRIMARY KEY,
    run_id TEXT NOT NULL, -- that recorded it; it may have been pruned since
    output TEXT,
    output_digest TEXT REFERENCES blobs (digest),
    output_bytes INTEGER NOT NULL,
    recorded_at REAL NOT NULL,
    expires_at REAL NOT NULL,
    CHECK ((output IS NULL) != (output_digest IS NULL))
) STRICT, WITHOUT ROWID;

CREATE INDEX cache_expires ON cache (expires_at);
CREATE INDEX cache_output_digest ON cache (output_digest) WHERE output_digest IS NOT NULL;
