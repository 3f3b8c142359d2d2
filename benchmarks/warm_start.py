"""Training with and without a base: the number of steps to the final validation distance of a cold run.

    python benchmarks/warm_start.py [--json] [--library sonic-pi|generated] [--instrument NAME] [--steps N]

Three runs of the same length and configuration (v2_tiny), without Ray, on one thread: one instrument of the sample library from
new weights; a base on all other instruments; and the instrument again from this base. The validation distance is that of the
instrument's held-out audio. That of the cold run is taken at the end of phase 1, where RAVE's distance is lowest (it rises when
the discriminator starts), and at the end of the run. The number of steps is that of the first validation of the warm run with
the same or a lower distance.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from harness import report

RATE, CONFIG = 44100, "v2_tiny"


def recordings(library: str, folder: Path) -> dict[str, list]:
    """Every instrument's recordings as PCM segments."""
    from rave_dist.audio.io.open import open_audio
    from rave_dist.audio.io.sources import list_sources
    from rave_dist.dataset.read import Segment
    from rave_dist.library.manifest import load_library
    from rave_dist.sample_data import SAMPLE_LIBRARIES, prepare

    loaded = load_library(prepare(SAMPLE_LIBRARIES / f"{library}.yaml", folder))
    found: dict[str, list] = {}
    for name in loaded.instruments:
        found[name] = []
        for source in list_sources(loaded.sources(name)):
            with open_audio(Path(source.uri)) as decoder:
                assert decoder.sample_rate == RATE, source.uri
                sound = np.concatenate(list(decoder.blocks()), axis=1).mean(0, keepdims=True)
            found[name].append(Segment(source.relative, 0, (sound * 32767).round().astype(np.int16)))
    return found


def run(store, spec, parts) -> list[dict]:  # type: ignore[no-untyped-def]
    """Trains; returns the validations: step, phase, held_out."""
    from rave_dist.records import RunMetrics
    from rave_dist.training.trainer import train

    train(store, spec, parts.train, parts.validation)
    return RunMetrics.load(store, spec.folder.metrics).to_json()["validation"]


def first_as_low(points: list[dict], distance: float) -> int | None:
    """The step of the first validation with this distance or a lower one."""
    return next((point["step"] for point in points if point["held_out"] <= distance), None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--library", choices=("sonic-pi", "generated"), default="sonic-pi")
    parser.add_argument("--instrument", help="the instrument to train cold and warm  [default: the library's first]")
    parser.add_argument("--steps", type=int, default=1200)
    arguments = parser.parse_args()

    import torch

    from rave_dist.dataset.split import split
    from rave_dist.options import Budget
    from rave_dist.rave.presets import defaults
    from rave_dist.records import RunFolder, TrainingSpec
    from rave_dist.storage.store import Store
    from rave_dist.training.state.initialization import store_initial_weights, weights_of_model

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="rave-dist-bench-") as name:
        folder = Path(name)
        store = Store(str(folder / "store"))
        pcm = recordings(arguments.library, folder / "sounds")
        instrument = arguments.instrument or next(iter(pcm))
        others = [segment for other, segments in pcm.items() if other != instrument for segment in segments]
        window = defaults((CONFIG,)).window
        own, rest = (split(segments, sample_rate=RATE, window=window) for segments in (pcm[instrument], others))

        def spec(name: str, base: str | None = None) -> TrainingSpec:
            budget = Budget(steps=arguments.steps)
            values = {"config": (CONFIG,), "sample_rate": RATE, "channels": 1, "budget": budget, "seed": 1, "base": base}
            return TrainingSpec(library="bench", instrument=name, dataset="none", **values)

        cold = run(store, spec("cold"), own)
        run(store, spec("base"), rest)
        trained, base = spec("base").folder, RunFolder(folder / "base")
        store.download(trained.config, base.config)
        store.download(trained.weights, base.weights)
        start = weights_of_model(base, version="base", origin="base")
        warm = run(store, spec("warm", store_initial_weights(store, start)), own)

    between = warm[1]["step"] - warm[0]["step"]
    goals = {"end of phase 1": [p for p in cold if p["phase"] == 1][-1], "end of the run": cold[-1]}
    rows, ratios = [], {}
    for goal, point in goals.items():
        steps = first_as_low(warm, point["held_out"])
        rows.append(
            {
                "cold run's": goal,
                "its distance": point["held_out"],
                "its steps": point["step"],
                "steps from the base": "not reached" if steps is None else steps,
            }
        )
        if steps is not None:
            ratios[f"cold steps over warm, {goal}"] = point["step"] / max(steps, between)
    seconds = {
        part: sum(s.pcm.shape[1] for s in segments) / RATE for part, segments in (("own", own.train), ("base", rest.train))
    }
    report(
        f"warm start, {instrument} of {arguments.library}",
        rows,
        ratios,
        json=arguments.json,
        notes=[
            f"{CONFIG}, {arguments.steps} steps each; trained on {seconds['own']:.0f} s of {instrument}; the base on "
            f"{seconds['base']:.0f} s of {', '.join(other for other in pcm if other != instrument)}",
            f"before the first step: cold {cold[0]['held_out']:.2f}, from the base {warm[0]['held_out']:.2f}",
            f"a validation every {between} steps; a distance reached before the first step counts as reached after {between}",
        ],
    )


if __name__ == "__main__":
    main()
