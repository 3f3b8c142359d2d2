"""Twenty seconds are enough to train on, to validate on and to export a playable number of latents; so are 60 and 229."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from rave_dist.dataset.read import Segment
from rave_dist.dataset.split import split
from rave_dist.options import Budget
from rave_dist.rave.exportable import exposed_latents
from rave_dist.rave.models import build_model
from rave_dist.storage.store import Store
from rave_dist.training.state.outputs import read_result
from rave_dist.training.trainer import train
from tests.sample_records import training_spec

pytestmark = pytest.mark.slow

RATE, WINDOW, LATENTS = 44100, 40960, 64


def _hits(seconds: float, index: int) -> Segment:
    """Two decaying bursts of noise a second, each of another loudness."""
    random = np.random.default_rng(index)
    time = np.arange(int(seconds * RATE)) / RATE
    loudness = np.repeat(random.uniform(0.1, 0.5, size=int(2 * seconds) + 1), RATE // 2)[: len(time)]
    sound = loudness * np.exp(-9 * (time % 0.5)) * random.uniform(-1, 1, len(time))
    return Segment(f"source-{index}", 0, (32767 * sound).astype(np.int16)[None])


@pytest.mark.parametrize(("files", "seconds"), [(1, 20.0), (20, 1.0), (1, 60.0), (8, 229 / 8)], ids=lambda value: f"{value:g}")
def test_a_little_audio_trains_validates_and_exports(files: int, seconds: float, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    override = {"CAPACITY": 4, "LATENT_SIZE": LATENTS}  # more latents than v2_small's 16 ask for more frames
    spec = training_spec(override=override, sample_rate=RATE, window=WINDOW, budget=Budget(steps=3))
    store = Store(str(tmp_path))
    parts = split([_hits(seconds, index) for index in range(files)], sample_rate=RATE, window=WINDOW)
    assert train(store, spec, parts.train, parts.validation).finished
    result = read_result(store, spec)
    assert result is not None
    assert result.complete is True
    assert all(np.isfinite(list(result.validation.to_json().values())))
    weights = torch.load(store.download(spec.folder.weights, tmp_path / "weights.pt"), weights_only=True)
    axes, fidelity = weights["latent_pca"], weights["fidelity"]
    assert torch.allclose(axes @ axes.T, torch.eye(LATENTS), atol=1e-4)
    assert 4 <= exposed_latents(fidelity) <= LATENTS
    assert float(fidelity[3]) < 1 - 1e-6, "the first four axes are all there is"
    build_model(store.read_bytes(spec.folder.config).decode(), channels=1).load_state_dict(weights)
