"""The hosts of the connected Ray: their resources, what is free on them, and which are about to end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rave_dist.cluster import head
from rave_dist.scheduling.admission import Host, Room, Share

_PROBE_SECONDS = 60.0
_LABEL_ACCELERATOR = "ray.io/accelerator-type"

_gpu_bytes: dict[str, int] = {}
_probes: dict[str, ray.ObjectRef[int]] = {}


@dataclass(frozen=True)
class Cluster:
    """The hosts of the connected Ray at one moment.

    Args:
        hosts: those that may start work: alive, and not about to end.
        draining: ids of those that will end soon, for example because their cloud has reclaimed them.
        free: resources that nobody holds, by id.
    """

    hosts: tuple[Host, ...]
    draining: frozenset[str]
    free: Mapping[str, Mapping[str, float]]

    @classmethod
    def now(cls) -> Cluster:
        """The present state.

        Raises:
            ClusterError: the head of the cluster does not answer or has restarted, so that nothing there can be reached.
        """
        nodes = head.nodes()
        draining = frozenset(name for name, node in nodes.items() if head.is_draining(node))
        hosts = tuple(_host(name, node) for name, node in nodes.items() if name not in draining)
        return cls(hosts, draining, {name: dict(node.available_resources) for name, node in nodes.items()})

    def room(self, known: Iterable[Host], taken: Iterable[Share]) -> Room:
        """What is free on some of the hosts: what neither these shares nor other work on the cluster hold."""
        free = Room(known, taken)
        for host, resources in self.free.items():
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


def _host(name: str, node: Any) -> Host:
    resources, labels = node.total_resources, dict(node.labels)
    gpus = int(resources.get("GPU", 0))
    return Host(
        id=name,
        cpus=resources.get("CPU", 0.0),
        memory=resources.get("memory", 0.0),
        gpus=gpus,
        gpu_bytes=_memory_of_gpu(name) if gpus else 0,
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
