"""What a person reads when a run fails, from what Ray raises."""

from __future__ import annotations

import pytest
from ray.exceptions import NodeDiedError, OutOfMemoryError, RayTaskError, TaskCancelledError, WorkerCrashedError

from rave_dist.errors import StoreError, StoreUnavailableError
from rave_dist.training.process import explain, is_loss

FULL = StoreError("the disk is full", where="/store", fix="free space")


@pytest.mark.parametrize(
    ("error", "what", "fix"),
    [
        (RayTaskError("train_one", "", FULL), "/store: the disk is full", "free space"),
        (RayTaskError("train_one", "", FULL).as_instanceof_cause(), "/store: the disk is full", "free space"),
        (RayTaskError("train_one", "", ValueError("first\nsecond")), "ValueError: first", "same command"),
        (WorkerCrashedError(), "the training process died", "memory"),
        (NodeDiedError("its host is gone"), "the training process died", "memory"),
        (RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos"), "disk is full", "TMPDIR"),
        (OutOfMemoryError("killed"), "out of memory", "smaller batch"),
        (TaskCancelledError(), "cancelled", "same command"),
    ],
)
def test_an_error_from_ray_says_what_and_how_to_go_on(error: Exception, what: str, fix: str) -> None:
    problem = explain(error)
    assert what in problem.what
    assert fix in problem.fix
    assert "\n" not in problem.what


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (NodeDiedError("its host is gone"), True),
        (RayTaskError("train_one", "", StoreUnavailableError("does not respond")), True),
        (RayTaskError("train_one", "", StoreUnavailableError("does not respond")).as_instanceof_cause(), True),
        (RayTaskError("train_one", "", FULL), False),
        (RayTaskError("train_one", "", ValueError("no loss")), False),
        (WorkerCrashedError(), False),  # by a fault of the run itself, for all that is known
    ],
)
def test_a_run_is_not_to_blame_for_a_lost_host_or_store(error: Exception, expected: bool) -> None:
    assert is_loss(error) == expected
