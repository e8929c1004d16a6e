"""All commands of `contexten-flow`."""

from __future__ import annotations

from typing import Annotated

import typer

from contexten_server.cli.backup import backup
from contexten_server.cli.cancel import cancel
from contexten_server.cli.demo.command import demo
from contexten_server.cli.doctor import doctor
from contexten_server.cli.export import export
from contexten_server.cli.hosts import config
from contexten_server.cli.listing import list_, status
from contexten_server.cli.logs import logs
from contexten_server.cli.notify import notify
from contexten_server.cli.publish import publish
from contexten_server.cli.restore import restore
from contexten_server.cli.run import run
from contexten_server.cli.save import save
from contexten_server.cli.serve import serve
from contexten_server.cli.simulate import simulate
from contexten_server.cli.stats import stats
from contexten_server.cli.strategy import strategy
from contexten_server.cli.trigger import trigger
from contexten_server.cli.usage_errors import Commands
from contexten_server.cli.validate import validate
from contexten_server.cli.verify import verify
from contexten_server.cli.worker import worker

app = typer.Typer(
    name="contexten-flow",
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"contexten-flow {version('contexten-flow')}")
        raise typer.Exit


@app.callback()
def contexten_flow(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Durable workflows that LLM agents drive themselves: an MCP server and its command line."""


app.command()(serve)
app.command()(run)
app.command()(validate)
app.command()(save)
app.command("list")(list_)
app.command()(status)
app.command()(logs)
app.command()(cancel)
app.command()(stats)
app.command()(export)
app.add_typer(trigger, name="trigger")
app.add_typer(notify, name="notify")
app.command()(strategy)
app.command()(simulate)
app.command()(worker)
app.command()(publish)
app.command()(backup)
app.command()(restore)
app.command()(verify)
app.command()(doctor)
app.command()(config)
app.command()(demo)
