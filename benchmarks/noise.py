"""Noise of field recordings through models: artefacts between calls, with and without the guard against it.

    python benchmarks/noise.py [--json] [--store URI] [--model NAME ...] [--steps N] [--page FILE.html]

Three kingfisher-like trills in 12 s over pink noise, rain-like noise (hiss and 40 drops per second) and mains hum with its
harmonics and a little hiss, the calls 20, 10 and 0 dB above the noise (RMS during the calls). Each is converted as it is and
with the guard (``denoise`` 1, ``gate`` 12 dB), and so are the clean calls. Artefacts are what the model plays more than 0.25 s
from a call; their level is that between the calls of the result. The correlation is that of the envelopes (RMS of 10 ms)
during the calls, with the conversion of the clean calls. A store without models gets four, of the generated instruments,
trained here for a few hundred steps each: sketches of instruments, which also drone in silence. The page has the sounds at
10 dB.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from harness import report
from numpy.typing import NDArray

RATE, SECONDS = 44100, 12
KINDS, RATIOS_DB = ("pink", "rain", "hum"), (20, 10, 0)
GOAL_DB, GOAL_CORRELATION = 20.0, 0.98
FLOOR = 2.0**-24  # below it, a result is digital silence

Sound = NDArray[np.float32]


def calls() -> tuple[Sound, NDArray[np.bool_]]:
    """The calls alone [samples], and where they are."""
    from rave_dist.audio.synthesis import trill

    sound, during = np.zeros(SECONDS * RATE, np.float32), np.zeros(SECONDS * RATE, np.bool_)
    for start, pace, peak in ((1.0, 6.5, 0.5), (5.0, 8.0, 0.4), (8.6, 7.0, 0.3)):
        call = peak * trill(sample_rate=RATE, notes_per_second=pace)
        first = round(start * RATE)
        sound[first : first + len(call)] += call
        during[first : first + len(call)] = True
    return sound, during


def noise(kind: str) -> Sound:
    """Background of an RMS of 1, [samples]."""
    from rave_dist.audio.synthesis import pink_noise

    rng = np.random.default_rng(1)
    samples = SECONDS * RATE
    time = np.arange(samples) / RATE
    if kind == "pink":
        return pink_noise(samples, rng)
    if kind == "hum":
        sound = 0.05 * rng.standard_normal(samples)
        sound += sum(np.sin(2 * np.pi * 50 * k * time + k) / k for k in range(1, 12))
    else:
        sound = 0.3 * rng.standard_normal(samples)
        for start in rng.integers(0, samples - 400, 40 * SECONDS):
            length = int(rng.integers(60, 300))
            drop = rng.standard_normal(length) * np.exp(-np.arange(length) / (length / 5))
            sound[start : start + length] += rng.uniform(0.5, 3) * drop
    return np.asarray(sound / np.sqrt(np.mean(np.square(sound))), dtype=np.float32)


def convert(converter, sound: Sound, treatment) -> Sound:  # type: ignore[no-untyped-def]
    """As the command converts a file."""
    from rave_dist.conversion.broadcast import Broadcast
    from rave_dist.conversion.treatment import Profile, after, before

    profile = Profile(treatment, sample_rate=RATE, channels=1, out_channels=1)
    profile.add(sound[None])
    source = Broadcast([sound[None]])
    received = before(source.reader(), profile, treatment, sample_rate=RATE)
    wet = converter.convert(received, sample_rate=RATE, channels=1).unlimited()
    blocks = after(wet, source, profile, treatment, rates=(RATE, RATE), channels=1, notes=[])
    return np.concatenate(list(blocks), axis=1)[0]


def level(sound: Sound) -> float:
    return float(20 * np.log10(max(FLOOR, np.sqrt(np.mean(np.square(sound.astype(np.float64)))))))


def envelope(sound: Sound) -> NDArray[np.float64]:
    hop = RATE // 100
    return np.sqrt(np.mean(np.square(sound[: len(sound) // hop * hop].astype(np.float64)).reshape(-1, hop), axis=1))


def train(store, folder: Path, steps: int) -> None:  # type: ignore[no-untyped-def]
    """Publishes small models of the generated instruments; ``folder`` is for what is needed on the way."""
    from warm_start import CONFIG, recordings

    from rave_dist.dataset.split import split
    from rave_dist.options import Budget
    from rave_dist.rave.presets import defaults
    from rave_dist.records import RunFolder, RunResult, TrainingSpec
    from rave_dist.registry.export import export_run
    from rave_dist.registry.publish import place
    from rave_dist.registry.store import model_version
    from rave_dist.training.trainer import train as train_run

    for name, segments in recordings("generated", folder / "sounds").items():
        parts = split(segments, sample_rate=RATE, window=defaults((CONFIG,)).window)
        values = {"config": (CONFIG,), "sample_rate": RATE, "channels": 1, "budget": Budget(steps=steps), "seed": 1}
        spec = TrainingSpec(library="bench", instrument=name, dataset="none", **values)
        train_run(store, spec, parts.train, parts.validation)
        run = RunFolder(folder / "runs" / name)
        for here, there in ((spec.folder.config, run.config), (spec.folder.weights, run.weights), (spec.folder.spec, run.spec)):
            store.download(here, there)
        exported = export_run(folder / "runs" / name, folder / "out" / name, name=name)
        result = RunResult.load(store, spec.folder.result)
        place(store, spec, result, exported, folder / "out" / name, version=model_version(run), seconds=0.0)


def player(sound: Sound, title: str, name: str):  # type: ignore[no-untyped-def]
    """A sound for the page."""
    from rave_dist.reports.players import make_player

    return make_player(sound[None], RATE, title=title, caption=name, name=name)


def write_page(target: Path, rows: list[dict[str, object]], players: list[list[dict[str, object]]]) -> None:
    """A page with the table, and a row of sounds for each model and noise."""
    from rave_dist.reports.page import template

    cells = [[f"{value:.3g}" if isinstance(value, float) else value for value in row.values()] for row in rows]
    lead = "with calls 10 dB above it; the clean calls are what the guard should come close to"
    values = {"title": "Noise", "lead": lead, "columns": list(rows[0]), "rows": cells, "players": players, "notes": ()}
    target.write_text(f'<!doctype html><meta charset="utf-8"><title>Noise</title>{template("notebook.html").render(values)}')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--store", help="a store with published models, or where to keep those trained here")
    parser.add_argument("--model", action="append", help="NAME or NAME@VERSION  [default: all in the store]")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--page", type=Path, help="an HTML file to write, to listen to it")
    arguments = parser.parse_args()

    import torch

    from rave_dist.conversion.convert import Converter
    from rave_dist.records import Treatment
    from rave_dist.registry.store import list_models
    from rave_dist.storage.store import Store

    torch.set_num_threads(1)
    guard = Treatment(denoise=1.0, gate=12.0)
    clean, during = calls()
    reach = round(0.25 * RATE)
    near = np.convolve(during, np.ones(2 * reach + 1), "same") > 0.5
    frames = envelope(during.astype(np.float32)) > 0.5
    rows, players = [], []
    with tempfile.TemporaryDirectory(prefix="rave-dist-bench-") as folder:
        store = Store(arguments.store or str(Path(folder, "store")))
        if not list_models(store):
            train(store, Path(folder), arguments.steps)
        steps = {}
        for name in arguments.model or sorted({card.name for card in list_models(store)}):
            converter = Converter.load(store, name)
            steps[name] = f"{converter.card.step} steps of {'+'.join(converter.card.config)}"
            best = convert(converter, clean, Treatment())
            ideal = envelope(best)[frames]
            drone = level(convert(converter, 0 * clean, Treatment()))
            for kind in KINDS:
                for ratio in RATIOS_DB:
                    sound = clean + np.float32(10 ** ((level(clean[during]) - ratio) / 20)) * noise(kind)
                    plain, guarded = (convert(converter, sound, treatment) for treatment in (Treatment(), guard))
                    found = [float(np.corrcoef(envelope(result)[frames], ideal)[0, 1]) for result in (plain, guarded)]
                    if ratio == 10:
                        kinds = {"recording": sound, "result": plain, "guarded": guarded, "clean calls": best}
                        players.append([player(each, title, f"{name}, {kind}") for title, each in kinds.items()])
                    rows.append(
                        {
                            "model": name,
                            "noise": kind,
                            "calls over noise, dB": ratio,
                            "clean calls, dBFS": level(best[during]),
                            "silence, dBFS": drone,
                            "between calls, dBFS": level(plain[~near]),
                            "guarded, dBFS": level(guarded[~near]),
                            "lower by, dB": level(plain[~near]) - level(guarded[~near]),
                            "outside all calls lower by, dB": level(plain[~during]) - level(guarded[~during]),
                            "envelope of the calls": found[0],
                            "guarded": found[1],
                        }
                    )
    report(
        "noise, artefacts between calls",
        rows,
        {
            f"least at 10 dB, {title}": min(float(row[key]) for row in rows if row["calls over noise, dB"] == 10)  # type: ignore[arg-type]
            for title, key in {
                "reduction more than 0.25 s from a call, dB": "lower by, dB",
                "reduction outside all calls, dB": "outside all calls lower by, dB",
                "correlation of envelopes with the guard": "guarded",
                "correlation of envelopes without it": "envelope of the calls",
            }.items()
        },
        json=arguments.json,
        notes=[
            f"goals at 10 dB: artefacts at least {GOAL_DB:g} dB lower, correlation at least {GOAL_CORRELATION:g}",
            f"digital silence counts as {20 * np.log10(FLOOR):.0f} dBFS: a reduction down to it says that the gate is closed, "
            "not by how much it lowers; outside all calls also counts the 0.25 s around them, in which the gate is open",
            "silence is what a model plays for digital silence: what it plays between calls without the guard is an answer to "
            "noise only as far as it is louder than that",
            "models: " + ", ".join(f"{name} ({words})" for name, words in steps.items()),
        ],
    )
    if arguments.page:
        write_page(arguments.page, rows, players)


if __name__ == "__main__":
    main()
