-- Runs of a state are counted without those of sub-flows, which hold no slot: from the index alone.

DROP INDEX runs_state;
CREATE INDEX runs_state ON runs (state, seq, parent_run_id);
