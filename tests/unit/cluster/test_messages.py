"""Each of Ray's failures has its own message; the texts are those of Ray 2.60."""

from __future__ import annotations

import pytest

from rave_dist.cluster.address import parse
from rave_dist.cluster.messages import explain, is_worth_another_try

BUSY = "The current node timed out during startup. This could happen because some of the raylet failed to startup"
AGENT = "Timed out waiting for file /tmp/ray/session_2026-11-25_21-34-38_537388_29827/gcs_server_port_f7b883ae7532"


@pytest.mark.parametrize(
    ("said", "what", "fix"),
    [
        ("validate_socket_filename failed: AF_UNIX path length cannot exceed 107 bytes: /a", "too long", "RAY_TMPDIR"),
        ("Version mismatch: The cluster was started with:\n    Ray: 2.50.0", "another version", "install"),
        ("Token authentication is enabled but no authentication token was found", "requires a token", "RAY_AUTH_TOKEN_PATH"),
        ("The configured object store size (20 GB) exceeds /dev/shm size (0.06 GB).", "/dev/shm is too small", "--shm-size"),
        (
            "Attempting to cap object store memory usage at 1 bytes, but the minimum allowed is 2 bytes.",
            "memory",
            "close",
        ),
        ("[Errno 28] No space left on device: '/tmp/ray'", "the disk is full", "free space"),
        ("[Errno 13] Permission denied: '/tmp/ray/session'", "cannot be written", "HOME"),
        (BUSY, "did not start in time", "less busy"),
        (AGENT, "did not start in time", "less busy"),
        ("something new", "does not start (something new)", "logs"),
    ],
)
def test_a_start_that_failed(said: str, what: str, fix: str) -> None:
    problem = explain(RuntimeError(said), parse("local"))
    assert what in problem.what
    assert said.splitlines()[0] in problem.what
    assert fix in problem.fix


def test_only_what_may_pass_is_tried_again() -> None:
    assert is_worth_another_try(RuntimeError(AGENT))
    assert is_worth_another_try(Exception(BUSY))
    assert is_worth_another_try(RuntimeError("something new"))
    assert not is_worth_another_try(OSError("[Errno 28] No space left on device: '/tmp/ray'"))


def test_a_cluster_is_not_told_to_be_less_busy() -> None:
    problem = explain(ConnectionError("Failed to connect to Ray cluster: Deadline exceeded"), parse("10.0.0.5:6379"))
    assert problem.where == "10.0.0.5:6379"
    assert "does not answer" in problem.what
    assert "correct RAY_ADDRESS" in problem.fix
