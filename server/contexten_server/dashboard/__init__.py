"""The dashboard: pages of plain ES modules, served as they lie in `assets`, that talk to the API under /api."""
