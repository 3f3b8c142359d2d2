"""The hosts of the connected Ray: their resources, what is free on them, and which are about to end."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import ray
from ray.exceptions import AuthenticationError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rave_dist.errors import ClusterError
from rave_dist.scheduling.admission import Host, Room, Share

HEAD_SECONDS = 30.0
"""How long the head of the cluster may not answer: Ray ends a process whose head is away for a minute."""

_PROBE_SECONDS = 60.0
_LABEL_ACCELERATOR = "ray.io/accelerator-type"

_gpu_bytes: dict[str, int] = {}
_probes: dict[str, ray.ObjectRef[int]] = {}


def hosts(leaving: set[str]) -> list[Host]:
    """The hosts that may start work: alive, and none of those that are `draining`."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [_host(node) for node in nodes if node["Alive"] and node["NodeID"] not in leaving]


def draining() -> set[str]:
    """Ids of the hosts that will end soon, for example because their cloud has reclaimed them.

    Raises:
        ClusterError: the head of the cluster does not answer or has restarted, so that nothing there can be reached.
    """
    _ask_head()  # before Ray's question, which has no time limit, and aborts the process when the head has restarted
    return set(ray._private.state.state.get_draining_nodes())


def _ask_head() -> None:
    head = ray._private.worker.global_worker.gcs_client  # type: ignore[attr-defined]
    try:
        head.get_cluster_resource_state(timeout_s=HEAD_SECONDS)
    except RayError as error:
        restarted = isinstance(error, AuthenticationError)
        raise ClusterError(
            f"the head of the cluster {'has restarted' if restarted else 'does not answer'}",
            fix="run the same command again when the cluster is complete: its runs resume",
        ) from error


def room(known: Iterable[Host], taken: Iterable[Share]) -> Room:
    """What is free on hosts: what neither these shares nor other work on the cluster hold."""
    free = Room(known, taken)
    for host, resources in ray._private.state.available_resources_per_node().items():  # type: ignore[no-untyped-call]
        free.limit(
            host,
            cpus=resources.get("CPU", 0.0),
            memory=resources.get("memory", 0.0),
            gpus=resources.get("GPU", 0.0),
        )
    return free


def affinity(share: Share) -> NodeAffinitySchedulingStrategy:
    """Starts a task on the host of a share; on another one if that host has gone."""
    return NodeAffinitySchedulingStrategy(share.host, soft=True)


def only_on(host: str) -> NodeAffinitySchedulingStrategy:
    """Starts a task on a host, or not at all."""
    return NodeAffinitySchedulingStrategy(host, soft=False)


def _host(node: dict[str, Any]) -> Host:
    resources, labels = node["Resources"], dict(node.get("Labels") or {})
    gpus = int(resources.get("GPU", 0))
    return Host(
        id=node["NodeID"],
        cpus=resources.get("CPU", 0.0),
        memory=resources.get("memory", 0.0),
        gpus=gpus,
        gpu_bytes=_memory_of_gpu(node["NodeID"]) if gpus else 0,
        accelerator=labels.get(_LABEL_ACCELERATOR, ""),
        labels=tuple(sorted(labels.items())),
    )


@ray.remote(num_cpus=0, num_gpus=0.01, max_calls=1)
def _measure_gpu() -> int:
    import torch

    return int(torch.cuda.get_device_properties(0).total_memory)


def _memory_of_gpu(host: str) -> int:
    """Memory of one of a host's GPUs; 0 while all of them are in use, so that every run gets a whole one."""
    if host not in _gpu_bytes:
        is_new = host not in _probes
        if is_new:
            _probes[host] = _measure_gpu.options(scheduling_strategy=only_on(host)).remote()
        ready, _ = ray.wait([_probes[host]], timeout=_PROBE_SECONDS if is_new else 0)
        if not ready:
            return 0
        try:
            _gpu_bytes[host] = ray.get(_probes[host])
        except RayError:
            del _probes[host]  # asked again
            return 0
    return _gpu_bytes[host]
