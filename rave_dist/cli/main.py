"""The command line: exit codes are 0 (all done), 1 (could not run), 2 (usage) and 3 (some items failed)."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from typer.core import TyperCommand, TyperGroup

from rave_dist import __version__, exit_codes, signals
from rave_dist.cli import latents, library, machine, models, store
from rave_dist.errors import RaveDistError, known_error
from rave_dist.records.words import words
from rave_dist.terminal import console

COMMANDS = {
    "A library of instruments": (
        *(library.init, library.schema, library.check, library.plan, library.run, library.submit, library.status),
        *(library.ingest, library.train, library.publish, library.report),
    ),
    "Published models": (
        *(models.models, models.convert, latents.encode, latents.decode, latents.morph),
        *(models.serve, models.unpack),
    ),
    "The store": (store.verify, store.prune),
    "This machine, and a cluster's": (machine.doctor, machine.hosts, machine.demo),
}


class _Commands(TyperGroup):
    """Turns a `RaveDistError` of any command, and a full disk, into a message and an exit code; explains wrong options."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (RaveDistError, OSError, RuntimeError) as error:
            problem = known_error(error)
            if problem is None or "--debug" in sys.argv:
                raise
            console.error(problem)
            raise typer.Exit(exit_codes.FAILED) from error
        except typer.BadParameter as problem:
            if isinstance(problem.__cause__, ValidationError):
                problem.message = "; ".join(words(each) for each in problem.__cause__.errors())
            raise
        except KeyboardInterrupt as stop:
            signals.say_stopped(console.err.print)
            raise typer.Exit(signals.exit_code(stop)) from stop


app = typer.Typer(
    name="rave-dist",
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        console.out.print(__version__)
        raise typer.Exit()


@app.callback()
def about(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Train a library of RAVE models from recordings, and convert archives with them.

    Runs on this machine, or on the Ray cluster of `RAY_ADDRESS`. Exit codes: 0 all done; 1 the command could
    not run; 2 wrong usage; 3 finished, but some items failed and are reported; 130 stopped
    with Ctrl-C; 143 stopped with SIGTERM.
    """


for _panel, _functions in COMMANDS.items():
    for _function in _functions:
        _kind = store.WithReadData if _function is store.verify else TyperCommand
        app.command(rich_help_panel=_panel, cls=_kind)(_function)


def command() -> Any:
    """The whole command line, callable."""
    return typer.main.get_command(app)
