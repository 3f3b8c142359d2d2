"""Options that several commands share, and their end."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from rave_dist import exit_codes
from rave_dist.errors import ConfigurationError
from rave_dist.storage.store import Store

LibraryFile = Annotated[
    str,
    typer.Argument(metavar="LIBRARY.yaml", help="The library manifest: a file, or its address in a store.", show_default=False),
]
Only = Annotated[
    list[str] | None,
    typer.Option("--only", metavar="NAME", help="Only this instrument; can be repeated.", show_default=False),
]
Deadline = Annotated[
    str | None,
    typer.Option(
        "--deadline",
        metavar="TIME",
        help="All must have ended in this time from now: 8h, 90min.  [default: when the budgets are used up]",
        show_default=False,
    ),
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


def seconds_of(deadline: str | None) -> float | None:
    """Seconds of a deadline such as 8h, 90min or 1h30min.

    Raises:
        ConfigurationError: it is not a duration.
    """
    if deadline is None:
        return None
    found = re.fullmatch(r"\s*(?:(\d+(?:\.\d+)?)\s*h)?\s*(?:(\d+(?:\.\d+)?)\s*min)?\s*", deadline)
    if found is None or not any(found.groups()) or not (seconds := 3600 * float(found[1] or 0) + 60 * float(found[2] or 0)):
        raise ConfigurationError(
            f"{deadline!r} is not a duration", where="--deadline", fix="write it in hours or minutes: 8h, 90min"
        )
    return seconds


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
