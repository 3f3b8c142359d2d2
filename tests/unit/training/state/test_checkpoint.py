from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from rave_dist.errors import ConfigurationError, TrainingError
from rave_dist.storage.store import Store
from rave_dist.training.state.checkpoint import (
    load_checkpoint,
    load_weights,
    random_states,
    restore_random_states,
    save_checkpoint,
    seed_everything,
)

FOLDER = "runs/library/tabla/abc/checkpoints"
CPU = torch.device("cpu")


def _state(value: float) -> dict[str, object]:
    return {"model": {"weight": torch.full((3,), value)}, "seconds": value, "nested": [(1, None), "text"]}


def _corrupt(store: Store, key: str) -> None:
    data = bytearray(store.read_bytes(key))
    data[len(data) // 2] ^= 0xFF
    store.write_bytes(key, bytes(data))


def test_the_newest_comes_back_and_two_stay(any_store: Store) -> None:
    assert load_checkpoint(any_store, FOLDER) is None
    for step in (5, 10, 1000):
        save_checkpoint(any_store, FOLDER, step, _state(float(step)))
    step, state = load_checkpoint(any_store, FOLDER) or (0, {})
    assert step == 1000
    assert torch.equal(state["model"]["weight"], torch.full((3,), 1000.0))
    assert state["nested"] == [(1, None), "text"]
    names = sorted(entry.key.rpartition("/")[2] for entry in any_store.list(FOLDER))
    assert names == ["step-000000010.json", "step-000000010.pt", "step-000001000.json", "step-000001000.pt"]


@pytest.mark.parametrize("damage", ["bits", "truncated", "side file", "missing data"])
def test_a_damaged_checkpoint_is_passed_over(local_store: Store, damage: str) -> None:
    save_checkpoint(local_store, FOLDER, 1, _state(1.0))
    save_checkpoint(local_store, FOLDER, 2, _state(2.0))
    newest = f"{FOLDER}/step-000000002"
    if damage == "bits":
        _corrupt(local_store, f"{newest}.pt")
    elif damage == "truncated":
        local_store.write_bytes(f"{newest}.pt", local_store.read_bytes(f"{newest}.pt")[:-100])
    elif damage == "side file":
        local_store.write_bytes(f"{newest}.json", b'{"step": 2, "sha')
    else:
        local_store.delete(f"{newest}.pt")
    step, state = load_checkpoint(local_store, FOLDER) or (0, {})
    assert (step, state["seconds"]) == (1, 1.0)
    # The damaged one does not take the place of a good one when the run goes on.
    save_checkpoint(local_store, FOLDER, 3, _state(3.0))
    _corrupt(local_store, f"{FOLDER}/step-000000003.pt")
    assert (load_checkpoint(local_store, FOLDER) or (0, {}))[0] == 1


def test_data_without_its_side_file_is_no_checkpoint(local_store: Store) -> None:
    save_checkpoint(local_store, FOLDER, 1, _state(1.0))
    local_store.write_bytes(f"{FOLDER}/step-000000002.pt", b"written by a run that was killed here")
    assert (load_checkpoint(local_store, FOLDER) or (0, {}))[0] == 1
    save_checkpoint(local_store, FOLDER, 3, _state(3.0))
    assert not local_store.exists(f"{FOLDER}/step-000000002.pt")


def test_all_damaged_is_an_error_with_a_fix(local_store: Store) -> None:
    save_checkpoint(local_store, FOLDER, 1, _state(1.0))
    _corrupt(local_store, f"{FOLDER}/step-000000001.pt")
    with pytest.raises(TrainingError, match="damaged") as caught:
        load_checkpoint(local_store, FOLDER)
    assert caught.value.fix


def test_random_states_survive_a_checkpoint(local_store: Store) -> None:
    seed_everything(7)
    torch.randn(3), np.random.randn(3), random.random()
    save_checkpoint(local_store, FOLDER, 1, {"random": random_states(CPU)})
    expected = torch.randn(5), np.random.randn(5), random.random(), torch.rand(2)
    seed_everything(0)
    _, state = load_checkpoint(local_store, FOLDER) or (0, {})
    restore_random_states(state["random"], CPU)
    assert torch.equal(torch.randn(5), expected[0])
    assert np.array_equal(np.random.randn(5), expected[1])
    assert random.random() == expected[2]
    assert torch.equal(torch.rand(2), expected[3])


def test_weights_of_another_model_are_refused_with_a_diff_of_shapes() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2, bias=False))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    other = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Linear(5, 2))
    with pytest.raises(ConfigurationError) as caught:
        load_weights(model, other.state_dict(), where="runs/library/tabla")
    assert caught.value.where == "runs/library/tabla"
    for line in ("- 1.bias [2]", "! 0.weight [5, 3] -> [4, 3]", "! 1.weight [2, 5] -> [2, 4]"):
        assert line in caught.value.what
    with pytest.raises(ConfigurationError, match=r"\+ 0.bias \[4\]"):
        load_weights(model, {name: value for name, value in before.items() if name != "0.bias"}, where="x")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    wide = torch.nn.ModuleList(torch.nn.Linear(1, 1) for _ in range(10))
    with pytest.raises(ConfigurationError, match="and 14 more"):
        load_weights(torch.nn.Sequential(), wide.state_dict(), where="x")
    same = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2, bias=False))
    load_weights(model, same.state_dict(), where="x")
    assert all(torch.equal(value, same.state_dict()[name]) for name, value in model.state_dict().items())
