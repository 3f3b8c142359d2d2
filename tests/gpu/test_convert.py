"""On a card: chunks join into the whole, a repeat gives the same samples, and both are what a CPU makes of the sound."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from rave_dist.conversion.convert import Converter
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
