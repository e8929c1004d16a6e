"""Prefect: runs seen in its UI, its own server, published flows, and work pools on other machines.

Nothing here is imported before it is used; `prefect` itself is imported on a thread, since that takes seconds.
"""
