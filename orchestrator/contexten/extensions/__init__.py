"""The families of capabilities of Contexten; ``flow`` is the orchestrator."""
