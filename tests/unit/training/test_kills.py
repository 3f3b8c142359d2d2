"""A kill is a pause: whenever a process is killed, the run ends with the weights of one that never was, bit by bit."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from rave_dist.options import Budget, CheckpointPolicy
from rave_dist.records import Continuation, TrainingSpec
from rave_dist.storage.store import Store
from rave_dist.training.continuation import plan_continuation
from rave_dist.training.state.checkpoint import load_checkpoint
from rave_dist.training.state.outputs import read_result
from tests.sample_records import training_spec

pytestmark = pytest.mark.slow

STEPS, PHASE_1 = 21, 14
KILLS = 10


class Host:
    """A process that runs one job at a time in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        worker = Path(__file__).with_name("run_worker.py")
        root = str(Path(__file__).parents[3])
        environment = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", str(worker)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def start(self, store: Store, spec: TrainingSpec) -> int:
        """Begins a job; returns its process."""
        assert self.process.stdin is not None
        job = {"store": store.uri, "spec": spec.to_json(), "folder": str(self.folder)}
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        return self.wait_for("pid")

    def wait_for(self, word: str, number: int = -1) -> int:
        """The number of the next line of that word whose number is at least this one."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            said, _, value = line.partition(" ")
            assert said != "ended" or word == "ended", f"it ended with {value.strip()} before {word} {number}"
            if said == word and int(value) >= number:
                return int(value)
        pytest.fail(f"the worker ended before {word} {number}")

    def ended(self) -> int:
        assert self.process.stdout is not None
        return next(int(line.split()[1]) for line in self.process.stdout if line.startswith("ended"))

    def close(self) -> None:
        with self.process:  # closes its pipes, which ends it, and waits
            pass


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Host, Host]]:
    folder = tmp_path_factory.mktemp("hosts")
    pair = Host(folder / "one"), Host(folder / "another")
    yield pair
    for host in pair:
        host.close()


def _spec(**checkpoint: int) -> TrainingSpec:
    return training_spec(budget=Budget(steps=STEPS), checkpoint=CheckpointPolicy(**(checkpoint or {"steps": 3})))


def _weights(store: Store, spec: TrainingSpec, folder: Path) -> dict[str, torch.Tensor]:
    """The best of both phases."""
    weights: dict[str, torch.Tensor] = {}
    for file in ("weights.pt", "weights_phase_1.pt"):
        path = store.download(f"{spec.run_key}/{file}", folder / file)
        weights |= {f"{file}/{name}": value for name, value in torch.load(path, weights_only=True).items()}
    return weights


@pytest.fixture(scope="module")
def undisturbed(hosts: tuple[Host, Host], tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    folder = tmp_path_factory.mktemp("undisturbed")
    store, spec = Store(str(folder / "store")), _spec(steps=1000)
    hosts[0].start(store, spec)
    assert hosts[0].wait_for("finished") == STEPS
    assert hosts[0].ended() == 0
    result = read_result(store, spec)
    assert result is not None
    assert (result.phase_1_steps, result.phase) == (PHASE_1, 2)
    return _weights(store, spec, folder)


def _same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_ten_kills_at_random_moments_change_nothing(
    hosts: tuple[Host, Host], undisturbed: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    store, spec, chance = Store(str(tmp_path / "store")), _spec(), random.Random(20)
    around_the_switch = [PHASE_1 - 1, PHASE_1, PHASE_1 + 1]
    others = [step for step in range(STEPS - 4) if step not in around_the_switch]
    moments = sorted([*around_the_switch, *chance.sample(others, KILLS - len(around_the_switch))])
    for number, step in enumerate(moments):
        host = hosts[number % 2]
        process = host.start(store, spec)
        host.wait_for("step", step)
        time.sleep(chance.uniform(0, 0.2))  # in the midst of a step, of a validation or of writing a checkpoint
        os.kill(process, signal.SIGKILL)
        assert host.ended() == -signal.SIGKILL
        assert read_result(store, spec) is None
    hosts[0].start(store, spec)
    assert hosts[0].wait_for("finished") == STEPS
    assert hosts[0].ended() == 0
    assert _same(undisturbed, _weights(store, spec, tmp_path))


def test_a_run_moves_to_another_host(hosts: tuple[Host, Host], undisturbed: dict[str, torch.Tensor], tmp_path: Path) -> None:
    """SIGTERM here, on with another process in another folder; of the first host only the store is left, at another path."""
    store, spec = Store(str(tmp_path / "store")), _spec(steps=1000)
    process = hosts[0].start(store, spec)
    seen = hosts[0].wait_for("step", PHASE_1 - 3)
    os.kill(process, signal.SIGTERM)
    stopped = hosts[0].wait_for("stopped", seen)
    assert hosts[0].ended() == 0
    assert (load_checkpoint(store, spec.folder.checkpoints) or (0, {}))[0] == stopped < STEPS

    shutil.rmtree(hosts[0].folder)
    hosts[0].folder.mkdir()
    (tmp_path / "store").rename(tmp_path / "mounted elsewhere")
    elsewhere = Store(str(tmp_path / "mounted elsewhere"))
    hosts[1].start(elsewhere, spec)
    assert hosts[1].wait_for("step") == stopped
    assert hosts[1].wait_for("finished") == STEPS
    assert hosts[1].ended() == 0
    assert _same(undisturbed, _weights(elsewhere, spec, tmp_path))


def test_a_killed_continuation_of_a_finished_run_ends_like_an_undisturbed_one(hosts: tuple[Host, Host], tmp_path: Path) -> None:
    short = _spec().model_copy(update={"budget": Budget(steps=9)})
    store, chance = Store(str(tmp_path / "store")), random.Random(21)
    hosts[0].start(store, short)
    assert hosts[0].wait_for("finished") == 9
    assert hosts[0].ended() == 0
    other = Store(str(shutil.copytree(tmp_path / "store", tmp_path / "other")))

    spec = plan_continuation(store, short.model_copy(update={"budget": Budget(steps=16)})).spec
    assert spec.continues == Continuation(run_id=short.run_id, step=9)
    hosts[0].start(store, spec)
    assert hosts[0].wait_for("finished") == 16
    assert hosts[0].ended() == 0
    for step in (9, 11, 14):
        process = hosts[1].start(other, spec)
        hosts[1].wait_for("step", step)
        time.sleep(chance.uniform(0, 0.2))
        os.kill(process, signal.SIGKILL)
        assert hosts[1].ended() == -signal.SIGKILL
    hosts[1].start(other, spec)
    assert hosts[1].wait_for("finished") == 16
    assert hosts[1].ended() == 0
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    assert _same(_weights(store, spec, tmp_path / "one"), _weights(other, spec, tmp_path / "two"))
