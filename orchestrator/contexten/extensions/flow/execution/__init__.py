"""Execution: what a run does next, and doing it."""
