-- Runs that Prefect shows, from their submission until it shows their end. `server_id`: the server that tells Prefect.

CREATE TABLE mirrors (
    run_id TEXT PRIMARY KEY REFERENCES runs (run_id),
    server_id TEXT -- NULL, or a server that is no more: nobody does
) STRICT, WITHOUT ROWID;

CREATE TRIGGER run_is_mirrored AFTER INSERT ON runs WHEN NEW.framework GLOB 'prefect*'
BEGIN
    INSERT INTO mirrors (run_id) VALUES (NEW.run_id);
END;
