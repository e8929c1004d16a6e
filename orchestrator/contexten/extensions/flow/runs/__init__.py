"""Runs: submitting, asking, waiting, controlling and running again."""
