from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from rave_dist.errors import StoreError
from rave_dist.storage.store import Store
from rave_dist.training.state.async_checkpoint import AsyncCheckpointer, on_host
from rave_dist.training.state.checkpoint import load_checkpoint

FOLDER = "runs/library/tabla/abc/checkpoints"


class SlowStore(Store):
    """A store whose uploads wait until they are let go."""

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self.began, self.go = threading.Event(), threading.Event()

    def upload(self, path: Path | str, key: str) -> None:
        self.began.set()
        assert self.go.wait(60)
        super().upload(path, key)


def _steps(store: Store) -> list[int]:
    return sorted(int(entry.key[-14:-5]) for entry in store.list(FOLDER) if entry.key.endswith(".json"))


def test_training_goes_on_while_a_checkpoint_is_written(tmp_path: Path) -> None:
    store = SlowStore(str(tmp_path))
    weight, history = torch.zeros(3), [1]
    with AsyncCheckpointer(store, FOLDER, keep=2) as saver:
        saver.save(1, on_host({"weight": weight, "history": history, "pair": ({"inner": weight}, None)}))
        assert store.began.wait(60)
        weight.fill_(7)  # the next steps
        history.append(2)
        saver.check()
        assert _steps(store) == []
        store.go.set()
        saver.wait()
        _, state = load_checkpoint(store, FOLDER) or (0, {})
    assert torch.equal(state["weight"], torch.zeros(3))
    assert torch.equal(state["pair"][0]["inner"], torch.zeros(3))
    assert state["history"] == [1]


def test_checkpoints_are_written_in_order_and_so_many_stay(local_store: Store) -> None:
    with AsyncCheckpointer(local_store, FOLDER, keep=3) as saver:
        for step in range(1, 8):
            saver.save(step, {"step": step})
    assert _steps(local_store) == [5, 6, 7]  # the end waits for the last one


@pytest.mark.parametrize("how", ["check", "wait", "save", "end"])
def test_what_fails_in_the_thread_is_raised_in_the_loop(tmp_path: Path, how: str) -> None:
    (tmp_path / "store").touch()  # a file where the folder should be
    saver = AsyncCheckpointer(Store(str(tmp_path / "store")), FOLDER, keep=2)
    calls: dict[str, Callable[[], None]] = {
        "check": lambda: _check_until_it_raises(saver),
        "wait": saver.wait,
        "save": lambda: saver.save(2, {"step": 2}),
        "end": lambda: saver.__exit__(None, None, None),
    }
    saver.save(1, {"step": 1})
    with pytest.raises(StoreError):
        calls[how]()


def _check_until_it_raises(saver: AsyncCheckpointer) -> None:
    while True:
        saver.check()


def test_what_ended_the_loop_is_not_hidden_by_what_failed_in_the_thread(tmp_path: Path) -> None:
    (tmp_path / "store").touch()

    def loop() -> None:
        with AsyncCheckpointer(Store(str(tmp_path / "store")), FOLDER, keep=2) as saver:
            saver.save(1, {"step": 1})
            raise KeyError("of the loop")

    with pytest.raises(KeyError):
        loop()
