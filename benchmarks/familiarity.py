"""Familiarity: whether a model tells its own material from noise and from other instruments, half second by half second.

    python benchmarks/familiarity.py [--json] [--library generated|sonic-pi|all] [--steps N] [--folder FOLDER]

For each instrument of the sample libraries a small model (v2_tiny) is trained for some steps; its reference is measured from
its training and held-out audio as publishing does. Then its training audio, its held-out audio, the other instruments of its
library, a synthesised field recording, and pink, white, rain-like noise and hum, as loud as the training audio and 20 dB
quieter, are scored as a conversion scores them. The AUC is the probability that a half second of its own has a higher score
than a foreign one; half seconds with a peak below -50 dBFS do not count. It is given for held-out audio, with a 90 % interval
(bootstrap over half seconds), and for training audio.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from harness import report
from noise import noise
from numpy.typing import NDArray
from warm_start import CONFIG, RATE, recordings

GOAL = 0.95
LEAST_PEAK = 10 ** (-50 / 20)
MOST_SECONDS = 40

Sounds = list[NDArray[np.float32]]


def trained(store, folder: Path, name: str, parts, steps: int):  # type: ignore[no-untyped-def]
    """A model of an instrument with its reference: (card, path of the offline export)."""
    from rave_dist.errors import ModelNotFoundError
    from rave_dist.options import Budget
    from rave_dist.records import RunFolder, RunResult, TrainingSpec
    from rave_dist.registry.export import export_run
    from rave_dist.registry.familiarity import measure_familiarity, spread
    from rave_dist.registry.publish import place
    from rave_dist.registry.store import find, model_version
    from rave_dist.training.trainer import train

    try:
        card = find(store, name)
    except ModelNotFoundError:
        values = {"config": (CONFIG,), "sample_rate": RATE, "channels": 1, "budget": Budget(steps=steps), "seed": 1}
        spec = TrainingSpec(library="bench", instrument=name, dataset="none", **values)
        train(store, spec, parts.train, parts.validation)
        out, run = folder / "out" / name, RunFolder(folder / "runs" / name)
        for here, there in ((spec.folder.config, run.config), (spec.folder.weights, run.weights), (spec.folder.spec, run.spec)):
            store.download(here, there)
        exported = export_run(Path(run.root), out, name=name)
        result = RunResult.load(store, spec.folder.result)
        card = place(store, spec, result, exported, out, version=model_version(run), seconds=0.0)
    path = Path(store.uri) / card.files["offline"].key
    known = measure_familiarity(path, spread(parts.train, RATE), parts.validation, hop=card.hop, sample_rate=RATE)
    return card.model_copy(update={"familiarity": known}), path


def scores(converter, sounds: Sounds) -> list[int]:  # type: ignore[no-untyped-def]
    """Percent of each half second that is not silent."""
    found: list[int] = []
    left = MOST_SECONDS * RATE
    for sound in sounds:
        if left <= 0:
            break
        conversion = converter.convert([sound[None]], sample_rate=RATE, channels=1)
        for _ in conversion:
            pass
        halves = (sound[at : at + RATE // 2] for at in range(0, len(sound), RATE // 2))
        audible = [np.abs(half).max() >= LEAST_PEAK for half in halves]
        found += [percent for percent, is_audible in zip(conversion.familiarity.percent, audible, strict=True) if is_audible]
        left -= len(sound)
    return found


def auc(own: NDArray[np.float64], foreign: NDArray[np.float64]) -> float:
    """The probability that a value of the first is larger, ties as one half."""
    difference = own[:, None] - foreign[None]
    return float((difference > 0).mean() + (difference == 0).mean() / 2)


def interval(own: NDArray[np.float64], foreign: NDArray[np.float64]) -> str:
    """Where 90 % of the AUCs of resampled half seconds are."""
    rng = np.random.default_rng(0)
    found = [auc(rng.choice(own, len(own)), rng.choice(foreign, len(foreign))) for _ in range(200)]
    return "{:.2f}-{:.2f}".format(*np.quantile(found, (0.05, 0.95)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--library", choices=("generated", "sonic-pi", "all"), default="all")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--folder", type=Path, help="keeps recordings and models for the next time")
    arguments = parser.parse_args()

    import torch

    from rave_dist.audio.synthesis import field_recording
    from rave_dist.conversion.convert import Converter
    from rave_dist.dataset.split import split
    from rave_dist.rave.presets import defaults
    from rave_dist.storage.store import Store

    torch.set_num_threads(1)
    libraries = ("generated", "sonic-pi") if arguments.library == "all" else (arguments.library,)
    rows = []
    with tempfile.TemporaryDirectory(prefix="rave-dist-bench-") as temporary:
        for library in libraries:
            folder = (arguments.folder or Path(temporary)) / library
            store = Store(str(folder / "store"))
            pcm = recordings(library, folder / "sounds")
            for name, segments in pcm.items():
                parts = split(segments, sample_rate=RATE, window=defaults((CONFIG,)).window)
                card, path = trained(store, folder, name, parts, arguments.steps)
                converter = Converter(path, card)
                training, held_out = ([s.pcm[0] / np.float32(32768) for s in each] for each in (parts.train, parts.validation))
                level = np.float32(np.sqrt(np.mean(np.square(np.concatenate(training)))))
                white = np.random.default_rng(2).standard_normal(12 * RATE).astype(np.float32)
                loud = [level * each for each in (*map(noise, ("pink", "rain", "hum")), white)]
                foreign = {other: [s.pcm[0] / np.float32(32768) for s in pcm[other]] for other in pcm if other != name}
                foreign["noise"] = [gain * each for each in loud for gain in (np.float32(1), np.float32(0.1))]
                foreign["field"] = [field_recording(12, sample_rate=RATE, seed=3)[0]]
                own = {"held out": np.array(scores(converter, held_out)), "training": np.array(scores(converter, training))}
                others = {other: np.array(scores(converter, sounds)) for other, sounds in foreign.items()}
                joined = np.concatenate(list(others.values()))
                areas = {other: auc(own["held out"], found) for other, found in others.items()}
                worst = min(areas, key=lambda other: areas[other])
                rows.append(
                    {
                        "instrument": f"{library}/{name}",
                        "AUC, held-out audio": auc(own["held out"], joined),
                        "90 %": interval(own["held out"], joined),
                        "AUC, training audio": auc(own["training"], joined),
                        "against noise": areas["noise"],
                        "worst": f"{areas[worst]:.2f} ({worst})",
                        "half seconds held out": len(own["held out"]),
                        "foreign": len(joined),
                        "median, held out, %": float(np.median(own["held out"])),
                        "median, foreign, %": float(np.median(joined)),
                    }
                )
    report(
        "familiarity",
        rows,
        {
            "least AUC of held-out audio": min(float(row["AUC, held-out audio"]) for row in rows),
            "mean AUC of held-out audio": float(np.mean([row["AUC, held-out audio"] for row in rows])),
            "least AUC of training audio": min(float(row["AUC, training audio"]) for row in rows),
        },
        json=arguments.json,
        notes=[f"goal: {GOAL:g}", f"models of v2_tiny after {arguments.steps} steps"],
    )


if __name__ == "__main__":
    main()
