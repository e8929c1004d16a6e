"""The command line: `contexten-flow`, and `python -m contexten_server`."""

from __future__ import annotations

import gc


def main() -> None:
    """Run a command; ends the process with its exit code."""
    gc.disable()  # imports make no garbage, and looking for it takes a tenth of their time
    from contexten_server.cli.app import app

    gc.enable()
    app()


if __name__ == "__main__":
    main()
