"""The commands that show what a machine or a cluster of them can do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rave_dist.cli.options import Debug, Json, finish
from rave_dist.storage.store import Store
from rave_dist.terminal import console
from rave_dist.terminal.display import shown_progress


def demo(
    library: Annotated[
        str | None,
        typer.Argument(
            metavar="[LIBRARY]",
            help="`sonic-pi`, `generated`, or a manifest.  [default: sonic-pi, or generated where apt is missing]",
            show_default=False,
        ),
    ] = None,
    folder: Annotated[Path, typer.Option("--folder", help="The folder for all files.")] = Path("demo"),
    prepare_only: Annotated[bool, typer.Option("--prepare-only", help="Write recordings and manifest, then stop.")] = False,
    debug: Debug = False,
) -> None:
    """Run all stages on sample recordings, then convert a field recording with every model.

    Trains four small models, in about a quarter of an hour on two cores. After an interruption, the same command resumes.
    """
    from rave_dist.demo import prepare_demo, run_demo

    manifest = prepare_demo(library, folder)
    if prepare_only:
        console.out.print(str(manifest), markup=False)
    elif code := run_demo(manifest, folder):
        raise typer.Exit(code)


def doctor(
    store: Annotated[
        str | None, typer.Option("--store", metavar="URI", help="Also examine this store: a folder or s3://bucket/prefix.")
    ] = None,
    no_ray: Annotated[bool, typer.Option("--no-ray", help="Neither start Ray nor connect to RAY_ADDRESS.")] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Examine this machine, its packages and a store: one line per check, ok or the fix.

    Starts an embedded Ray briefly, and writes a few small objects to the store, which are removed.
    """
    from rave_dist.doctor import Request, examine

    found = []
    for diagnosis in examine(Request(Store(store) if store else None, start_ray=not no_ray)):
        found.append(diagnosis)
        if not as_json:
            console.show_diagnosis(diagnosis)
    healthy = all(diagnosis.state != "error" for diagnosis in found)
    if as_json:
        console.document({"ok": healthy, "checks": [diagnosis.to_json() for diagnosis in found]})
    finish(healthy)


def hosts(as_json: Json = False, debug: Debug = False) -> None:
    """Show the hosts of a cluster that `ray up` makes: which are there, and why the others are not.

    Asks the dashboard at `RAY_API_SERVER_ADDRESS`, for example through the tunnel of `ray dashboard`, or the cluster of
    `RAY_ADDRESS`. A host whose set-up failed is shown with the command that failed and its last lines.
    """
    from rave_dist.terminal.hosts import show

    with shown_progress() as progress:
        progress.stage("asking the cluster")  # before the import of Ray, which takes seconds
        from rave_dist.cluster.inventory import hosts_of_cluster

        found = hosts_of_cluster()
    complete = not any(host.is_missing for host in found)
    if as_json:
        console.document({"ok": complete, "hosts": [host.to_json() for host in found]})
    else:
        show(found)
    finish(complete)
