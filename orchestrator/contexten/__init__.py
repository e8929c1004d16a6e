"""Contexten: durable workflow orchestration that LLM agents drive themselves."""
