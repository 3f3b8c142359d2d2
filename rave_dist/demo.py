"""``rave-dist demo``: all stages on sample recordings, then the conversion of a field recording with every model.

It uses one folder (``demo/``) and loopback only. After an interruption, the same command resumes.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from rave_dist.audio.io.write import AudioWriter
from rave_dist.audio.synthesis import field_recording
from rave_dist.errors import LibraryError, WrongPackageError
from rave_dist.library.manifest import load_library
from rave_dist.pipeline import models
from rave_dist.sample_data import prepare, sample_library
from rave_dist.terminal import console

FIELD_SECONDS = 45.0
FIELD_RATE = 48_000
_SEED = 2026


def write_field_recording(folder: Path, *, seconds: float = FIELD_SECONDS) -> Path:
    """Writes a stereo field recording with a kingfisher-like bird, and the times of its calls as JSON.

    Its sample rate and channels differ from those of the models, like those of real recordings. An existing file is kept.
    """
    path = folder / "forest edge.wav"
    if path.exists():
        return path
    left, calls = field_recording(seconds, sample_rate=FIELD_RATE, seed=_SEED)
    right = np.roll(left, 24)  # the bird is half a millisecond to the left
    truth = [{"start": call.start, "seconds": call.seconds, "peak": call.peak} for call in calls]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "calls.json").write_text(json.dumps(truth, indent=1) + "\n", encoding="utf-8")
    with AudioWriter(path, sample_rate=FIELD_RATE, channels=2, file_format="wav") as writer:
        writer.write(np.stack([left, right]))
    return path


def _command(*arguments: str) -> int:
    """Runs ``rave-dist`` in a separate process, which frees its memory afterwards."""
    console.err.print(f"\n$ rave-dist {shlex.join(arguments)}", style="bold", markup=False)
    # One thread for each process: the concurrent runs fill the cores.
    environment = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", **os.environ}
    return subprocess.run([sys.executable, "-m", "rave_dist", *arguments], env=environment, check=False).returncode


def prepare_demo(library: str | None, folder: Path) -> Path:
    """Writes a sample library's recordings and manifest to a folder.

    Args:
        library: a sample library's name or a manifest's path; None is ``sonic-pi``, or ``generated`` without apt.
        folder: target folder; created if necessary.

    Returns:
        The manifest's path in the folder.

    Raises:
        LibraryError: no such library, or its recordings cannot be downloaded.
    """

    def tell(message: str) -> None:
        console.err.print(message, markup=False)

    if library is not None:
        return prepare(sample_library(library), folder, tell=tell)
    try:
        return prepare(sample_library("sonic-pi"), folder, tell=tell)
    except WrongPackageError:
        raise
    except LibraryError as error:
        console.error(error)
        tell("continuing with synthesised recordings")
        return prepare(sample_library("generated"), folder, tell=tell)


def run_demo(manifest: Path, folder: Path) -> int:
    """Trains a prepared library, converts the field recording with every model and prints the paths of the results.

    Returns:
        The exit code: 0, or the largest one of the commands; 3 if an instrument has no model.
    """
    began = time.monotonic()
    library = load_library(manifest)
    trained = _command("run", str(manifest))
    field = write_field_recording(folder / "field")
    names = sorted({card.name for card in models(library.store)} & set(library.instruments))
    results = folder / "converted"
    converted = [
        _command("convert", "--store", library.store.uri, "--model", name, str(field), str(results / name)) for name in names
    ]
    minutes = (time.monotonic() - began) / 60
    console.out.print(f"\n{len(names)} instruments in {minutes:.1f} minutes:", markup=False)
    for label, place in (
        ("page", library.store.address(f"report/{library.name}/index.html")),
        ("models", library.store.address("models")),
        ("field recording", field.absolute()),
        ("converted", results.absolute()),
        ("manifest", manifest.absolute()),
    ):
        console.out.print(f"  {label:<16} {place}", markup=False)
    console.out.print(f"\nnext: rave-dist serve --store {library.store.uri}", markup=False)
    return max([trained, *converted]) or (3 if len(names) < len(library.instruments) else 0)
