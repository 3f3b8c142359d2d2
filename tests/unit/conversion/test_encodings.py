"""Models that share an encoder: each chunk is encoded once, and every result is that of the model alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

from rave_dist.conversion import in_process, loading
from rave_dist.conversion.corpus import plan_conversions
from rave_dist.conversion.encodings import Encodings
from rave_dist.conversion.job import begin, finish
from rave_dist.identity import hash_file
from rave_dist.records import ConversionParameters, ModelCard, RunFolder, TrainingSpec
from rave_dist.registry.store import encoder_version
from rave_dist.storage.store import Store
from tests.conftest import TinyModel


class Counting(Encodings):
    encoded = 0

    def find(self, rows: Sequence[Tensor], encode: Any) -> list[Tensor]:
        def counted(missing: list[Tensor]) -> list[Tensor]:
            Counting.encoded += len(missing)
            found: list[Tensor] = encode(missing)
            return found

        return super().find(rows, counted)


@pytest.fixture
def cards(shared_encoder_cards: list[ModelCard], monkeypatch: pytest.MonkeyPatch) -> list[ModelCard]:
    monkeypatch.setattr(loading, "Encodings", Counting)
    monkeypatch.setattr(Counting, "encoded", 0)
    return shared_encoder_cards


@pytest.mark.slow
def test_each_chunk_is_encoded_once_and_the_results_are_those_of_each_model_alone(
    cards: list[ModelCard], local_store: Store, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    for name, rate, channels, seconds in (("a", 44100, 1, 5.3), ("b", 48000, 2, 3.1)):
        sound = 0.2 * rng.standard_normal((int(rate * seconds), channels))
        soundfile.write(tmp_path / "in" / f"{name}.wav", sound, rate)
    written = {}
    for folder, groups in {"all": [cards], "alone": [[card] for card in cards]}.items():
        for group in groups:
            plans = plan_conversions(group, [str(tmp_path / "in")], str(tmp_path / folder), ConversionParameters(), apart=True)
            job = begin(local_store, plans, chunk_seconds=1.0)
            assert all(record.converted == 2 for record in finish(job, in_process.convert_all(job)))
        written[folder] = {
            str(path.relative_to(tmp_path / folder)): hash_file(path) for path in (tmp_path / folder).rglob("*.wav")
        }
        if folder == "all":
            assert Counting.encoded == 6 + 2 * 4, "chunks of a second, of one and of two channels"
            Counting.encoded = 0
    assert Counting.encoded == 0, "alone, nothing is kept"
    assert len(written["all"]) == 6
    assert written["all"] == written["alone"]


def test_what_is_no_longer_kept_is_encoded_again() -> None:
    asked: list[int] = []

    def encode(rows: list[Tensor]) -> list[Tensor]:
        asked.extend(int(row[0, 0]) for row in rows)
        return [row[0, :1] for row in rows]

    encodings = Encodings(kept=2)
    inputs = [torch.full((1, 8), float(number)) for number in range(8)]
    for number in (0, 1, 0, 2, 0, 1):
        (found,) = encodings.find([inputs[number].clone()], encode)
        assert int(found) == number
    assert asked == [0, 1, 2, 1]
    encodings.find([inputs[0].reshape(2, 4)], encode)
    assert asked == [0, 1, 2, 1, 0], "another shape"
    asked.clear()
    assert [int(found) for found in encodings.find([inputs[number] for number in (3, 1, 3, 4, 5)], encode)] == [3, 1, 3, 4, 5]
    assert asked == [3, 4, 5], "each once, also if fewer are kept than are asked for"


@pytest.mark.slow
def test_the_version_of_an_encoder_depends_on_its_weights_and_not_on_the_decoder_or_the_phase(
    tiny_models: tuple[TinyModel, ...], tmp_path: Path
) -> None:
    run = RunFolder(tiny_models[0].run)
    weights: dict[str, Tensor] = torch.load(run.weights, weights_only=True)
    spec: TrainingSpec = tiny_models[0].spec

    def version(spec: TrainingSpec = spec, **changes: Tensor) -> str:
        (tmp_path / "run").mkdir(exist_ok=True)
        torch.save({**weights, **changes}, tmp_path / "run" / Path(run.weights).name)
        return encoder_version(RunFolder(tmp_path / "run"), spec)

    (of_decoder, *_) = [name for name in weights if name.startswith("decoder.") and weights[name].numel() > 1]
    (of_encoder, *_) = [name for name in weights if name.startswith("encoder.") and weights[name].numel() > 1]
    flag = "encoder.warmed_up"
    assert version() == version(**{of_decoder: weights[of_decoder] + 1}) == version(**{flag: 1 - weights[flag]})
    assert version() != version(**{of_encoder: weights[of_encoder] * 1.0001})
    assert version() != version(spec.model_copy(update={"sample_rate": 48000}))
    assert version() != encoder_version(RunFolder(tiny_models[1].run), tiny_models[1].spec)
