"""Telling others of runs: signed webhooks, messages of Slack, and answers to its commands."""
