"""The commands of a library manifest, in the order of the stages."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from rave_dist import exit_codes, pipeline, signals
from rave_dist.cli.options import Deadline, Debug, Json, LibraryFile, Only, finish, seconds_of
from rave_dist.errors import ClusterError, ConfigurationError, from_os_error
from rave_dist.library.manifest import Library, load_library
from rave_dist.records import RunRecord
from rave_dist.terminal import console
from rave_dist.terminal.display import shown_progress
from rave_dist.time_left import library_time_left, spent


def init(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="One folder of recordings per instrument.", show_default=False)
    ],
    output: Annotated[Path, typer.Option("--output", metavar="LIBRARY.yaml", help="The manifest to write.")] = Path(
        "library.yaml"
    ),
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Write a first manifest for a folder of folders, with guesses of sample rate and mono or stereo.

    Only headers and some seconds of a few recordings are read. An existing file is never overwritten.
    """
    from rave_dist.init_manifest.write import write_first_manifest

    with shown_progress() as progress:
        progress.stage("examining the recordings")
        found = write_first_manifest(folder, output)
    if as_json:
        console.document(found.to_json())
    else:
        console.show_first_manifest(found)


Gpu = Annotated[
    str | None,
    typer.Option(
        "--gpu",
        metavar="CARD",
        help="The type of GPU: T4, L4, A100, H100, …  [default: this machine's CPUs]",
        show_default=False,
    ),
]
Gpus = Annotated[int, typer.Option("--gpus", min=1, max=4096, help="The number of GPUs.")]


def check(
    library: LibraryFile, only: Only = None, gpu: Gpu = None, gpus: Gpus = 1, as_json: Json = False, debug: Debug = False
) -> None:
    """Report the planned runs, the problems and their fixes, and how long the training takes and what it costs.

    On this machine, or on the given GPUs at the manifest's price. Trains nothing; tests whether the store can be written.
    """
    from rave_dist.planning.night import plan_night
    from rave_dist.scheduling.cards import find_card

    loaded = load_library(library)
    card = None if gpu is None else find_card(gpu)
    with shown_progress() as progress:
        checks = pipeline.check(loaded, only, progress=progress)
        night = None
        if card is not None or not os.environ.get("RAY_ADDRESS"):
            with suppress(ConfigurationError):  # of runs that are placed elsewhere
                fit = [c.name for c in checks.instruments if c.ok]
                night = plan_night(loaded, fit, card=card, cards=gpus, price=loaded.manifest.price)
    if as_json:
        end = {"end_seconds": night and round(night.end), "cost": night and night.cost and round(night.cost, 2)}
        console.document({"library": loaded.name, **checks.to_json(), **end})
    else:
        console.show_checks(checks)
        if night is not None:
            console.show_end(night)
    finish(all(c.ok for c in checks.in_order))


def plan(
    library: LibraryFile,
    only: Only = None,
    gpu: Gpu = None,
    gpus: Gpus = 1,
    deadline: Deadline = None,
    price: Annotated[
        float | None,
        typer.Option(
            "--price", min=0, help="The price of a GPU for an hour; by default that of the manifest.", show_default=False
        ),
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option("--picture", metavar="FILE.svg", help="Draw the timeline into this file.", show_default=False),
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Plan the training: when each instrument ends on given GPUs, and what that costs.

    Trains nothing. The times of steps are those of earlier runs on the same GPU if there are any, otherwise estimates.
    """
    from rave_dist.planning.night import plan_night
    from rave_dist.scheduling.cards import find_card

    loaded = load_library(library)
    with shown_progress() as progress:
        progress.stage("planning")
        night = plan_night(
            loaded,
            loaded.select(only),
            card=None if gpu is None else find_card(gpu),
            cards=gpus,
            deadline=seconds_of(deadline),
            price=loaded.manifest.price if price is None else price,
        )
    if as_json:
        console.document({"library": loaded.name, **night.to_json()})
    else:
        console.show_night(night)
    if picture is not None:
        try:
            picture.write_text(night.picture, encoding="utf-8")
        except OSError as error:
            raise from_os_error(error, where=str(picture)) from error
    finish(not night.late)


def schema() -> None:
    """Print the JSON Schema of the library manifest, for completion and validation in editors.

    In editors with a YAML language server, such as VS Code, save it next to the manifest as `manifest.schema.json` and begin
    the manifest with `# yaml-language-server: $schema=manifest.schema.json`.
    """
    from rave_dist.library.json_schema import manifest_schema

    console.document(manifest_schema())


def ingest(library: LibraryFile, only: Only = None, as_json: Json = False, debug: Debug = False) -> None:
    """Convert recordings to datasets in the store; every second is used or reported with a reason.

    Unchanged recordings are not read again.
    """
    loaded = load_library(library)
    with shown_progress() as progress:
        items = pipeline.ingest(loaded, only, progress=progress)
    if as_json:
        console.document({"library": loaded.name, "instruments": [item.to_json() for item in items]})
    else:
        console.show_ingested(items)
    finish(all(item.complete for item in items))


def train(
    library: LibraryFile, only: Only = None, deadline: Deadline = None, as_json: Json = False, debug: Debug = False
) -> None:
    """Train all ingested instruments, as many at once as the resources allow, and publish each when it ends.

    After an interruption, the same command resumes from the last checkpoints; finished instruments are skipped.
    """
    loaded = load_library(library)
    with shown_progress() as progress:
        records = pipeline.train(loaded, only, deadline_seconds=seconds_of(deadline), progress=progress)
    _finish_runs(loaded, records, as_json=as_json)


def publish(library: LibraryFile, only: Only = None, as_json: Json = False, debug: Debug = False) -> None:
    """Publish models from the newest checkpoints of stopped, killed or running instruments.

    Trains nothing. The card marks such a model as incomplete; training can continue unaffected.
    """
    loaded = load_library(library)
    with shown_progress() as progress:
        records = pipeline.publish(loaded, only, progress=progress)
    _finish_runs(loaded, records, as_json=as_json, complete=all(r.model and not r.error for r in records))


def run(
    library: LibraryFile, only: Only = None, deadline: Deadline = None, as_json: Json = False, debug: Debug = False
) -> None:
    """Run all stages: check, ingest, train, publish, report.

    A failed instrument is reported; the others continue.
    """
    loaded = load_library(library)
    with shown_progress() as progress:
        result = pipeline.run(loaded, only, deadline_seconds=seconds_of(deadline), progress=progress)
    extra = {"report": result.report, "ingested": [item.to_json() for item in result.ingested]}
    if not as_json:
        console.show_ingested([item for item in result.ingested if not item.error])
    _finish_runs(loaded, result.records, as_json=as_json, complete=result.complete, extra=extra)


def submit(
    library: LibraryFile,
    only: Only = None,
    deadline: Deadline = None,
    shared_store: Annotated[
        bool, typer.Option("--shared-store", help="The store is a folder that every host mounts under the same path.")
    ] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Do not follow the job.")] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Upload the recordings of this machine, run all stages as a job on a cluster, and follow it.

    The job does not need this machine: after Ctrl-C or without a connection it continues; the same command follows it.
    """
    from rave_dist.submission.follow import follow
    from rave_dist.submission.submit import submit_library

    loaded = load_library(library)
    seconds_of(deadline)  # refused here rather than by the job
    with shown_progress() as progress:
        submission = submit_library(loaded, only, deadline=deadline, shared_store=shared_store, progress=progress)
        job = submission.job
        try:
            progress.say(f"{'started' if submission.is_new else 'found'} the job {job.id}")
            if not detach:
                job = follow(submission.jobs, job.id, loaded, only, progress)
        except KeyboardInterrupt as stop:
            progress.say(f"detached: the job {job.id} continues; the same command follows it, ray job stop {job.id} ends it")
            raise typer.Exit(signals.exit_code(stop)) from stop
    outcome = {"job": job.id, "state": job.state, "is_new": submission.is_new}
    if not job.ended:
        if as_json:
            console.document({"library": loaded.name, **outcome})
        return
    if job.state != "succeeded" and job.exit_code != exit_codes.PARTIAL:
        raise ClusterError(
            f"the job {job.id} {'was stopped' if job.state == 'stopped' else 'failed'}: {job.message}",
            fix=f"ray job logs {job.id} shows what it printed; the same command starts another, which resumes",
        )
    extra = {**outcome, "report": loaded.store.address(f"report/{loaded.name}/index.html")}
    records = pipeline.status(loaded, only)
    _finish_runs(loaded, records, as_json=as_json, complete=job.state == "succeeded", extra=extra)


def status(
    library: LibraryFile,
    only: Only = None,
    follow: Annotated[
        bool,
        typer.Option(
            "--watch",
            help="Keep showing it until all have ended: a live table, lines in a pipe, with --json a document per line.",
        ),
    ] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Show the progress of each instrument; safe to run during training."""
    loaded = load_library(library)
    if follow:
        _watch(loaded, only, as_json=as_json)
        return
    holder = pipeline.holder(loaded)
    if not as_json and holder is not None:
        console.out.print(f"in use by {holder}", markup=False)
    records = pipeline.status(loaded, only)
    left = library_time_left(records)
    extra = {"in_use": holder and holder.to_json(), "time_left": left and left.to_json(datetime.now(UTC))}
    _finish_runs(loaded, records, as_json=as_json, complete=True, extra=extra)


def _watch(library: Library, only: list[str] | None, *, as_json: bool) -> None:
    from rave_dist.terminal.watch import show
    from rave_dist.watch import watch

    try:
        last = show(watch(library, library.select(only)), as_json=as_json)
    except KeyboardInterrupt as stop:  # the usual end, with nothing to say
        raise typer.Exit(signals.exit_code(stop)) from stop
    if last is not None:
        if not as_json:
            console.show_run_problems(last.runs)
        finish(all(record.state == "done" for record in last.runs))


def report(library: LibraryFile, as_json: Json = False, debug: Debug = False) -> None:
    """Write the library's page: curves, spectrograms, players, facts and errors."""
    loaded = load_library(library)
    with shown_progress() as progress:
        place = pipeline.report(loaded, progress=progress)
    if as_json:
        console.document({"library": loaded.name, "report": place})
    else:
        console.out.print(place)


def _finish_runs(
    library: Library,
    records: Sequence[RunRecord],
    *,
    as_json: bool,
    complete: bool | None = None,
    extra: dict[str, Any] | None = None,
) -> None:
    base = pipeline.base_status(library)
    hours = spent([*([base] if base else []), *records], library.manifest.price)
    if as_json:
        document = {"instruments": [r.summary() for r in records], "base": base and base.summary()}
        console.document({"library": library.name, **document, **hours, **(extra or {})})
    else:
        console.show_runs([*([base] if base else []), *records])
        console.show_spent(hours)
        if extra and "report" in extra:
            console.out.print(f"report: {extra['report']}")
    finish(all(r.state == "done" for r in records) if complete is None else complete)
