"""Why: what a flow will do, what a run waits for, what a failure came from and what to do."""
