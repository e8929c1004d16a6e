"""The demonstration: a real flow over MCP on real data, a crash in mid-run, and its resumption."""
