"""Several workers compute the run of one: with the same batches, noise, losses and weights, up to the order of additions."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from rave_dist.options import Budget, CheckpointPolicy
from tests.sample_records import training_spec

pytestmark = pytest.mark.slow

STEPS = 6  # of which 0 to 2 are phase 1, and 4 trains the discriminator
SPEC = training_spec(
    budget=Budget(steps=STEPS),
    batch=5,  # in parts of three and two, which are divided between two workers as two and one, and one and one
    checkpoint=CheckpointPolicy(steps=2),
    # The slope of RAVE's log distance where the output is nearly silent would multiply every rounding by a thousand.
    override={"CAPACITY": 4, "LATENT_SIZE": 8, "PHASE_1_DURATION": 3, "core.AudioDistanceV1.log_epsilon": 1e-3},
    augment={"mangle": 0.8, "pitch": 0.3, "mute": 0.2, "compress": 0.5, "gain": 0.5, "polarity": 0.5},
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("groups")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3]), "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    worker = Path(__file__).with_name("group_worker.py")
    command = [sys.executable, "-W", "ignore", str(worker), str(folder), SPEC.model_dump_json()]
    subprocess.run(command, check=True, env=environment)
    return folder


def state(folder: Path, name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = torch.load(folder / f"{name}.pt", weights_only=True)
    return loaded


def tensors(value: Any, place: str = "") -> dict[str, torch.Tensor]:
    """All tensors of a state by their places in it."""
    if isinstance(value, torch.Tensor):
        return {place: value}
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    return {name: tensor for key, item in items for name, tensor in tensors(item, f"{place}/{key}").items()}


def difference(ours: Any, theirs: Any) -> float:
    """The largest relative difference of the tensors of two states, each as one vector."""
    one, other = tensors(ours), tensors(theirs)
    assert one.keys() == other.keys()
    return max(relative(one[key], other[key]) for key in one)


def relative(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one.double() - other.double()).norm() / (other.double().norm() + 1e-30))


def vector(value: Any) -> torch.Tensor:
    """All tensors of a state: of some of them the gradients are all rounding, which Adam makes steps of full size."""
    return torch.cat([tensor.double().flatten() for tensor in tensors(value).values()])


def moved(folder: Path, name: str, part: str) -> bool:
    """Whether training has changed the weights of a network since the first validation."""
    after = state(folder, name)
    return any(
        not torch.equal(value, after["bests"][1][key]) for key, value in after["model"].items() if key.startswith(f"{part}.")
    )


@pytest.mark.parametrize("name", ["two", "changing"])
def test_the_weights_and_moments_are_those_of_one_worker(folder: Path, name: str) -> None:
    one, several = state(folder, "one"), state(folder, name)
    assert several["step"] == one["step"] == STEPS
    assert several["state"]["accumulation_steps"] == one["state"]["accumulation_steps"] == 2
    assert moved(folder, "one", "decoder")
    assert moved(folder, "one", "discriminator")
    assert difference(several["model"], one["model"]) < 1e-10
    assert relative(vector(several["model"]), vector(one["model"])) < 1e-12
    for optimizer in ("generator_optimizer", "discriminator_optimizer"):
        assert relative(vector(several["training"][optimizer]), vector(one["training"][optimizer])) < 1e-12
    assert several["state"]["train_distance"] == pytest.approx(one["state"]["train_distance"], rel=1e-10)
    assert several["state"]["last"] == pytest.approx(one["state"]["last"], rel=1e-10)


def test_the_windows_and_the_noise_are_those_of_one_worker(folder: Path) -> None:
    one, two = state(folder, "one"), state(folder, "two")
    assert torch.equal(two["windows"]["generator"], one["windows"]["generator"])
    assert torch.equal(two["random"]["torch"], one["random"]["torch"])


def test_all_workers_hold_the_same_weights(folder: Path) -> None:
    assert tensors(state(folder, "two-second")).keys() == tensors(state(folder, "two")["model"]).keys()
    assert difference(state(folder, "two-second"), state(folder, "two")["model"]) == 0


def test_a_run_whose_worker_was_killed_resumes_to_the_same_bytes(folder: Path) -> None:
    (first, second), again = state(folder, "ended")["killed"]
    assert second == -signal.SIGKILL
    assert first == 1, "the first worker noticed"
    assert again == [0, 0]
    assert difference(state(folder, "killed")["model"], state(folder, "two")["model"]) == 0
    assert difference(state(folder, "killed")["training"], state(folder, "two")["training"]) == 0


def test_workers_listen_where_they_are_told(folder: Path) -> None:
    of_first, of_second = (json.loads((folder / f"two-{rank}.json").read_text()) for rank in range(2))
    assert len(of_first) > len(of_second) > 0, "the first worker has the rendezvous"
    assert set(of_first + of_second) == {"127.0.0.1"}


def test_every_worker_ended_well(folder: Path) -> None:
    ended = state(folder, "ended")
    assert {code for name, attempts in ended.items() if name != "killed" for codes in attempts for code in codes} == {0}
