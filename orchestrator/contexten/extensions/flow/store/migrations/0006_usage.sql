-- What language models used: tokens and cost by run and model, folded from the `task.usage` entries of the journal.

CREATE TABLE model_usage (
    run_id TEXT NOT NULL REFERENCES runs (run_id),
    model TEXT NOT NULL,
    calls INTEGER NOT NULL CHECK (calls >= 0), -- attempts that told their usage
    input_tokens INTEGER NOT NULL CHECK (input_tokens >= 0),
    output_tokens INTEGER NOT NULL CHECK (output_tokens >= 0),
    cost_usd REAL, -- null where no price is known
    PRIMARY KEY (run_id, model)
) STRICT, WITHOUT ROWID;
