"""On a card: the batch that a dry run names does fit, and twice as much does not; ``auto`` takes parts that fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from rave_dist.dataset.read import Segment
from rave_dist.errors import TrainingError
from rave_dist.records import DryRunResult
from rave_dist.scheduling.admission import MEMORY_MARGIN, gpu_share
from rave_dist.storage.store import Store
from rave_dist.training.preflight.dry_run import dry_run
from tests.sample_records import training_spec

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


DEVICE = torch.device("cuda")
AUDIO = [Segment("a", 0, np.random.default_rng(0).normal(0, 3000, (1, 441000)).astype(np.int16))]


@pytest.fixture
def share() -> Iterator[Callable[[int], None]]:
    """Sets how much of the card this process may fill, in bytes."""
    total = torch.cuda.get_device_properties(DEVICE).total_memory
    yield lambda size: torch.cuda.set_per_process_memory_fraction(min(1.0, size / total))
    torch.cuda.set_per_process_memory_fraction(1.0)


def dry_run_of(store: Store, batch: int | str, window: int = 40960) -> int:
    return dry_run(store, training_spec(batch=batch, window=window), AUDIO, AUDIO, device=DEVICE).accumulation_steps


def test_the_batch_that_is_named_fits(local_store: Store, share: Callable[[int], None]) -> None:
    share(2**31)
    with pytest.raises(TrainingError, match="memory") as refused:
        dry_run_of(local_store, 1024)
    named = int(refused.value.fix.partition(", or ")[0].removeprefix("set batch: "))
    assert dry_run_of(local_store, named) == 1
    if 2 * named < 1024:
        with pytest.raises(TrainingError, match="memory"):
            dry_run_of(local_store, 2 * named)


def test_the_share_that_a_dry_run_asks_for_suffices(local_store: Store, tmp_path: Path, share: Callable[[int], None]) -> None:
    assert dry_run_of(local_store, 32) == 1
    (whole,) = (DryRunResult.load(local_store, entry.key) for entry in local_store.list("dry_runs"))
    total = torch.cuda.get_device_properties(DEVICE).total_memory
    assert 16 * 1e6 < whole.device_bytes < total
    share(int(gpu_share(whole.device_bytes, total) * total))
    again = Store(str(tmp_path / "again"))
    assert dry_run_of(again, 32) == 1
    (shared,) = (DryRunResult.load(again, entry.key) for entry in again.list("dry_runs"))
    assert shared.step_id == whole.step_id
    assert shared.id != whole.id, "another memory"
    assert shared.device_bytes == pytest.approx(whole.device_bytes, rel=0.2)


def test_auto_takes_parts_that_fit_and_another_share_of_the_card_is_tried_anew(
    local_store: Store, share: Callable[[int], None]
) -> None:
    window = 2**19
    assert dry_run_of(local_store, "auto", window) == 1
    (whole,) = (DryRunResult.load(local_store, entry.key) for entry in local_store.list("dry_runs"))
    found = []
    for size in (2**31, 2**30):
        share(size)
        found.append(dry_run_of(local_store, "auto", window))
        assert dry_run_of(local_store, "auto", window) == found[-1], "the note says the same"
    tried = [size for size in (2**31, 2**30) if MEMORY_MARGIN * whole.device_bytes > 1.01 * size]
    assert len(list(local_store.list("dry_runs"))) == 1 + len(tried)
    assert 1 <= found[0] <= found[1] <= 8
    assert found[1] > 1
