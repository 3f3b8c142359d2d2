"""A rehearsal finds what would fail later, leaves no trace but its note, and is not repeated."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rave_dist.dataset.read import Segment
from rave_dist.errors import ConfigurationError
from rave_dist.records import Budget, TrainingSpec
from rave_dist.registry.export import export_run
from rave_dist.storage import Store
from rave_dist.training.rehearsal import rehearse

CPU = torch.device("cpu")


def _spec(**changes: Any) -> TrainingSpec:
    values: dict[str, Any] = {
        **{"library": "band", "instrument": "plucks", "dataset": "none", "config": ("v2_small",), "seed": 1},
        **{"override": {"CAPACITY": 4, "LATENT_SIZE": 8}, "sample_rate": 44100, "channels": 1, "budget": Budget(steps=10)},
        **{"window": 40960, "batch": 1},
    }
    return TrainingSpec(**{**values, **changes})


def _segments(seconds: float, seed: int) -> list[Segment]:
    samples = np.random.default_rng(seed).normal(0, 3000, (1, int(44100 * seconds))).astype(np.int16)
    return [Segment("a", 0, samples)]


def _rehearse(store: Store, spec: TrainingSpec, **options: Any) -> bool:
    return rehearse(store, spec, _segments(3, 0), _segments(1, 1), device=CPU, **options)


def test_what_works_is_noted_once_and_changes_nothing(local_store: Store, tmp_path: Path) -> None:
    exported: list[set[str]] = []

    def export(run: Path, out: Path) -> None:
        exported.append({path.name for path in run.iterdir()})
        assert torch.load(run / "weights.pt", weights_only=True)["fidelity"].isfinite().all()

    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    assert _rehearse(local_store, _spec(), export=export)
    assert torch.equal(torch.rand(3), expected), "the run draws what it would have drawn"
    assert exported == [{"spec.json", "config.gin", "weights.pt"}]
    assert [entry.key.split("/")[0] for entry in local_store.list("")] == ["rehearsals"]
    assert not _rehearse(local_store, _spec(instrument="another", seed=2), export=export)
    assert _rehearse(local_store, _spec(batch=2), export=export), "another batch is another memory"
    assert _rehearse(local_store, _spec(compute=("bf16",)), export=export), "another arithmetic is another step"


def test_what_cannot_be_exported_is_known_before_the_first_step(local_store: Store) -> None:
    mel = _spec(config=("hybrid",), window=73728)
    with pytest.raises(ConfigurationError, match="mel"):
        _rehearse(local_store, mel, export=partial(export_run, name="rehearsal"))
    with pytest.raises(ConfigurationError, match="too short"):
        _rehearse(local_store, _spec(window=16384))
    assert not list(local_store.list("")), "what failed is tried again"


def test_too_little_memory_is_known_before_the_first_step(tmp_path: Path) -> None:
    """In a process that may not grow by more than two gibibytes."""
    program = """
import resource, sys
import torch
sys.path.insert(0, sys.argv[1])
import test_rehearsal as t
from rave_dist import upstream
from rave_dist.errors import TrainingError
from rave_dist.storage import Store
torch.set_num_threads(1)
upstream.rave_module("model")
held = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + 2**31, held + 2**31))
try:
    t._rehearse(Store(sys.argv[2]), t._spec(batch=512))
except TrainingError as error:
    assert "memory" in error.what, error.what
    sys.stdout.write(error.fix)
    sys.stdout.flush()
    __import__("os")._exit(0)
"""
    here = Path(__file__).parent
    command = [sys.executable, "-c", program, str(here), str(tmp_path / "store")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=here.parents[2], check=False)
    assert done.stdout == "set batch: 256", done.stderr[-2000:]
