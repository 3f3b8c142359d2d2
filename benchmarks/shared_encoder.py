"""A frozen encoder that instruments share: the cost of converting with all of them, and what it costs in distance.

    python benchmarks/shared_encoder.py [--json] [--models 8] [--seconds 60] [--steps 400] [--seeds 3] [--rounds 3]

Cost: models of v2_small at full size with one encoder and random weights, which cost as much as trained ones, and a
generated recording (mono, 44100 Hz). Compared are, interleaved, the conversion with all models in one pass and with each
model alone, from file to file, the models loaded.

Distance: for each instrument of a sample library a base (v2_tiny) is trained on the other instruments, and from it the
instrument twice, with a free and with a frozen encoder, for the same steps and from the same seeds. The distance is the
lowest validation distance on the instrument's held-out audio.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

import numpy as np
import soundfile
from harness import interleave, measure, median, report
from warm_start import CONFIG, RATE, recordings, run


def publish_models(store, count: int, folder: Path) -> list:  # type: ignore[no-untyped-def]
    """Models with one encoder and decoders of their own."""
    import torch

    from rave_dist.identity import hash_file
    from rave_dist.rave.config import configure
    from rave_dist.rave.engine import installed_engine
    from rave_dist.rave.exportable import OfflineRave
    from rave_dist.rave.models import build_model, use_streaming
    from rave_dist.records import ModelCard, ModelFile, Validation, now
    from rave_dist.registry.build import receptive_field

    use_streaming(False)
    text = configure(("v2_small",), {}, sample_rate=RATE, channels=1)
    encoder = build_model(text, channels=1).encoder.state_dict()
    cards, field = [], None
    for number in range(count):
        torch.manual_seed(number)
        model = build_model(text, channels=1).eval()
        model.encoder.load_state_dict(encoder)
        offline = OfflineRave(model)
        field = field or receptive_field(offline)
        path = folder / f"{number}.ts"
        offline.export_to_ts(path)
        key = f"models/m{number}/1/m{number}.ts"
        store.upload(path, key)
        facts = {"library": "bench", "run_id": "1", "dataset": "1", "seconds": 0.0, "phase": 2, "step": 1, "steps": 1}
        cards.append(
            ModelCard(
                **facts,
                name=f"m{number}",
                version="1",
                engine=installed_engine(),
                config=("v2_small",),
                sample_rate=RATE,
                channels=1,
                encoder="e",
                latents=offline.latent_size,
                latent_size=offline.full_latent_size,
                hop=offline.hop,
                receptive_field=field,
                complete=True,
                validation=Validation(),
                files={"offline": ModelFile(key=key, sha256=hash_file(path), bytes=path.stat().st_size)},
                created_at=now(),
            )
        )
    return cards


def cost(folder: Path, *, models: int, seconds: float, rounds: int) -> tuple[dict, float]:
    """The row of the comparison, and CPU-seconds of each model alone over those of one pass."""
    from rave_dist.conversion.corpus import plan_conversions
    from rave_dist.conversion.job import attempt, begin
    from rave_dist.conversion.loading import load_converters
    from rave_dist.records import ConversionParameters
    from rave_dist.storage.store import Store

    store = Store(str(folder / "store"))
    cards = publish_models(store, models, folder)
    time = np.arange(round(seconds * RATE)) / RATE
    noise = 0.01 * np.random.default_rng(0).standard_normal(len(time))
    sound = 0.3 * np.sin(2 * np.pi * 220 * time) * np.exp(-4 * (time % 0.5)) + noise
    soundfile.write(folder / "recording.wav", sound, RATE, subtype="PCM_16")
    together = load_converters(store, dict(enumerate(cards)), device="cpu")
    alone = [load_converters(store, {0: card}, device="cpu") for card in cards]
    count = 0

    def convert(cards: list, converters: dict) -> None:  # type: ignore[type-arg]
        nonlocal count
        count += 1
        output = str(folder / f"out-{count}")
        plans = plan_conversions(cards, [str(folder / "recording.wav")], output, ConversionParameters(), apart=True)
        job = begin(store, plans, chunk_seconds=20.0)
        for work in job.to_do:
            assert all(outcome.item.state == "converted" for outcome in attempt(job, work, converters))

    def each() -> None:
        for card, converters in zip(cards, alone, strict=True):
            convert([card], converters)

    measured = interleave(
        {"one pass": lambda: measure(lambda: convert(cards, together)), "each alone": lambda: measure(each)}, rounds=rounds
    )
    used = {side: median(usages).cpu_seconds for side, usages in measured.items()}
    ratio = used["each alone"] / used["one pass"]
    row = {
        "instrument": f"{models} models, v2_small, {seconds:g} s of audio",
        "each alone": f"{used['each alone']:.1f} CPU-s",
        "shared encoder": f"{used['one pass']:.1f} CPU-s",
        "shared over alone": f"{1 / ratio:.2f}",
    }
    return row, ratio


def distances(folder: Path, *, steps: int, seeds: int) -> list[dict]:  # type: ignore[type-arg]
    """A row for each instrument: the distance with a free and with a frozen encoder, mean and spread over seeds."""
    from rave_dist.dataset.split import split
    from rave_dist.options import Budget
    from rave_dist.rave.presets import defaults
    from rave_dist.records import RunFolder, TrainingSpec
    from rave_dist.storage.store import Store
    from rave_dist.training.state.initialization import store_initial_weights, weights_of_model

    store = Store(str(folder / "trained"))
    pcm = recordings("sonic-pi", folder / "sounds")
    window = defaults((CONFIG,)).window

    def spec(name: str, seed: int = 1, **more) -> TrainingSpec:  # type: ignore[no-untyped-def]
        values = {"config": (CONFIG,), "sample_rate": RATE, "channels": 1, "budget": Budget(steps=steps), "seed": seed}
        return TrainingSpec(library="bench", instrument=name, dataset="none", **values, **more)

    rows = []
    for instrument in pcm:
        others = [segment for other, segments in pcm.items() if other != instrument for segment in segments]
        own, rest = (split(segments, sample_rate=RATE, window=window) for segments in (pcm[instrument], others))
        base = spec(f"{instrument}-base")
        run(store, base, rest)
        local = RunFolder(folder / f"{instrument}-base")
        store.download(base.folder.config, local.config)
        store.download(base.folder.weights, local.weights)
        start = store_initial_weights(store, weights_of_model(local, version=f"{instrument}-base", origin="base"))
        best: dict[bool, list[float]] = {False: [], True: []}
        for seed in range(1, seeds + 1):
            for frozen in best:
                name = f"{instrument}-{'frozen' if frozen else 'free'}-{seed}"
                points = run(store, spec(name, seed, base=start, freeze_encoder=frozen), own)
                best[frozen].append(min(point["held_out"] for point in points[1:]))
        differences = [frozen - free for free, frozen in zip(best[False], best[True], strict=True)]
        rows.append(
            {
                "instrument": f"{instrument}, v2_tiny, {steps} steps",
                "each alone": _spread(best[False]),
                "shared encoder": _spread(best[True]),
                "shared over alone": f"{statistics.mean(differences):+.2f}, {min(differences):+.2f} to {max(differences):+.2f}",
            }
        )
    return rows


def _spread(values: list[float]) -> str:
    return f"{statistics.mean(values):.2f}, {min(values):.2f} to {max(values):.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--models", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()

    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="rave-dist-bench-") as name:
        folder = Path(name)
        row, ratio = cost(folder, models=arguments.models, seconds=arguments.seconds, rounds=arguments.rounds)
        rows = [row, *distances(folder, steps=arguments.steps, seeds=arguments.seeds)]
    report(
        "a shared encoder: cost and distance",
        rows,
        {"each alone over one pass": ratio},
        json=arguments.json,
        notes=[
            "goal: one pass costs at most 0.6 of the conversions alone",
            f"distances: held-out spectral distance, mean and range over {arguments.seeds} seeds; the last column is the "
            "difference of runs of the same seed, negative where the frozen encoder is better",
            "the base of each instrument is trained on the other instruments of the library, for as many steps",
        ],
    )


if __name__ == "__main__":
    main()
