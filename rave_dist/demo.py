"""``python -m rave_dist.demo``: the whole job on sample recordings, then a noisy field recording through every model.

Everything happens in one folder (``demo/``) and on loopback. Run again, it goes on where it stopped.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from rave_dist import console
from rave_dist.audio.io.write import AudioWriter
from rave_dist.audio.synthesis import field_recording
from rave_dist.errors import LibraryError, RaveDistError, WrongPackageError
from rave_dist.library.manifest import load_library
from rave_dist.sample_data import prepare

DATASETS = Path(__file__).parent.parent / "datasets"
FIELD_SECONDS = 45.0
FIELD_RATE = 48_000
_SEED = 2026


def write_field_recording(folder: Path, *, seconds: float = FIELD_SECONDS) -> Path:
    """A stereo recording of a forest's edge with a kingfisher-like bird in the middle, and when it calls, as JSON.

    Not at the models' rate and not mono, as real ones are not. Kept if it is there.
    """
    path = folder / "forest edge.wav"
    if path.exists():
        return path
    left, calls = field_recording(seconds, sample_rate=FIELD_RATE, seed=_SEED)
    right = np.roll(left, 24)  # the bird stands half a millisecond to the left
    truth = [{"start": call.start, "seconds": call.seconds, "peak": call.peak} for call in calls]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "calls.json").write_text(json.dumps(truth, indent=1) + "\n", encoding="utf-8")
    with AudioWriter(path, sample_rate=FIELD_RATE, channels=2, file_format="wav") as writer:
        writer.write(np.stack([left, right]))
    return path


def _command(*arguments: str) -> int:
    """Runs ``rave-dist`` as a user would, a process of its own that takes its memory with it."""
    console.err.print(f"\n$ rave-dist {shlex.join(arguments)}", style="bold", markup=False)
    # One thread for each process: the runs side by side are what fills the cores.
    environment = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", **os.environ}
    return subprocess.run([sys.executable, "-m", "rave_dist", *arguments], env=environment, check=False).returncode


def _prepared(manifest: Path | None, folder: Path) -> Path:
    def tell(message: str) -> None:
        console.err.print(message, markup=False)

    if manifest is not None:
        return prepare(manifest, folder, tell=tell)
    try:
        return prepare(DATASETS / "sonic-pi.yaml", folder, tell=tell)
    except WrongPackageError:
        raise
    except LibraryError as error:
        console.error(error)
        tell("going on with synthesised recordings")
        return prepare(DATASETS / "generated.yaml", folder, tell=tell)


def demo(
    manifest: Annotated[
        Path | None,
        typer.Argument(
            metavar="[MANIFEST.yaml]", help="A manifest of datasets/.  [default: sonic-pi.yaml, or generated.yaml without apt]"
        ),
    ] = None,
    folder: Annotated[Path, typer.Option("--folder", help="Where everything goes.")] = Path("demo"),
    prepare_only: Annotated[bool, typer.Option("--prepare-only", help="Put recordings and manifest there and stop.")] = False,
) -> None:
    """Train, publish and play a small library of instruments on sample recordings; about a quarter of an hour on two cores."""
    began = time.monotonic()
    try:
        library_file = _prepared(manifest, folder)
        library = load_library(library_file)
        if prepare_only:
            console.out.print(str(library_file), markup=False)
            return
        trained = _command("run", str(library_file))
        field = write_field_recording(folder / "field")
        from rave_dist.registry.store import list_models  # here: preparing needs no torch

        names = sorted({card.name for card in list_models(library.store)} & set(library.instruments))
        results = folder / "converted"
        converted = [
            _command("convert", "--store", library.store.uri, "--model", name, str(field), str(results / name))
            for name in names
        ]
    except RaveDistError as error:
        console.error(error)
        raise typer.Exit(1) from error
    minutes = (time.monotonic() - began) / 60
    console.out.print(f"\n{len(names)} instruments in {minutes:.1f} minutes:", markup=False)
    for label, place in (
        ("page", library.store.address(f"report/{library.name}/index.html")),
        ("models", library.store.address("models")),
        ("the bird", field.absolute()),
        ("through each model", results.absolute()),
        ("manifest", library_file.absolute()),
    ):
        console.out.print(f"  {label:<19} {place}", markup=False)
    console.out.print(f"\nnext: rave-dist serve --store {library.store.uri}", markup=False)
    worst = max([trained, *converted])
    if worst or len(names) < len(library.instruments):
        raise typer.Exit(worst or 3)


if __name__ == "__main__":
    typer.run(demo)
