"""Several files at once through batches: the files, failures and journal of one after another."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from rave_dist.conversion import batches as batches_module
from rave_dist.conversion import item
from rave_dist.conversion.batches import StoppedError
from rave_dist.conversion.corpus import plan_conversions
from rave_dist.conversion.job import Job, attempt, begin, finish
from rave_dist.conversion.loading import load_converters
from rave_dist.conversion.several_files import attempt_all
from rave_dist.errors import StoreError
from rave_dist.identity import canonical_json, hash_file
from rave_dist.records import ConversionParameters, ModelCard
from rave_dist.storage.store import Store

Scripted = Callable[..., tuple[Path, ModelCard]]


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """30 short files of several lengths, a long one, a stereo one, a loud one on which a model fails, and a broken one."""
    folder, rng = tmp_path / "in", np.random.default_rng(0)
    folder.mkdir()
    sounds = {f"{number:02}": (rng.choice([2000, 2010, 5000]), 1) for number in range(30)}
    for name, (samples, channels) in (sounds | {"long": (90_000, 1), "stereo": (5000, 2)}).items():
        soundfile.write(folder / f"{name}.wav", 0.1 * rng.standard_normal((samples, channels)), 16000)
    soundfile.write(folder / "loud.wav", np.full(2000, 0.99), 16000)
    (folder / "broken.wav").write_bytes(b"RIFF, but no sound")
    return folder


def job_of(kinds: list[str], scripted: Scripted, store: Store, recordings: Path, output: Path) -> Job:
    cards = []
    for kind in kinds:
        path, card = scripted(kind)
        store.upload(path, card.files["offline"].key)
        store.write_bytes(card.folder.card, canonical_json(card.to_json()))
        cards.append(card)
    plans = plan_conversions(cards, [str(recordings)], str(output), ConversionParameters(), apart=True)
    return begin(store, plans, chunk_seconds=0.5)


def converted(job: Job, monkeypatch: pytest.MonkeyPatch, size: int) -> tuple[list[Any], list[int]]:
    """The records, and the rows of each batch."""
    rows: list[int] = []
    in_batch = vars(batches_module)["_in_batch"]

    def counted(apply: Any, given: list[Any], size: int) -> Any:
        rows.append(len(given))
        return in_batch(apply, given, size)

    with monkeypatch.context() as patch:
        patch.setattr(batches_module, "_in_batch", counted)
        patch.setitem(vars(batches_module)["_SIZES"], "cpu", size)
        converters = load_converters(job.store, job.cards, device="cpu", trust=True)
        return list(finish(job, attempt_all(job, job.to_do, converters))), rows


def hashes(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): hash_file(path) for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("kinds", [["frames"], ["frames", "fussy", "mirror"]])
def test_files_are_those_of_batches_of_one_file_each(
    kinds: list[str], scripted: Scripted, local_store: Store, recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_of(kinds, scripted, local_store, recordings, tmp_path / "together")
    records, rows = converted(job, monkeypatch, 8)
    assert [record.converted for record in records] == [32 if kind == "fussy" else 33 for kind in kinds]
    failures = [
        {Path(entry.source).name for entry in record.items_with_problems if entry.state == "failed"} for record in records
    ]
    assert failures == [{"broken.wav", "loud.wav"} if kind == "fussy" else {"broken.wav"} for kind in kinds]
    assert len(rows) < sum(rows) / 3, "batches are shared"

    apart = job_of(kinds, scripted, local_store, recordings, tmp_path / "apart")
    for work in apart.to_do:
        converted(replace(apart, to_do=(work,)), monkeypatch, 8)
    assert hashes(tmp_path / "together") == hashes(tmp_path / "apart")

    usual = job_of(kinds, scripted, local_store, recordings, tmp_path / "usual")
    _, rows = converted(usual, monkeypatch, 1)
    assert set(rows) == {1}
    for path in sorted((tmp_path / "usual").rglob("*.wav")):
        one, other = (soundfile.read(p)[0] for p in (path, tmp_path / "together" / path.relative_to(tmp_path / "usual")))
        assert np.abs(one - other).max() <= 2**-15, "a rounding of 16 bits"


def test_an_error_that_concerns_all_ends_all(
    scripted: Scripted, local_store: Store, recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_of(["frames"], scripted, local_store, recordings, tmp_path / "out")
    count = iter(range(1000))

    def full(*arguments: Any, **options: Any) -> Any:
        if next(count) == 5:
            raise StoreError("the disk is full", where="out", fix="free some space")
        return original(*arguments, **options)

    original = item.keep_time
    monkeypatch.setattr(item, "keep_time", full)
    monkeypatch.setattr(type(job.plans[0].output), "check_writable", _refuse)
    with pytest.raises(StoreError, match="the disk is full"):
        converted(job, monkeypatch, 8)
    monkeypatch.undo()
    again = job_of(["frames"], scripted, local_store, recordings, tmp_path / "out")
    (record,), _ = converted(again, monkeypatch, 8)
    assert (record.converted + record.skipped, len(record.failed)) == (33, 1)
    assert record.skipped >= 5, "what was finished stays"


def _refuse(self: Store, **options: Any) -> None:
    raise StoreError("the disk is full", where=self.uri, fix="free some space")


def test_whoever_stops_in_the_middle_ends_the_threads(
    scripted: Scripted, local_store: Store, recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_of(["frames"], scripted, local_store, recordings, tmp_path / "out")
    monkeypatch.setitem(vars(batches_module)["_SIZES"], "cpu", 4)
    outcomes: Iterator[Any] = attempt_all(job, job.to_do, load_converters(job.store, job.cards, device="cpu", trust=True))
    next(outcomes)
    outcomes.close()  # type: ignore[attr-defined]
    left = [path for path in (tmp_path / "out").rglob("*") if path.is_file() and path.suffix != ".wav"]
    assert left == [], "no temporary file"
    assert len(list((tmp_path / "out").rglob("*.wav"))) < 33
    assert torch.get_num_threads() == 1


def test_whatever_fails_beside_the_conversion_ends_the_threads(
    scripted: Scripted, local_store: Store, recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_of(["frames"], scripted, local_store, recordings, tmp_path / "out")
    monkeypatch.setitem(vars(batches_module)["_SIZES"], "cpu", 4)
    outcomes = attempt_all(job, job.to_do, load_converters(job.store, job.cards, device="cpu", trust=True))
    with pytest.raises(ZeroDivisionError):
        finish(job, outcomes, lambda count, total: print(1 / (3 - count)))
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("conversion")] == []


def test_after_a_stop_nothing_is_read_or_noted(
    scripted: Scripted, local_store: Store, recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_of(["frames"], scripted, local_store, recordings, tmp_path / "out")
    converters = load_converters(job.store, job.cards, device="cpu", trust=True)
    converters[0].batches.stop()
    before = [entry.key for entry in local_store.list()]
    with pytest.raises(StoppedError):
        attempt(job, job.to_do[0], converters)
    assert [entry.key for entry in local_store.list()] == before
    assert hashes(tmp_path / "out") == {}


@pytest.mark.slow
def test_models_that_share_an_encoder_share_batches_too(
    shared_encoder_cards: list[ModelCard], local_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    for number in range(6):
        soundfile.write(tmp_path / "in" / f"{number}.wav", 0.2 * rng.standard_normal(30_000 + 4000 * (number % 2)), 44100)
    for folder, at_once in {"together": 6, "alone": 1}.items():
        plans = plan_conversions(
            shared_encoder_cards, [str(tmp_path / "in")], str(tmp_path / folder), ConversionParameters(), apart=True
        )
        job = begin(local_store, plans, chunk_seconds=10.0)
        for start in range(0, 6, at_once):
            records, rows = converted(replace(job, to_do=job.to_do[start : start + at_once]), monkeypatch, 3)
            if at_once == 6:
                assert [record.converted for record in records] == [6, 6, 6]
                assert len(rows) < sum(rows), "batches are shared"
    assert hashes(tmp_path / "together") == hashes(tmp_path / "alone")
