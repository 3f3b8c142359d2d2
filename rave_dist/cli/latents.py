"""The commands for the latents of published models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from rave_dist.archives import latents
from rave_dist.cli.options import Debug, Json, StoreUri, Trust, existing, finish
from rave_dist.options import DEFAULT_LATENT_NOISE, DEFAULT_SEED
from rave_dist.terminal import console
from rave_dist.terminal.display import shown_progress

_LatentNoise = Annotated[
    float, typer.Option("--latent-noise", min=0, max=1000, help="Noise around the latents; 0 for their mean.")
]


def encode(
    paths: Annotated[
        list[str],
        typer.Argument(metavar="INPUT... OUTPUT", help="Files, folders or s3:// prefixes; OUTPUT is a folder or x.parquet."),
    ],
    store: StoreUri,
    model: Annotated[str, typer.Option("--model", metavar="NAME[@VERSION]", help="The model.", show_default=False)],
    seed: Annotated[
        int, typer.Option("--seed", min=0, max=2**31 - 1, help="Picks all noise, that of decode too.")
    ] = DEFAULT_SEED,
    latent_noise: _LatentNoise = DEFAULT_LATENT_NOISE,
    trust: Trust = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Write the latents of recordings as Parquet tables, to edit with any tool.

    A row per latent frame, a column per latent. `rave-dist decode` makes sound of them again: that of an unchanged table is the
    conversion of its recording. A table that is there is kept if it is of the same recording, model and noise.
    """
    *inputs, output = _two(paths, "INPUT... OUTPUT")
    with shown_progress() as progress:
        written = latents.encode(
            existing(store), model, inputs, output, seed=seed, latent_noise=latent_noise, trust=trust, progress=progress
        )
    _show(written, as_json)


def decode(
    paths: Annotated[
        list[str],
        typer.Argument(metavar="TABLE... OUTPUT", help="Tables or folders with some; OUTPUT is a folder, x.wav or x.flac."),
    ],
    store: StoreUri,
    like: Annotated[
        str | None,
        typer.Option(
            "--like",
            metavar="ORIGINAL.parquet",
            help="The table before it was edited, if the tool dropped its metadata.",
            show_default=False,
        ),
    ] = None,
    trust: Trust = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Play tables of latents through the model that each names, at the sample rate and with the channels of its recording.

    The sound is as long as its rows: frames may be edited, moved, removed or added.
    """
    *tables, output = _two(paths, "TABLE... OUTPUT")
    with shown_progress() as progress:
        written = latents.decode(existing(store), tables, output, like=like, trust=trust, progress=progress)
    _show(written, as_json)


def morph(
    paths: Annotated[
        list[str], typer.Argument(metavar="SOUND [SOUND] OUTPUT", help="One or two recordings, and x.wav or x.flac.")
    ],
    store: StoreUri,
    model: Annotated[
        list[str],
        typer.Option(
            "--model", metavar="NAME[@VERSION]", help="The model, or two from one base with freeze_encoder.", show_default=False
        ),
    ],
    amount: Annotated[float, typer.Option("--amount", min=0, max=1, help="How far from the first to the second.")] = 0.5,
    to: Annotated[
        float | None,
        typer.Option(
            "--to", min=0, max=1, help="The amount at the end, with one model.  [default: --amount]", show_default=False
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, max=2**31 - 1, help="Picks all noise.")] = DEFAULT_SEED,
    latent_noise: _LatentNoise = DEFAULT_LATENT_NOISE,
    trust: Trust = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Write a sound between two sounds, or between two instruments of one encoder.

    Two sounds are mixed in the model's latents, and the result ends with the shorter one; two instruments in their weights.
    """
    *sounds, output = _two(paths, "SOUND [SOUND] OUTPUT")
    with shown_progress() as progress:
        written = latents.morph(
            existing(store),
            model,
            sounds,
            output,
            amount=(amount, amount if to is None else to),
            seed=seed,
            latent_noise=latent_noise,
            trust=trust,
            progress=progress,
        )
    _show([written], as_json)


def _two(paths: list[str], metavar: str) -> list[str]:
    if len(paths) < 2:
        raise typer.BadParameter(f"give at least one {metavar.partition('.')[0]}, and OUTPUT last", param_hint=metavar)
    return paths


def _show(written: Sequence[latents.Written], as_json: bool) -> None:
    if as_json:
        console.document({"written": [each.to_json() for each in written]})
    else:
        for each in written:
            if each.problem is not None:
                console.failure(each.source, each.problem.what, each.problem.fix)
            else:
                console.out.print(console.escape(each.output) + " (kept as it was)" * each.kept)
    finish(all(each.problem is None for each in written))
