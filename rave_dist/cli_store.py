"""Commands that maintain a store."""

from __future__ import annotations

from typing import Annotated

import typer

from rave_dist import console, pipeline
from rave_dist.cli_options import Debug, Json, StoreUri, existing
from rave_dist.display import shown_progress
from rave_dist.prune import KEEP


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
    runs, and datasets, shards, initial weights and results of dry runs that nothing refers to.
    """
    with shown_progress() as progress:
        found = pipeline.prune(existing(store), keep=keep, removes=yes, progress=progress)
    if as_json:
        console.document(found.to_json())
    else:
        console.show_pruned(found)
