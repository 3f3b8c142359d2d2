"""Translates Ray's start errors to problems and fixes."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from rave_dist.cluster.address import Address
from rave_dist.errors import ClusterError


class _Cause(NamedTuple):
    pattern: str
    what: str
    fix: str
    again: bool = False


_LOGS = "see the logs in ray/session_latest/logs of the folder for temporary files"

_CAUSES: Final = (
    _Cause(
        "AF_UNIX path length",
        "the path of the folder for temporary files is too long for Ray's sockets",
        "set RAY_TMPDIR to a folder with a short path, for example RAY_TMPDIR=/tmp",
    ),
    _Cause(
        "Version mismatch",
        "the cluster runs another version of Ray or Python",
        "install the cluster's versions here; --debug shows both",
    ),
    _Cause(
        "[Aa]uthentication|[Uu]nauthenticated|auth token",
        "the cluster requires a token, and it is missing or wrong",
        "set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH to the file with the cluster's token",
    ),
    _Cause(
        "Could not find any running Ray instance",
        "Ray is not running on this machine",
        "start one with `ray start --head`, or unset RAY_ADDRESS",
    ),
    _Cause(
        "node_ip_address.json|No node info found|cannot find the node info|This node has an IP address",
        "this machine is not a node of the cluster",
        "run the command on a node, submit it with `ray job submit`, or start a node here with `ray start --address`",
    ),
    _Cause(
        "exceeds /dev/shm size|plasma directory",
        "/dev/shm is too small for Ray's object store",
        "enlarge it (containers: --shm-size=4g), or set RAY_OBJECT_STORE_ALLOW_SLOW_STORAGE=1",
    ),
    _Cause(
        "minimum allowed is|total available memory|Cannot allocate memory",
        "not enough memory for Ray",
        "close other programs, give the container more memory, or use a larger machine",
    ),
    _Cause("No space left on device", "the disk is full", "free space, or set RAY_TMPDIR to a folder on another disk"),
    _Cause(
        "Permission denied|Read-only file system",
        "a file of Ray cannot be written",
        "set HOME and RAY_TMPDIR to folders that you can write",
    ),
    _Cause(
        "[Aa]ddress already in use|port .* in use",
        "a port of Ray is in use",
        "unset RAY_GCS_SERVER_PORT, or end the other program",
    ),
    _Cause(
        "[Tt]imed out|timeout|Deadline|[Ff]ailed to get node info|GCS|raylet|died",
        "Ray did not start in time",
        f"run the same command again when the machine is less busy; if it happens again, {_LOGS}",
        again=True,
    ),
)


def explain(error: BaseException, address: Address) -> ClusterError:
    """The reason why Ray did not start or respond, with the first line of Ray's message in parentheses.

    Args:
        error: what ``ray.init`` raised.
        address: the address of the attempt.
    """
    cause = _find(str(error))
    if cause is None or (cause.again and address.kind != "local"):
        here = address.kind == "local"
        what = "Ray does not start" if here else "Ray does not answer"
        fix = _LOGS if here else "start the cluster, correct RAY_ADDRESS, or unset it to use this machine"
    else:
        what, fix = cause.what, cause.fix
    return ClusterError(f"{what} ({first_line(error)})", where=address.text, fix=fix)


def is_worth_another_try(error: BaseException) -> bool:
    """Whether another attempt may succeed: the start timed out or failed for an unknown reason."""
    cause = _find(str(error))
    return cause is None or cause.again


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its kind."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _find(text: str) -> _Cause | None:
    return next((cause for cause in _CAUSES if re.search(cause.pattern, text)), None)
