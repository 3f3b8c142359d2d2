"""Conversion of a 229-second recording: `rave generate` against rave-dist, CPU-seconds and memory of the whole process tree.

    python benchmarks/convert.py [--json] [--rounds N] [--seconds S]

The model is v2_small at full size with random weights, which cost as much as trained ones; the recording is generated
(mono, 44100 Hz, 16 bits). Measured alternately, each with the start of its process and the loading of its model:

- stock: ``rave generate`` on a run folder, RAVE's own conversion.
- Converter alone: a script that only loads the model and reads, converts and writes the file.
- one worker: the work of an actor of `rave-dist convert`: hash, decode, check, convert in chunks, encode, journal.
- whole command: ``rave-dist convert``, which converts a single recording in its own process.
- whole command, on Ray: the same with ``--workers 1``, with the start and end of an embedded Ray, which a corpus pays once.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile
from harness import Usage, interleave, measure, median, report

SAMPLE_RATE = 44100
NAME = "bench"
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
REPAIRS = (
    "repairs without which rave generate does not run with a CPU-only torch: torchaudio's native library is declared absent "
    "(rave_dist.rave.imports); torchaudio's load, save and get_audio_backend, gone or needing torchcodec, are soundfile's; "
    "Lightning 2 loads checkpoints by the class, not by an instance"
)
# Runs in a separate process, like `rave generate`, with the unmodified script.
STOCK = """
import runpy, sys
from pathlib import Path
from rave_dist.rave.config import configure
from rave_dist.rave.imports import install_repairs, rave_module
from rave_dist.rave.models import build_model
install_repairs()
import pytorch_lightning, soundfile, torch, torchaudio
def load(path):
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return torch.from_numpy(samples.T.copy()), rate
torchaudio.load = load
torchaudio.save = lambda path, x, sample_rate: soundfile.write(path, x.detach().numpy().T, sample_rate)
torchaudio.get_audio_backend = lambda: "soundfile"
rave = rave_module()
by_class = rave.RAVE.load_from_checkpoint
rave.RAVE.load_from_checkpoint = lambda model, path: by_class(path)
script = Path(rave.__file__).parents[1] / "scripts" / "generate.py"
sys.argv[0] = "generate"
runpy.run_path(str(script), run_name="__main__")
"""


def prepare(folder: Path) -> None:
    """In a separate process: the model as a stock run folder, and published in a store."""
    import torch

    from rave_dist.options import Budget
    from rave_dist.rave.config import configure
    from rave_dist.rave.models import build_model
    from rave_dist.records import RunFolder, RunResult, TrainingSpec, Validation
    from rave_dist.registry.export import export_run
    from rave_dist.registry.publish import place
    from rave_dist.registry.store import model_version
    from rave_dist.storage.store import Store

    spec = TrainingSpec(
        library="benchmark",
        instrument=NAME,
        dataset="none",
        config=("v2_small",),
        sample_rate=SAMPLE_RATE,
        channels=1,
        budget=Budget(steps=2),
        seed=0,
    )
    torch.manual_seed(0)
    text = configure(spec.config, {}, sample_rate=SAMPLE_RATE, channels=1)
    model = build_model(text, channels=1)
    stock_run, run = folder / f"{NAME}_run", folder / "run"
    for place_of_config in (stock_run, run):
        place_of_config.mkdir()
        (place_of_config / "config.gin").write_text(text)
    checkpoint = {"state_dict": model.state_dict(), "pytorch-lightning_version": "1.9.0", "epoch": 0, "global_step": 0}
    torch.save(checkpoint, stock_run / "last.ckpt")
    torch.save(model.state_dict(), run / "weights.pt")
    (run / "spec.json").write_text(spec.model_dump_json())
    exported = export_run(run, folder / "out", name=NAME)
    steps = {"step": 0, "best_step": 0, "steps": 2, "phase_1_steps": 1}
    result = RunResult(phase=1, **steps, complete=False, validation=Validation(), seconds=0.0)
    version = model_version(RunFolder(run))
    place(Store(str(folder / "store")), spec, result, exported, folder / "out", version=version, seconds=0.0)


def convert_as_a_worker(folder: Path) -> None:
    """In a separate process: one file, without Ray."""
    import torch

    from rave_dist.conversion.convert import Converter
    from rave_dist.conversion.corpus import plan_conversion
    from rave_dist.conversion.item import convert_source
    from rave_dist.options import DEFAULT_CHUNK_SECONDS
    from rave_dist.records import ConversionParameters
    from rave_dist.registry.store import fetch, find
    from rave_dist.storage.store import Store

    torch.set_num_threads(1)
    store = Store(str(folder / "store"))
    card = find(store, NAME)
    converter = Converter(fetch(store, card, folder=folder / "cache"), card)
    plan = plan_conversion(card, [str(folder / "in")], str(folder / "worker"), ConversionParameters(format="wav"))
    (outcome,) = convert_source(store, plan.tasks[0], [(plan, converter)], chunk_seconds=DEFAULT_CHUNK_SECONDS)
    assert outcome.item.state == "converted", outcome


def convert_alone(folder: Path) -> None:
    """In a separate process: the model and one file, without hashes, checks and journal."""
    import torch

    from rave_dist.conversion.convert import Converter
    from rave_dist.records import ModelCard

    torch.set_num_threads(1)
    (place,) = (folder / "store" / "models" / NAME).glob("*/card.json")
    card = ModelCard.model_validate_json(place.read_bytes())
    converter = Converter(folder / "store" / card.files["offline"].key, card)
    (folder / "alone").mkdir()
    with (
        soundfile.SoundFile(folder / "in" / "recording.wav") as source,
        soundfile.SoundFile(folder / "alone" / "recording.wav", "w", SAMPLE_RATE, 1, subtype="PCM_24") as result,
    ):
        blocks = (block.T for block in source.blocks(10 * SAMPLE_RATE, dtype="float32", always_2d=True))
        for block in converter.convert(blocks, sample_rate=SAMPLE_RATE, channels=1):
            result.write(block.T)


def _clean(folder: Path, *names: str) -> None:
    for name in names:
        shutil.rmtree(folder / name, ignore_errors=True)


def _measured(folder: Path, command: list[str], seconds: float, result: str) -> Usage:
    _clean(folder, "alone", "worker", "command", "stock", "store/conversions")
    usage = measure(command, env=ENVIRONMENT, cwd=folder, timeout=1800)
    (path,) = (folder / result).rglob("*.wav")
    frames = soundfile.info(path).frames
    assert frames >= round(seconds * SAMPLE_RATE), f"{path} has {frames} samples"
    return usage


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=229.0)
    parser.add_argument("--prepare", help=argparse.SUPPRESS)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.prepare:
        return prepare(Path(arguments.prepare))
    if arguments.worker:
        return convert_as_a_worker(Path(arguments.worker))
    if arguments.alone:
        return convert_alone(Path(arguments.alone))
    with tempfile.TemporaryDirectory(prefix="rave-dist-bench-") as name:
        folder = Path(name)
        subprocess.run(
            [sys.executable, __file__, "--prepare", name], check=True, env=os.environ | ENVIRONMENT, stdout=sys.stderr
        )
        (folder / "in").mkdir()
        noise = np.random.default_rng(0).standard_normal(round(arguments.seconds * SAMPLE_RATE)) * 0.1
        soundfile.write(folder / "in" / "recording.wav", noise, SAMPLE_RATE)
        stock = [sys.executable, "-W", "ignore", "-c", STOCK, "--model", f"{NAME}_run", "--input", "in", "--out_path", "stock"]
        alone = [sys.executable, __file__, "--alone", name]
        worker = [sys.executable, __file__, "--worker", name]
        command = [sys.executable, "-m", "rave_dist", "convert", "--store", "store", "--model", NAME, "--format", "wav"]
        usages = {
            key: median(values)
            for key, values in interleave(
                {
                    "rave generate, run folder": lambda: _measured(folder, stock, arguments.seconds, "stock"),
                    "Converter alone": lambda: _measured(folder, alone, arguments.seconds, "alone"),
                    "rave-dist, one worker": lambda: _measured(folder, worker, arguments.seconds, "worker"),
                    "rave-dist convert, whole command": lambda: _measured(
                        folder, [*command, "in", "command"], arguments.seconds, "command"
                    ),
                    "rave-dist convert --workers 1, on Ray": lambda: _measured(
                        folder, [*command, "--workers", "1", "in", "command"], arguments.seconds, "command"
                    ),
                },
                rounds=arguments.rounds,
            ).items()
        }
    theirs, converter, ours, whole, on_ray = usages.values()
    rows = [
        {"": key, "CPU s": u.cpu_seconds, "wall s": u.wall_seconds, "peak MB": u.peak_rss_bytes / 1e6}
        for key, u in usages.items()
    ]
    report(
        f"convert, {arguments.seconds:g} s",
        rows,
        {
            "cpu": theirs.cpu_seconds / ours.cpu_seconds,
            "memory": theirs.peak_rss_bytes / ours.peak_rss_bytes,
            "cpu, whole command": theirs.cpu_seconds / whole.cpu_seconds,
            "cpu, whole command on Ray": theirs.cpu_seconds / on_ray.cpu_seconds,
        },
        json=arguments.json,
        notes=[REPAIRS, f"the whole command needs {whole.cpu_seconds - converter.cpu_seconds:.1f} CPU-s more than Converter, "
               f"on Ray {on_ray.cpu_seconds - converter.cpu_seconds:.1f}",
               "a worker's numbers are those of one file; on Ray, memory counts shared pages once for each process"],
    )  # fmt: skip


if __name__ == "__main__":
    main()
