"""Quality over time: stock RAVE and rave-dist train one instrument for the same minutes on one device, seed and data set.

    python benchmarks/gpu_quality.py [--json] [--minutes M] [--recordings FOLDER] [--config NAME] [--out FOLDER] [--small]

One GPU, no Ray. With --small, or without a GPU, a small model runs on the CPU for seconds, so that the script stays tested.
Each side runs in its own process, one at a time:

- stock: RAVE's model, dataset, augmentations and Lightning loop as ``rave train`` sets them up, batch 8, 131072 samples.
  Its phase 1 has a million steps, so that minutes never reach phase 2.
- rave-dist: the training loop with these minutes as its budget, so with both phases.

Both are measured by the same validation on the same held-out audio; stock's clock is paused during it, ours is not.
OUT receives a picture of both curves, and the held-out audio, original and through both models.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from harness import report

RATE, SEED, POINTS = 44100, 0, 24
STOCK_CHUNK = 2 * 131072  # samples of an entry of stock's database
WORKERS = 8  # of stock's data loader, its default
SMALL = {"CAPACITY": 4, "LATENT_SIZE": 8}
REPAIRS = (
    "stock's preprocessing drops files shorter than 5.94 s: its training audio is concatenated, in its format",
    "stock's validation fails on little audio (PCA of 128 on fewer frames): it is omitted, and the receptive field set before",
    "torchaudio's CUDA library skipped, loss weights not shared between models",
)


def prepare(folder: Path, recordings: Path | None, config: str, *, small: bool) -> None:
    """Writes the inputs of both sides: ``train.npz``, ``held.npz``, stock's database, ``plan.json``."""
    import lmdb

    from rave_dist.audio.dsp.resample import resample
    from rave_dist.audio.io.open import open_audio
    from rave_dist.audio.io.sources import list_sources
    from rave_dist.dataset.read import Segment
    from rave_dist.dataset.split import split
    from rave_dist.library.manifest import load_library
    from rave_dist.rave.imports import install_repairs
    from rave_dist.sample_data import SAMPLE_LIBRARIES
    from rave_dist.sample_data import prepare as prepare_samples

    if recordings is None:
        manifest = SAMPLE_LIBRARIES / "generated.yaml"
        library = load_library(prepare_samples(manifest, folder / "recordings"))
        patterns: tuple[str, ...] = library.sources(library.instruments[0])
    else:
        patterns = (str(recordings),)
    window = 40960 if small else 131072
    segments = []
    for source in list_sources(patterns):
        with open_audio(Path(source.uri)) as decoder:
            mono = (block.mean(0, keepdims=True) for block in decoder.blocks())
            blocks = list(resample(mono, rate=decoder.sample_rate, new_rate=RATE, channels=1))
        pcm = (np.concatenate(blocks, axis=1).clip(-1, 1) * 32767).round().astype(np.int16)
        segments.append(Segment(source.relative, 0, pcm))
    parts = split(segments, sample_rate=RATE, window=window)
    for name, part in (("train", parts.train), ("held", parts.validation)):
        np.savez(folder / f"{name}.npz", *(segment.pcm for segment in part))
    joined = np.concatenate([segment.pcm[0] for segment in parts.train])
    joined = np.tile(joined, -(-8 * STOCK_CHUNK // len(joined)))  # at least one batch, or stock's loader is empty
    install_repairs()
    from udls.generated import AudioExample

    with (
        lmdb.open(str(folder / "db"), map_size=2 * joined.nbytes + 2**26) as database,
        database.begin(write=True) as transaction,
    ):
        for index in range(len(joined) // STOCK_CHUNK):
            example = AudioExample()
            buffer = example.buffers["waveform"]
            buffer.data = joined[index * STOCK_CHUNK : (index + 1) * STOCK_CHUNK].tobytes()
            buffer.precision = AudioExample.Precision.INT16
            transaction.put(f"{index:08d}".encode(), example.SerializeToString())
    (folder / "db" / "metadata.yaml").write_text("channels: 1\nlazy: false\n")
    plan = {"config": config, "override": SMALL if small else {}, "window": window, "batch": 2 if small else 8, "small": small}
    (folder / "plan.json").write_text(json.dumps(plan))


def _segments(path: Path) -> list[Any]:
    from rave_dist.dataset.read import Segment

    with np.load(path) as arrays:
        return [Segment(name, 0, arrays[name]) for name in arrays.files]


def _device() -> Any:
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def stock(folder: Path, seconds: float, plan: dict[str, Any]) -> None:
    """Stock's side."""
    import pytorch_lightning as lightning  # before RAVE, whose classes then derive from it
    import torch

    from rave_dist.rave.config import configure
    from rave_dist.rave.imports import rave_module
    from rave_dist.rave.models import build_model
    from rave_dist.training.evaluation.receptive_field import set_receptive_field
    from rave_dist.training.evaluation.validation import validate

    warnings.simplefilter("ignore")
    text = configure([plan["config"]], plan["override"], sample_rate=RATE, channels=1)
    from torch.utils.data import DataLoader

    dataset_module, model_module = (rave_module(name) for name in ("dataset", "model"))
    lightning.seed_everything(SEED)
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True
    device, held = _device(), _segments(folder / "held.npz")
    model = build_model(text, channels=1).to(device)
    model.validation_epoch_end = None  # Lightning 2 refuses a model with this hook; stock's validation is omitted anyway
    set_receptive_field(model)
    data = dataset_module.get_dataset(str(folder / "db"), RATE, plan["window"], n_channels=1)
    workers = 0 if plan["small"] else WORKERS
    loader = DataLoader(data, plan["batch"], True, drop_last=True, num_workers=workers)
    points: list[dict[str, float]] = []

    class Clock(lightning.Callback):
        """Stops at the time limit; validates on the way, with the clock paused."""

        spent, began = 0.0, 0.0

        def look(self, step: int) -> None:
            distance = validate(model, held, window=plan["window"], device=device)["validation"]
            points.append({"seconds": self.spent, "step": step, "phase": 1, "distance": distance})

        def on_train_start(self, trainer: Any, module: Any) -> None:
            self.look(0)
            self.began = time.perf_counter()

        def on_train_batch_end(self, trainer: Any, module: Any, *rest: Any) -> None:
            now = time.perf_counter()
            due = len(points) * seconds / POINTS
            if self.spent + now - self.began < due:
                return
            if device.type == "cuda":
                torch.cuda.synchronize()
            self.spent += time.perf_counter() - self.began
            self.look(trainer.global_step)
            trainer.should_stop = self.spent >= seconds
            self.began = time.perf_counter()

    trainer = lightning.Trainer(
        logger=lightning.loggers.TensorBoardLogger(str(folder)),  # RAVE writes its configuration to the working directory
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cuda" if device.type == "cuda" else "cpu",
        devices=1,
        max_epochs=10**9,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        callbacks=[model_module.WarmupCallback(), model_module.QuantizeCallback(), model_module.BetaWarmupCallback(), Clock()],
    )
    trainer.fit(model, loader)
    _leave(folder, "stock", model.to(device), held, points)


def ours(folder: Path, seconds: float, plan: dict[str, Any]) -> None:
    """Our side."""
    import torch

    from rave_dist.options import Budget
    from rave_dist.rave.models import build_model
    from rave_dist.records import TrainingSpec
    from rave_dist.storage.store import Store
    from rave_dist.training.trainer import train

    warnings.simplefilter("ignore")
    store, device = Store(str(folder / "store")), _device()
    spec = TrainingSpec(
        library="quality",
        instrument="ours",
        dataset="none",
        config=(plan["config"],),
        override=plan["override"],
        sample_rate=RATE,
        channels=1,
        window=plan["window"],
        batch=plan["batch"],
        budget=Budget(hours=seconds / 3600),
        seed=SEED,
    )
    points: list[dict[str, float]] = []

    def tell(state: Any, speed: float | None) -> None:
        if state.validated_step == state.step and (not points or points[-1]["step"] < state.step):
            points.append({"seconds": state.seconds, "step": state.step, "phase": state.phase, "distance": state.last})

    held = _segments(folder / "held.npz")
    train(store, spec, _segments(folder / "train.npz"), held, device=device, on_progress=tell)
    text = store.read_bytes(spec.folder.config).decode()
    model = build_model(text, channels=1)
    weights = torch.load(store.download(spec.folder.weights, folder / "ours.pt"), weights_only=True)
    model.load_state_dict(weights)
    _leave(folder, "ours", model.to(device), held, points)


def _leave(folder: Path, side: str, model: Any, held: list[Any], points: list[dict[str, float]]) -> None:
    """The curve, and the held-out audio through the model."""
    import torch

    from rave_dist.audio.io.write import AudioWriter
    from rave_dist.training.evaluation.validation import FULL_SCALE

    (folder / f"{side}.json").write_text(json.dumps(points))
    joined = torch.from_numpy(np.concatenate([segment.pcm for segment in held], axis=1)) / FULL_SCALE
    padded = torch.nn.functional.pad(joined, (0, -joined.shape[1] % 2**15))[None]
    with torch.no_grad():
        sound = model.eval()(padded.to(_device())).cpu()[0, :, : joined.shape[1]]
    for name, samples in (("original", joined), (side, sound)):
        with AudioWriter(folder / f"{name}.flac", sample_rate=RATE, channels=1, file_format="flac") as writer:
            writer.write(samples.clamp(-1, 1).numpy())


def draw(curves: dict[str, list[dict[str, float]]], path: Path, title: str) -> None:
    """Both curves over training time; the start of our phase 2 is marked."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for side, points in curves.items():
        axes.plot([p["seconds"] / 60 for p in points], [p["distance"] for p in points], marker=".", label=side)
    second = [p for p in curves["ours"] if p["phase"] == 2]
    if second:
        axes.axvline(second[0]["seconds"] / 60, linestyle=":", color="grey", label="ours: the discriminator begins")
    axes.set(xlabel="minutes of training", ylabel="held-out distance", title=title)
    axes.legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--recordings", type=Path, help="of one instrument  [default: generated ones]")
    parser.add_argument("--config", default="v2_small")
    parser.add_argument("--out", type=Path, help="folder for the picture and the audio  [default: none are kept]")
    parser.add_argument("--small", action="store_true", help="seconds, on a small model")
    parser.add_argument("--side", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        side, name, seconds = arguments.side
        plan = json.loads((Path(name) / "plan.json").read_text())
        {"stock": stock, "ours": ours}[side](Path(name), float(seconds), plan)
        return
    device = _device()
    small = arguments.small or device.type == "cpu"
    seconds = 8.0 if small else 60 * arguments.minutes
    with tempfile.TemporaryDirectory(prefix="rave-dist-bench-") as name:
        folder = Path(name)
        prepare(folder, arguments.recordings, arguments.config, small=small)
        for side in ("stock", "ours"):
            subprocess.run([sys.executable, __file__, "--side", side, name, str(seconds)], check=True, stdout=sys.stderr)
        curves = {side: json.loads((folder / f"{side}.json").read_text()) for side in ("stock", "ours")}
        if arguments.out:
            arguments.out.mkdir(parents=True, exist_ok=True)
            draw(
                curves,
                arguments.out / "curves.png",
                f"{arguments.config}{', small' if small else ''}: {seconds / 60:g} minutes",
            )
            for sound in ("original", "stock", "ours"):
                (arguments.out / f"{sound}.flac").write_bytes((folder / f"{sound}.flac").read_bytes())
    best = {side: min(p["distance"] for p in points[1:]) for side, points in curves.items()}
    reached = next((p["seconds"] for p in curves["ours"] if p["distance"] <= best["stock"]), None)
    rows = [
        {
            "side": side,
            "steps": points[-1]["step"],
            "seconds": points[-1]["seconds"],
            "distance before": points[0]["distance"],
            "best": best[side],
            "at the end": points[-1]["distance"],
        }
        for side, points in curves.items()
    ]
    report(
        "quality over time",
        rows,
        {"time to stock's best distance, stock over ours": curves["stock"][-1]["seconds"] / reached} if reached else {},
        json=arguments.json,
        notes=[
            *REPAIRS,
            *([] if reached else ["ours did not reach stock's best distance"]),
            *(["small, on the CPU"] if small else []),
        ],
    )


if __name__ == "__main__":
    main()
