"""The command line: exit codes are 0 (all done), 1 (could not run), 2 (usage) and 3 (some items failed)."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from rave_dist import __version__, exit_codes, pipeline, signals
from rave_dist.cli.options import Debug, InputsBelow, Json, LibraryFile, Only, OutputsBelow, StoreUri, Trust
from rave_dist.cli.options import existing as _existing
from rave_dist.cli.options import finish as _finish
from rave_dist.cli.store import WithReadData, prune, verify
from rave_dist.errors import RaveDistError
from rave_dist.library.manifest import Library, load_library
from rave_dist.options import DEFAULT_CHUNK_SECONDS, DEFAULT_FORMAT, DEFAULT_LATENT_NOISE, DEFAULT_SEED, AudioFormat
from rave_dist.records import ConversionParameters, Problem, RunRecord
from rave_dist.storage.store import Store
from rave_dist.terminal import console
from rave_dist.terminal.display import shown_progress


class _Commands(TyperGroup):
    """Turns a `RaveDistError` of any command into a message and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except RaveDistError as problem:
            if "--debug" in sys.argv:
                raise
            console.error(problem)
            raise typer.Exit(exit_codes.FAILED) from problem
        except KeyboardInterrupt as stop:
            console.err.print(signals.STOPPED)
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


@app.command()
def check(library: LibraryFile, only: Only = None, as_json: Json = False, debug: Debug = False) -> None:
    """Report the planned runs, the problems and their fixes.

    Trains nothing; tests whether the store can be written.
    """
    loaded = load_library(library)
    with shown_progress() as progress:
        checks = pipeline.check(loaded, only, progress=progress)
    if as_json:
        console.document({"library": loaded.name, **checks.to_json()})
    else:
        console.show_checks(checks)
    _finish(all(c.ok for c in checks.in_order))


@app.command()
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

    found = write_first_manifest(folder, output)
    if as_json:
        console.document(found.to_json())
    else:
        console.show_first_manifest(found)


@app.command()
def schema() -> None:
    """Print the JSON Schema of the library manifest, for completion and validation in editors.

    In editors with a YAML language server, such as VS Code, save it next to the manifest as `manifest.schema.json` and begin
    the manifest with `# yaml-language-server: $schema=manifest.schema.json`.
    """
    from rave_dist.library.json_schema import manifest_schema

    console.document(manifest_schema())


@app.command()
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
    _finish(all(item.complete for item in items))


@app.command()
def train(library: LibraryFile, only: Only = None, as_json: Json = False, debug: Debug = False) -> None:
    """Train all ingested instruments, as many at once as the resources allow, and publish each when it ends.

    After an interruption, the same command resumes from the last checkpoints; finished instruments are skipped.
    """
    loaded = load_library(library)
    with shown_progress() as progress:
        records = pipeline.train(loaded, only, progress=progress)
    _finish_runs(loaded, records, as_json=as_json)


@app.command()
def publish(library: LibraryFile, only: Only = None, as_json: Json = False, debug: Debug = False) -> None:
    """Publish models from the newest checkpoints of stopped, killed or running instruments.

    Trains nothing. The card marks such a model as incomplete; training can continue unaffected.
    """
    loaded = load_library(library)
    with shown_progress() as progress:
        records = pipeline.publish(loaded, only, progress=progress)
    _finish_runs(loaded, records, as_json=as_json, complete=all(r.model and not r.error for r in records))


@app.command()
def run(library: LibraryFile, only: Only = None, as_json: Json = False, debug: Debug = False) -> None:
    """Run all stages: check, ingest, train, publish, report.

    A failed instrument is reported; the others continue.
    """
    loaded = load_library(library)
    with shown_progress() as progress:
        result = pipeline.run(loaded, only, progress=progress)
    extra = {"report": result.report, "ingested": [item.to_json() for item in result.ingested]}
    if not as_json:
        console.show_ingested([item for item in result.ingested if not item.error])
    _finish_runs(loaded, result.records, as_json=as_json, complete=result.complete, extra=extra)


@app.command()
def status(library: LibraryFile, only: Only = None, as_json: Json = False, debug: Debug = False) -> None:
    """Show the progress of each instrument; safe to run during training."""
    loaded = load_library(library)
    holder = pipeline.holder(loaded)
    if not as_json and holder is not None:
        console.out.print(f"in use by {holder}", markup=False)
    extra = {"in_use": holder and holder.to_json()}
    _finish_runs(loaded, pipeline.status(loaded, only), as_json=as_json, complete=True, extra=extra)


@app.command()
def models(store: StoreUri, as_json: Json = False, debug: Debug = False) -> None:
    """List all versions of the published models."""
    place = _existing(store)
    invalid: list[RaveDistError] = []
    cards = pipeline.models(place, invalid.append)
    latest = {pipeline.find_model(place, name).reference for name in dict.fromkeys(card.name for card in cards)}
    if as_json:
        found = [{**card.summary(place.uri), "latest": card.reference in latest} for card in cards]
        console.document({"models": found, "invalid": [Problem.of(error).to_json() for error in invalid]})
    else:
        console.show_models(cards, latest=latest)
        for error in invalid:
            console.failure(error.where, error.what, error.fix)
    _finish(not invalid)


app.command(cls=WithReadData)(verify)
app.command()(prune)


@app.command()
def unpack(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The run folder to make.", show_default=False)],
    store: StoreUri,
    model: Annotated[str, typer.Option("--model", metavar="NAME[@VERSION]", help="The model.", show_default=False)],
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Write a model's run in the format of stock RAVE: config.gin and version_0/checkpoints.

    `rave export --run FOLDER` opens it, and `rave train --ckpt` resumes from its last.ckpt. Conversely, an instrument starts
    from a stock run with `base: {stock: FOLDER}` in the library manifest.
    """
    path = pipeline.unpack(Store(store), model, folder)
    if as_json:
        console.document({"model": model, "run": str(folder), "checkpoint": str(path)})
    else:
        console.out.print(str(path))


@app.command()
def convert(
    paths: Annotated[
        list[str],
        typer.Argument(metavar="INPUT... OUTPUT", help="Files, folders or s3:// prefixes; the last one is OUTPUT."),
    ],
    store: StoreUri,
    model: Annotated[str, typer.Option("--model", metavar="NAME[@VERSION]", help="The model.", show_default=False)],
    chunk_seconds: Annotated[
        float, typer.Option("--chunk-seconds", min=0.5, help="Seconds of audio in memory at once; does not affect the result.")
    ] = DEFAULT_CHUNK_SECONDS,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            min=1,
            help="Files converted at once, on Ray.  [default: as many as fit; no Ray if it takes about a minute]",
            show_default=False,
        ),
    ] = None,
    file_format: Annotated[AudioFormat, typer.Option("--format", help="Format of the results: FLAC or WAV.")] = DEFAULT_FORMAT,
    sample_rate: Annotated[
        int | None, typer.Option("--sample-rate", min=8000, max=192_000, help="Hertz.  [default: that of each source]")
    ] = None,
    channels: Annotated[int | None, typer.Option("--channels", min=1, max=8, help="[default: those of each source]")] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Picks all noise.")] = DEFAULT_SEED,
    latent_noise: Annotated[
        float,
        typer.Option(
            "--latent-noise", min=0, max=1000, help="Noise around the latents: 1 as the streaming file plays, 0 for their mean."
        ),
    ] = DEFAULT_LATENT_NOISE,
    trust: Trust = False,
    salvage: Annotated[bool, typer.Option("--salvage", help="Convert the readable part of damaged files.")] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Convert recordings with a model, keeping the folder tree, lengths, sample rates and channels.

    Sources are never modified. A second run converts only missing files. Damaged files, and outputs that are silent or clipped
    where the recording is not, are reported (exit code 3).
    """
    if len(paths) < 2:
        raise typer.BadParameter("give at least one INPUT, and OUTPUT last", param_hint="INPUT... OUTPUT")
    parameters = ConversionParameters(
        sample_rate=sample_rate, channels=channels, format=file_format, seed=seed, latent_noise=latent_noise, salvage=salvage
    )
    with shown_progress() as progress:
        record = pipeline.convert(
            _existing(store),
            model,
            paths[:-1],
            paths[-1],
            parameters=parameters,
            chunk_seconds=chunk_seconds,
            workers=workers,
            trust=trust,
            progress=progress,
        )
    if as_json:
        console.document(record.to_json())
    else:
        console.show_conversion(record)
    _finish(record.is_complete)


@app.command()
def report(library: LibraryFile, as_json: Json = False, debug: Debug = False) -> None:
    """Write the library's page: curves, spectrograms, players, facts and errors."""
    loaded = load_library(library)
    with shown_progress() as progress:
        place = pipeline.report(loaded, progress=progress)
    if as_json:
        console.document({"library": loaded.name, "report": place})
    else:
        console.out.print(place)


@app.command()
def serve(
    store: StoreUri,
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Port on 127.0.0.1.")] = 8000,
    outputs: OutputsBelow = None,
    inputs: InputsBelow = None,
    trust: Trust = False,
    debug: Debug = False,
) -> None:
    """Serve the published models over HTTP on this machine only; Ctrl-C ends it."""
    place = _existing(store)
    with shown_progress() as progress:
        progress.stage("starting Ray")  # before its import, which takes seconds
        from rave_dist.serving.app import run as run_server

        run_server(place, port=port, outputs=outputs or (), inputs=inputs or (), trust=trust, progress=progress)


@app.command()
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


@app.command()
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
    _finish(healthy)


def _finish_runs(
    library: Library,
    records: Sequence[RunRecord],
    *,
    as_json: bool,
    complete: bool | None = None,
    extra: dict[str, Any] | None = None,
) -> None:
    base = pipeline.base_status(library)
    if as_json:
        document = {"instruments": [r.summary() for r in records], "base": base and base.summary()}
        console.document({"library": library.name, **document, **(extra or {})})
    else:
        console.show_runs([*([base] if base else []), *records])
        if extra and "report" in extra:
            console.out.print(f"report: {extra['report']}")
    _finish(all(r.state == "done" for r in records) if complete is None else complete)


def command() -> Any:
    """The whole command line, callable."""
    return typer.main.get_command(app)
