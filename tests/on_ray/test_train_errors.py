"""What a person reads when a run fails, from what Ray raises."""

from __future__ import annotations

import pytest
from ray.exceptions import ActorDiedError, OutOfMemoryError, TaskCancelledError
from ray.train.v2._internal.exceptions import UserExceptionWithTraceback, WorkerHealthCheckFailedError
from ray.train.v2.api.exceptions import ControllerError, WorkerGroupError

from rave_dist.errors import StoreError
from rave_dist.training.on_ray import explain

FULL = StoreError("the disk is full", where="/store", fix="free space")
DEAD = WorkerHealthCheckFailedError("A worker health check failed.", ActorDiedError())


@pytest.mark.parametrize(
    ("error", "what", "fix"),
    [
        (WorkerGroupError("1 of 1", {0: FULL}), "/store: the disk is full", "free space"),
        (WorkerGroupError("1 of 1", {0: UserExceptionWithTraceback(FULL, "")}), "/store: the disk is full", "free space"),
        (WorkerGroupError("1 of 1", {0: DEAD}), "the training process died", "memory"),
        (WorkerGroupError("1 of 1", {0: ValueError("first\nsecond")}), "ValueError: first", "same command"),
        (ControllerError(RuntimeError("no storage")), "RuntimeError: no storage", "same command"),
        (ActorDiedError(), "the training process died", "memory"),
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
