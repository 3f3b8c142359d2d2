"""On a card: chunks join into the whole, a repeat gives the same samples, files share batches, and all are what a CPU makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from rave_dist.conversion.convert import Converter
from rave_dist.conversion.corpus import plan_conversion
from rave_dist.conversion.job import begin
from rave_dist.conversion.loading import load_converters
from rave_dist.conversion.several_files import attempt_all
from rave_dist.identity import hash_file
from rave_dist.records import ConversionParameters
from rave_dist.registry.store import fetch
from rave_dist.storage.store import Store

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


def test_a_card_converts_as_a_cpu_does(tiny_model: Any, local_store: Store, tmp_path: Any) -> None:
    card = tiny_model.publish(local_store, "plucks")
    path = fetch(local_store, card, folder=tmp_path)
    sound = (0.2 * np.random.default_rng(0).standard_normal((1, 30 * card.sample_rate))).astype(np.float32)

    def converted(device: str, chunk_seconds: float) -> np.ndarray:
        converter = Converter(path, card, device=device)
        blocks = converter.convert([sound], sample_rate=card.sample_rate, channels=1, chunk_seconds=chunk_seconds)
        return np.concatenate(list(blocks), axis=1)

    whole = converted("cuda", 60.0)
    peak = np.abs(whole).max()
    assert peak > 0
    for chunk_seconds in (1.0, 7.3):
        assert np.abs(converted("cuda", chunk_seconds) - whole).max() <= 1e-5 * peak
    np.testing.assert_array_equal(converted("cuda", 60.0), whole)
    assert np.abs(converted("cpu", 60.0) - whole).max() <= 1e-4 * peak


def test_files_that_share_batches_are_those_of_each_alone(tiny_model: Any, local_store: Store, tmp_path: Path) -> None:
    card = tiny_model.publish(local_store, "plucks")
    rng = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    for number in range(40):
        sound = 0.2 * rng.standard_normal((rng.choice([30_000, 44_100, 60_000]), 1 + number % 2))
        soundfile.write(tmp_path / "in" / f"{number}.wav", sound, card.sample_rate)

    def hashes(output: Path, at_once: int) -> dict[str, str]:
        plan = plan_conversion(card, [str(tmp_path / "in")], str(output), ConversionParameters())
        job = begin(local_store, [plan], chunk_seconds=10.0)
        converters = load_converters(local_store, {0: card}, device="cuda")
        works = [job.to_do[start : start + at_once] for start in range(0, 40, at_once)]
        outcomes = [outcome for group in works for outcome in attempt_all(job, group, converters)]
        assert {outcome.item.state for outcome in outcomes} == {"converted"}
        return {path.name: hash_file(path) for path in output.iterdir()}

    assert hashes(tmp_path / "together", 40) == hashes(tmp_path / "alone", 1)
