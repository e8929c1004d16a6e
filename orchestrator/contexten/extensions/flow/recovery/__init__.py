"""Failures: their kinds, and what is done about each."""
