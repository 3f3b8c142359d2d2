"""A run that does not fit the store's disk is refused before its first step."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from rave_dist.errors import StoreError
from rave_dist.options import Budget
from rave_dist.records import TrainingSpec
from rave_dist.storage.store import Store
from rave_dist.training.state.disk import run_bytes
from rave_dist.training.trainer import train
from tests.file_systems import tmpfs


@dataclass(frozen=True)
class Recording:
    pcm: npt.NDArray[np.int16]


def test_the_bytes_of_a_run_are_those_of_its_checkpoints_and_models() -> None:
    assert run_bytes(1_000_000, keep=2) == 3 * 20_000_000 + 20_000_000


@pytest.mark.slow
def test_a_run_on_a_small_disk_is_refused_before_its_first_step(tmp_path: Path) -> None:
    sound = Recording(np.random.default_rng(0).integers(-3000, 3000, (1, 6 * 44100), np.int16))
    spec = TrainingSpec(
        library="band",
        instrument="plucks",
        dataset="0" * 12,
        config=("v2_tiny",),
        sample_rate=44100,
        channels=1,
        window=40960,
        batch=2,
        budget=Budget(steps=2),
        seed=1,
    )
    steps: list[int] = []
    with tmpfs(tmp_path) as disk:
        with pytest.raises(StoreError, match=r"are needed, but \d+ MiB are free") as caught:
            train(Store(str(disk)), spec, [sound], [sound], on_progress=lambda state, speed: steps.append(state.step))
        assert not list(Store(str(disk)).list(spec.folder.checkpoints))
    assert caught.value.where == str(disk)
    assert caught.value.fix
    assert steps == []
