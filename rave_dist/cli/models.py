"""The commands that use published models."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from rave_dist import archives, pipeline
from rave_dist.archives import watched
from rave_dist.cli.options import Debug, InputsBelow, Json, OutputsBelow, StoreUri, Trust, existing, finish
from rave_dist.errors import RaveDistError
from rave_dist.options import DEFAULT_CHUNK_SECONDS, DEFAULT_FORMAT, DEFAULT_LATENT_NOISE, DEFAULT_SEED, AudioFormat, LoudnessOf
from rave_dist.records import ConversionParameters, Problem
from rave_dist.records.conversion_options import changes, latent_change, named_change
from rave_dist.storage.store import Store
from rave_dist.terminal import console
from rave_dist.terminal.conversion import show_conversions, show_conversions_end
from rave_dist.terminal.display import shown_progress


def models(store: StoreUri, as_json: Json = False, debug: Debug = False) -> None:
    """List all versions of the published models."""
    place = existing(store)
    invalid: list[RaveDistError] = []
    cards = pipeline.models(place, invalid.append)
    latest = {card.reference for card in pipeline.latest_models(place)}
    if as_json:
        found = [{**card.summary(place.uri), "latest": card.reference in latest} for card in cards]
        console.document({"models": found, "invalid": [Problem.of(error).to_json() for error in invalid]})
    else:
        console.show_models(cards, latest=latest)
        for error in invalid:
            console.failure(error.where, error.what, error.fix)
    finish(not invalid)


def convert(
    context: typer.Context,
    store: StoreUri,
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="INPUT... OUTPUT", help="Files, folders or s3:// prefixes; the last one is OUTPUT.", show_default=False
        ),
    ] = None,
    manifest: Annotated[
        Path | None,
        typer.Option(
            "--manifest",
            metavar="CONVERSIONS.yaml",
            help="Conversions to do instead, each with models, inputs, output and parameters.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            metavar="NAME[@VERSION]",
            help="The model; can be repeated: the results are then in OUTPUT/NAME.",
            show_default=False,
        ),
    ] = None,
    models: Annotated[
        str | None,
        typer.Option("--models", metavar="all", help="All published models, each in OUTPUT/NAME.", show_default=False),
    ] = None,
    chunk_seconds: Annotated[
        float,
        typer.Option(
            "--chunk-seconds", min=0.5, help="Seconds of audio in memory at once; changes the result only by rounding."
        ),
    ] = DEFAULT_CHUNK_SECONDS,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            min=1,
            help="Processes that convert, on Ray.  [default: as many as fit; no Ray if it takes about a minute]",
            show_default=False,
        ),
    ] = None,
    file_format: Annotated[
        AudioFormat, typer.Option("--format", help="FLAC or WAV; keep: WAV stays WAV, all else becomes FLAC.")
    ] = DEFAULT_FORMAT,
    sample_rate: Annotated[
        int | None, typer.Option("--sample-rate", min=8000, max=192_000, help="Hertz.  [default: that of each source]")
    ] = None,
    channels: Annotated[int | None, typer.Option("--channels", min=1, max=8, help="[default: those of each source]")] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, max=2**31 - 1, help="Picks all noise.")] = DEFAULT_SEED,
    latent_noise: Annotated[
        float,
        typer.Option(
            "--latent-noise", min=0, max=1000, help="Noise around the latents: 1 as the streaming file plays, 0 for their mean."
        ),
    ] = DEFAULT_LATENT_NOISE,
    noise: Annotated[
        float,
        typer.Option("--noise", min=0, max=1000, help="Level of the model's noise generator; 0 leaves it out."),
    ] = 1.0,
    temperature: Annotated[
        float,
        typer.Option("--temperature", min=0, max=1000, help="Factor on all latents: below 1 plainer, above 1 further out."),
    ] = 1.0,
    latent: Annotated[
        list[str] | None,
        typer.Option(
            "--latent",
            metavar="N=scale:S,bias:B",
            help="Change latent N, from 1; can be repeated, e.g. 3=scale:1.2,bias:-0.1.",
            show_default=False,
        ),
    ] = None,
    named: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=+0.5",
            help="Move the latent of this name, e.g. loudness, by standard deviations; can be repeated.",
            show_default=False,
        ),
    ] = None,
    denoise: Annotated[
        float,
        typer.Option("--denoise", min=0, max=1, help="Share of the background noise that is removed before the model."),
    ] = 0.0,
    gate: Annotated[
        float | None,
        typer.Option(
            "--gate",
            metavar="DB",
            min=0,
            max=100,
            help="Silence where the recording is less than this above its noise floor, e.g. 12.",
            show_default=False,
        ),
    ] = None,
    skip_silence: Annotated[
        float | None,
        typer.Option(
            "--skip-silence",
            metavar="DBFS",
            min=-200,
            max=0,
            help="Silence where the recording is below this peak, e.g. -90.",
            show_default=False,
        ),
    ] = None,
    mix: Annotated[
        float, typer.Option("--mix", min=0, max=1, help="Share of the model's output; the rest is the recording.")
    ] = 1.0,
    match_loudness: Annotated[
        LoudnessOf | None,
        typer.Option(
            "--match-loudness",
            help="Give the whole file, or each call, the loudness that it has in the recording.",
            show_default=False,
        ),
    ] = None,
    only_above: Annotated[
        float | None,
        typer.Option(
            "--only-above",
            metavar="SCORE",
            min=0,
            max=1,
            help="Silence where the recording is less familiar to the model, e.g. 0.5.",
            show_default=False,
        ),
    ] = None,
    trust: Trust = False,
    salvage: Annotated[bool, typer.Option("--salvage", help="Convert the readable part of damaged files.")] = False,
    page: Annotated[
        str | None,
        typer.Option("--page", metavar="FILE.html", help="Write a page: totals, problems, credit, a sample to listen to."),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Convert what arrives in the folder INPUT until Ctrl-C.")] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Convert recordings with one or several models, keeping the folder tree, lengths, sample rates and channels.

    Several models convert in one pass, each to its own folder. Sources are never modified. A second run converts only missing
    files. Damaged files, and outputs that are silent or clipped where the recording is not, are reported (exit code 3).
    """
    if manifest is not None:
        _refuse_other_options(context)
        return _convert_manifest(
            manifest, existing(store), chunk_seconds=chunk_seconds, workers=workers, trust=trust, as_json=as_json
        )
    if paths is None or len(paths) < 2:
        raise typer.BadParameter("give at least one INPUT, and OUTPUT last", param_hint="INPUT... OUTPUT")
    if models not in (None, "all"):
        raise typer.BadParameter(f"{models!r} is not 'all'; name single models with --model", param_hint="--models")
    if (models is None) == (not model):
        raise typer.BadParameter("name one or several models with --model, or give --models all", param_hint="--model")
    parameters = ConversionParameters.of(
        sample_rate=sample_rate,
        channels=channels,
        format=file_format,
        seed=seed,
        latent_noise=latent_noise,
        noise=noise,
        temperature=temperature,
        latents=changes(latent_change, latent or ()),
        named=changes(named_change, named or ()),
        salvage=salvage,
        denoise=denoise,
        gate=gate,
        skip_silence=skip_silence,
        mix=mix,
        match_loudness=match_loudness,
        only_above=only_above,
    )
    began, place = time.monotonic(), existing(store)
    with shown_progress() as progress:
        records = (watched.watch if watch else archives.convert)(
            place,
            model or None,
            paths[:-1],
            paths[-1],
            parameters=parameters,
            chunk_seconds=chunk_seconds,
            workers=workers,
            trust=trust,
            page=page,
            progress=progress,
        )
    if not as_json:
        show_conversions(records)
        show_conversions_end(records, took=time.monotonic() - began, store=place, page=page)
    elif models is None and len(records) == 1:
        console.document(records[0].to_json())
    else:
        console.document({"conversions": [record.to_json() for record in records]})
    finish(all(record.is_complete for record in records))


_WITH_A_MANIFEST = {"manifest", "store", "chunk_seconds", "workers", "trust", "as_json", "debug"}


def _refuse_other_options(context: typer.Context) -> None:
    """Refuses what belongs in the manifest."""
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if source is not None and source.name == "COMMANDLINE" and parameter.name not in _WITH_A_MANIFEST:
            name = parameter.opts[0] if parameter.opts[0].startswith("-") else "INPUT... OUTPUT"
            raise typer.BadParameter("belongs in the manifest of --manifest", param_hint=name)


def _convert_manifest(
    manifest: Path, store: Store, *, chunk_seconds: float, workers: int | None, trust: bool, as_json: bool
) -> None:
    from rave_dist.archives.batch import convert_batch
    from rave_dist.library.conversions import read_conversions

    began, conversions = time.monotonic(), read_conversions(manifest)
    with shown_progress() as progress:
        records, errors = convert_batch(
            store, conversions, chunk_seconds=chunk_seconds, workers=workers, trust=trust, progress=progress
        )
    if as_json:
        failures = [Problem.of(error).to_json() for error in errors]
        console.document({"conversions": [record.to_json() for record in records], "failed": failures})
    else:
        if records:
            show_conversions(records)
            show_conversions_end(records, took=time.monotonic() - began, store=store)
        for error in errors:
            console.failure(error.where, error.what, error.fix)
    finish(not errors and all(record.is_complete for record in records))


def serve(
    store: StoreUri,
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Port on 127.0.0.1.")] = 8000,
    outputs: OutputsBelow = None,
    inputs: InputsBelow = None,
    trust: Trust = False,
    debug: Debug = False,
) -> None:
    """Serve the published models over HTTP on this machine only; Ctrl-C ends it."""
    place = existing(store)
    with shown_progress() as progress:
        progress.stage("starting Ray")  # before its import, which takes seconds
        from rave_dist.serving.app import run as run_server

        run_server(place, port=port, outputs=outputs or (), inputs=inputs or (), trust=trust, progress=progress)


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
    with shown_progress() as progress:
        progress.stage("writing the run")
        path = pipeline.unpack(Store(store), model, folder)
    if as_json:
        console.document({"model": model, "run": str(folder), "checkpoint": str(path)})
    else:
        console.out.print(str(path))
