"""Options that several commands share, and their end."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rave_dist import exit_codes
from rave_dist.storage.store import Store

LibraryFile = Annotated[Path, typer.Argument(metavar="LIBRARY.yaml", help="The library manifest.", show_default=False)]
Only = Annotated[
    list[str] | None,
    typer.Option("--only", metavar="NAME", help="Only this instrument; can be repeated.", show_default=False),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout; progress goes to stderr.")]
Trust = Annotated[
    bool, typer.Option("--trust", help="Also load model files with operators that no export has; a model file is a program.")
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the Python traceback of an error.")]
StoreUri = Annotated[
    str, typer.Option("--store", metavar="URI", help="The store: a folder or s3://bucket/prefix.", show_default=False)
]
OutputsBelow = Annotated[
    list[str] | None,
    typer.Option(
        "--outputs-below",
        metavar="FOLDER",
        help="Jobs may write only below this folder or s3:// prefix; can be repeated.  [default: anywhere but the store and "
        "the system's folders]",
        show_default=False,
    ),
]
InputsBelow = Annotated[
    list[str] | None,
    typer.Option(
        "--inputs-below",
        metavar="FOLDER",
        help="Jobs may read only below this folder or s3:// prefix; can be repeated.  [default: anywhere]",
        show_default=False,
    ),
]


def existing(uri: str) -> Store:
    """A store that exists.

    Raises:
        StoreError: there is no such folder.
    """
    store = Store(uri)
    store.check_exists()
    return store


def finish(complete: bool) -> None:
    """Ends a command of which some items may have failed."""
    if not complete:
        raise typer.Exit(exit_codes.PARTIAL)
