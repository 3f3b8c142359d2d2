"""On a card: the batch that a rehearsal names does fit, and twice as much does not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rave_dist.dataset.read import Segment
from rave_dist.errors import TrainingError
from rave_dist.records import Budget, TrainingSpec
from rave_dist.storage import Store
from rave_dist.training.rehearsal import rehearse

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


def test_the_batch_that_is_named_fits(local_store: Store) -> None:
    device = torch.device("cuda")
    audio = [Segment("a", 0, np.random.default_rng(0).normal(0, 3000, (1, 441000)).astype(np.int16))]

    def tried(batch: int) -> bool:
        spec = TrainingSpec(
            library="band",
            instrument="plucks",
            dataset="none",
            config=("v2_small",),
            override={"CAPACITY": 4, "LATENT_SIZE": 8},
            sample_rate=44100,
            channels=1,
            window=40960,
            batch=batch,
            budget=Budget(steps=10),
            seed=1,
        )
        return rehearse(local_store, spec, audio, audio, device=device)

    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, 2**31 / total))
    try:
        with pytest.raises(TrainingError, match="memory") as refused:
            tried(1024)
        named = int(refused.value.fix.removeprefix("set batch: "))
        assert tried(named)
        if 2 * named < 1024:
            with pytest.raises(TrainingError, match="memory"):
                tried(2 * named)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
