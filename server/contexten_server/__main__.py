"""The command line: `contexten-flow`, and `python -m contexten_server`."""

from __future__ import annotations


def main() -> None:
    """Run a command; ends the process with its exit code."""
    from contexten_server.cli.app import app

    app()


if __name__ == "__main__":
    main()
