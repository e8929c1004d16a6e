"""The strands engine: language models work on tasks through Strands Agents.

The library is imported when a model is first talked to, off the event loop; `engine`, `models` and `given` import
nothing of it.
"""
