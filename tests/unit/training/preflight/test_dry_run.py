"""A dry run finds what would fail later and what fits, leaves no trace but its note, and is not repeated."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sample_records import training_spec  # outside pytest, which the processes below are, `tests` is a package of acids-rave

from rave_dist import isolated
from rave_dist.dataset.read import Segment
from rave_dist.errors import ConfigurationError
from rave_dist.options import Budget
from rave_dist.rave.step_config import StepConfig
from rave_dist.records import DryRunResult, TrainingSpec
from rave_dist.registry.export import export_run
from rave_dist.storage.store import Store
from rave_dist.training.preflight import dry_run as dry_runs
from rave_dist.training.preflight.dry_run import dry_run
from rave_dist.training.state.outputs import read_result
from rave_dist.training.step.memory import usable_bytes
from rave_dist.training.trainer import train

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
AUTO = {"batch": "auto", "window": 98304, "budget": Budget(steps=3)}
_spec = partial(training_spec, batch=1)


def _segments(seconds: float, seed: int) -> list[Segment]:
    samples = np.random.default_rng(seed).normal(0, 3000, (1, int(44100 * seconds))).astype(np.int16)
    return [Segment("a", 0, samples)]


def _dry_run_of(store: Store, spec: TrainingSpec, **options: Any) -> int:
    """The accumulation steps that fit."""
    return dry_run(store, spec, _segments(3, 0), _segments(1, 1), device=CPU, **options).accumulation_steps


def test_what_works_is_noted_once_and_changes_nothing(local_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    exported: list[set[str]] = []

    def export(run: Path, out: Path) -> None:
        exported.append({path.name for path in run.iterdir()})
        assert torch.load(run / "weights.pt", weights_only=True)["fidelity"].isfinite().all()

    def dry_run_of(**changes: Any) -> bool:
        """Whether anything was tried."""
        before = len(exported)
        assert _dry_run_of(local_store, _spec(**changes), export=export) == 1
        return len(exported) > before

    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    assert dry_run_of()
    assert torch.equal(torch.rand(3), expected), "the run draws what it would have drawn"
    assert exported == [{"spec.json", "config.gin", "weights.pt"}]
    assert [entry.key.split("/")[0] for entry in local_store.list("")] == ["dry_runs"]
    assert not dry_run_of(instrument="another", seed=2)
    assert dry_run_of(batch=2), "another batch is another memory"
    assert dry_run_of(compute=("bf16",)), "another arithmetic is another step"
    monkeypatch.setattr(dry_runs, "usable_bytes", lambda device: usable_bytes(device) // 4)
    assert dry_run_of(), "a quarter of a card, or of a machine, is not the whole"
    assert not dry_run_of()


@pytest.mark.parametrize("asked", range(1, 9, 2))
def test_one_that_is_asked_to_stop_leaves_nothing(
    local_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: int
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    answers = iter([False] * asked + [True])
    with pytest.raises(isolated.Stopped):
        _dry_run_of(local_store, _spec(), stop=lambda: next(answers))
    assert next(answers, None) is None, "it went on"
    assert not list(local_store.list(""))
    assert [path for path in tmp_path.iterdir() if path.name.startswith("rave-dist")] == []


def test_the_process_that_tries_a_batch_ends_when_it_is_asked_to_stop(local_store: Store) -> None:
    others = set(psutil.Process().children())  # of earlier tests, an S3 server say
    seen: set[psutil.Process] = set()

    def stop() -> bool:
        seen.update(set(psutil.Process().children()) - others)
        return bool(seen)

    with pytest.raises(isolated.Stopped):
        _dry_run_of(local_store, _spec(batch="auto"), stop=stop)
    assert seen
    assert set(psutil.Process().children()) <= others
    assert not list(local_store.list(""))


@given(batch=st.integers(1, 4096), data=st.data())
def test_the_largest_that_fits_is_found(batch: int, data: st.DataObject) -> None:
    fitting = data.draw(st.integers(0, batch - 1))
    config = StepConfig.of(_spec(batch=batch))
    assert dry_runs._largest_batch(config, lambda smaller: smaller.batch <= fitting) == fitting


def test_what_cannot_be_exported_is_known_before_the_first_step(local_store: Store) -> None:
    mel = _spec(config=("hybrid",), window=73728)
    with pytest.raises(ConfigurationError, match="mel"):
        _dry_run_of(local_store, mel, export=partial(export_run, name="dry_run"))
    with pytest.raises(ConfigurationError, match="too short"):
        _dry_run_of(local_store, _spec(window=16384))
    assert not list(local_store.list("")), "what failed is tried again"


def _with_little_memory(program: str, folder: Path) -> str:
    """What a program says in a process that may not grow by more than 980 MiB, of which 384 are for threads: a step of 390000
    samples fits the rest, one of 780000 does not, and one of 5200000 does not fit the whole."""
    preface = """
import os, resource, sys
import torch
sys.path.insert(0, sys.argv[1])
import test_dry_run as t
from rave_dist.rave.imports import rave_module
from rave_dist.errors import TrainingError
from rave_dist.storage.store import Store
from rave_dist.training.trainer import train
from rave_dist.training.step.memory import usable_bytes
torch.set_num_threads(1)
rave_module("model")
held = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + 980 * 2**20, held + 980 * 2**20))
assert usable_bytes(t.CPU) == held + 980 * 2**20
store = Store(sys.argv[2])
def say(words):
    os.write(1, words.encode())
"""
    here = Path(__file__).parent
    command = [sys.executable, "-c", preface + program, str(here), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=here.parents[2], check=False)
    assert done.stdout, done.stderr[-2000:]
    return done.stdout.rpartition("\n")[2]


def test_too_little_memory_is_known_before_the_first_step(tmp_path: Path) -> None:
    said = _with_little_memory(
        """
try:
    t._dry_run_of(store, t._spec(batch=32, window=163840))
except TrainingError as error:
    assert "memory" in error.what, error.what
    say("\\n" + error.fix)
    os._exit(0)
""",
        tmp_path / "store",
    )
    batch, _, other = said.partition(", or ")
    assert 2 <= int(batch.removeprefix("set batch: ")) < 4
    assert other.startswith("batch: auto")


def test_auto_takes_what_fits_and_the_run_goes_on_in_the_same_parts(tmp_path: Path) -> None:
    accumulation_steps = int(
        _with_little_memory(
            """
spec, audio, steps = t._spec(**t.AUTO), (t._segments(3, 0), t._segments(1, 1)), []
for until in (2, 100):
    accumulation_steps = t._dry_run_of(store, spec)
    tell, stop = lambda state, speed: steps.append(state.step), lambda: steps[-1] >= until
    train(store, spec, *audio, accumulation_steps=accumulation_steps, on_progress=tell, stop=stop)
say(f"\\n{accumulation_steps}")
""",
            tmp_path / "little",
        )
    )
    assert accumulation_steps == 2
    torch.set_num_threads(1)
    spec, little, enough = _spec(**AUTO), Store(str(tmp_path / "little")), Store(str(tmp_path / "enough"))
    (note,) = [DryRunResult.load(little, entry.key) for entry in little.list("dry_runs")]
    assert note.accumulation_steps == accumulation_steps
    assert (note.step_id, note.device) == (spec.step_id, "this machine")
    assert 100 << 20 < note.device_bytes < (980 - 384) << 20, "what it could grow by"
    assert note.device_bytes + (50 << 20) < note.host_bytes < note.device_bytes + (1 << 30), "torch and RAVE too"
    assert 0 < note.cpus < 1.5, "one thread, and little besides"
    train(enough, spec, _segments(3, 0), _segments(1, 1), accumulation_steps=accumulation_steps)
    results = [read_result(store, spec) for store in (little, enough)]
    assert [(result.complete, result.step, result.accumulation_steps) for result in results if result] == [
        (True, 3, accumulation_steps)
    ] * 2
    ends = []
    for store in (little, enough):
        path = store.download(spec.folder.weights, tmp_path / "weights.pt")
        ends.append(torch.load(path, weights_only=True))
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
