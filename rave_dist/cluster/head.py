"""Questions to the head of the connected Ray, each with a time limit.

Ray's own functions for the same have none: while the head is away they wait, until Ray aborts the process.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

import ray
from ray.exceptions import AuthenticationError, RayError

from rave_dist.errors import ClusterError

HEAD_SECONDS = 30.0
"""How long the head may not answer: Ray ends a process whose head is away for a minute."""

_DEAD, _DRAINING = 2, 4  # values of Ray's ``NodeStatus``
_NAMESPACE: Final = b"rave_dist"

T = TypeVar("T")


def nodes() -> dict[str, Any]:
    """The nodes that are alive, by id, as Ray's messages ``NodeState``: resources, labels, status.

    Raises:
        ClusterError: the head does not answer or has restarted.
    """
    from ray.core.generated.autoscaler_pb2 import GetClusterResourceStateReply  # type: ignore[attr-defined]  # generated

    answer = _ask(lambda head: head.get_cluster_resource_state(timeout_s=HEAD_SECONDS))
    state = GetClusterResourceStateReply.FromString(answer).cluster_resource_state
    return {node.node_id.hex(): node for node in state.node_states if node.status != _DEAD}


def is_draining(node: Any) -> bool:
    """Whether one of `nodes` will end soon, for example because its cloud has reclaimed it; known about a second later."""
    return bool(node.status == _DRAINING)


def put(key: bytes, value: bytes) -> None:
    """Leaves a value at the head, for other drivers; replaces an earlier one.

    Raises:
        ClusterError: the head does not answer or has restarted.
    """
    _ask(lambda head: head.internal_kv_put(key, value, True, _NAMESPACE, HEAD_SECONDS))


def delete(key: bytes) -> None:
    """Removes a value from the head.

    Raises:
        ClusterError: the head does not answer or has restarted.
    """
    _ask(lambda head: head.internal_kv_del(key, False, _NAMESPACE, HEAD_SECONDS))


def values(prefix: bytes) -> dict[bytes, bytes]:
    """The values at the head whose keys have a prefix.

    Raises:
        ClusterError: the head does not answer or has restarted.
    """
    keys = _ask(lambda head: head.internal_kv_keys(prefix, _NAMESPACE, HEAD_SECONDS))
    found: dict[bytes, bytes] = {}
    if keys:
        found = _ask(lambda head: head.internal_kv_multi_get(keys, _NAMESPACE, HEAD_SECONDS))
    return found


def _ask(question: Callable[[Any], T]) -> T:
    try:
        return question(ray._private.worker.global_worker.gcs_client)  # type: ignore[attr-defined]
    except RayError as error:
        restarted = isinstance(error, AuthenticationError)
        raise ClusterError(
            f"the head of the cluster {'has restarted' if restarted else 'does not answer'}",
            fix="run the same command again when the cluster is complete: its runs resume",
        ) from error
