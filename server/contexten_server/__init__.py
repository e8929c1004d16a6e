"""The process: assembly of tools and resources, transports, command line. `run_server` is how it is started."""

from contexten_server.running import run_server

__all__ = ["run_server"]
