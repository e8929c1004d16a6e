"""What was typed wrong, told as JSON where JSON was asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from typer.core import TyperGroup
from typing_extensions import override

from contexten_server.cli.exits import UsageProblem
from contexten_server.cli.screen import Screen

_OF_PYDANTIC = "Value error, "
"""How pydantic, which reads values for Typer, begins what is wrong with them."""

_AS_JSON = "contexten_server.as_json"

_CALLED_HERE = {"create": "save", "add": "save"}

# A context is Any below: whose class it is, Click's or Typer's own, depends on Typer's release.


class Commands(TyperGroup):
    """The commands; with `--json` a wrong command line is an `{"error": ...}` on standard output as well."""

    @override
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Note whether JSON is asked for, which is known to a command only once its arguments are right."""
        ctx.meta[_AS_JSON] = "--json" in args
        with _told(ctx):
            return super().parse_args(ctx, args)

    @override
    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command; what others call by another name is suggested by its name here."""
        meant = _CALLED_HERE.get(args[0]) if args else None
        if meant is not None:
            ctx.fail(f"No such command {args[0]!r}. Did you mean {meant!r}?")
        return super().resolve_command(ctx, args)

    @override
    def invoke(self, ctx: Any) -> Any:
        """Find and run the command."""
        with _told(ctx):
            return super().invoke(ctx)


@contextmanager
def _told(ctx: Any) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        wrong: Any = error
        if not hasattr(wrong, "format_message"):  # a usage error has it, by whatever name Typer brings its class along
            raise
        wrong.message = wrong.message.removeprefix(_OF_PYDANTIC)
        if ctx.meta[_AS_JSON]:
            place = wrong.ctx or ctx
            problem = UsageProblem(wrong.format_message(), next=f"`{place.command_path} --help` shows what it takes")
            Screen(as_json=True).data({"error": problem.as_dict()})
        raise
