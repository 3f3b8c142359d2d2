"""The commands that maintain a store."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from rave_dist import pipeline
from rave_dist.cli.options import Debug, Json, StoreUri, existing, finish
from rave_dist.maintenance.prune import KEEP
from rave_dist.terminal import console
from rave_dist.terminal.display import shown_progress


def prune(
    store: StoreUri,
    yes: Annotated[bool, typer.Option("--yes", help="Remove it; otherwise it is only listed.")] = False,
    keep: Annotated[
        int, typer.Option("--keep", min=0, metavar="N", help="Versions of each model to keep in addition to the latest.")
    ] = KEEP,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """List, and with --yes remove, what a store no longer needs, with sizes.

    These are checkpoints of finished runs (without them a larger budget starts at step 0), old versions of models and their
    runs, datasets, shards, initial weights, uploaded recordings and results of dry runs that nothing refers to, and what killed
    writers left behind.
    """
    with shown_progress() as progress:
        found = pipeline.prune(existing(store), keep=keep, removes=yes, progress=progress)
    if as_json:
        console.document(found.to_json())
    else:
        console.show_pruned(found)


class WithReadData(TyperCommand):
    """Lets ``--read-data`` stand alone, for all files."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Completes the option."""
        return super().parse_args(ctx, ["--read-data=1/1" if arg == "--read-data" else arg for arg in args])


def verify(
    store: StoreUri,
    read_data: Annotated[
        str | None,
        typer.Option(
            "--read-data",
            metavar="[=n/t]",
            help="Also read the files, or the n-th of t parts of them: 1/7 to 7/7 on the days of a week.",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Verify a store: its records can be read, the files that they name exist with their sizes, and on request their bytes.

    Reads only, also while a store is in use. Problems are named with their fixes (exit code 3).
    """
    with shown_progress() as progress:
        found = pipeline.verify(existing(store), read_data=read_data, progress=progress)
    if as_json:
        console.document(found.to_json())
    else:
        console.show_verification(found)
    finish(found.ok)
