"""Flows: checking, saving and versioning definitions, and their compiled plans."""
