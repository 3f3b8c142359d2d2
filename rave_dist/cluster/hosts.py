"""The hosts of the connected Ray: their resources, what is free on them, and which are about to end."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping
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
_probes: dict[str, tuple[ray.ObjectRef[int], float]] = {}  # and the times at which they began


@dataclass(frozen=True)
class Cluster:
    """The hosts of the connected Ray at one moment.

    Args:
        hosts: those that may start work: alive, with the memory of their GPUs known, and not about to end.
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
        staying = {name: node for name, node in nodes.items() if name not in draining}
        unknown = _measure_gpus([name for name, node in staying.items() if node.total_resources.get("GPU", 0)])
        hosts = tuple(_host(name, node) for name, node in staying.items() if name not in unknown)
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
        gpu_bytes=_gpu_bytes.get(name, 0),
        accelerator=labels.get(_LABEL_ACCELERATOR, ""),
        labels=tuple(sorted(labels.items())),
    )


@ray.remote(num_cpus=0, num_gpus=0.01, max_calls=1)
def _measure_gpu() -> int:
    import torch

    return int(torch.cuda.get_device_properties(0).total_memory)


def _measure_gpus(hosts: Collection[str]) -> set[str]:
    """Measures the memory of a GPU on each host; returns the hosts that have not answered yet, but may.

    Waits only if there is no other host to work with. A host that does not answer within a minute, because all of its GPUs are
    in use, counts as one with GPUs of unknown memory, of which every run gets a whole one.
    """
    asked = [host for host in hosts if host not in _gpu_bytes]
    new = [host for host in asked if host not in _probes]
    for host in new:
        _probes[host] = (_measure_gpu.options(scheduling_strategy=only_on(host)).remote(), time.monotonic())
    if new and len(new) == len(hosts):
        ray.wait([_probes[host][0] for host in new], num_returns=len(new), timeout=_PROBE_SECONDS)
    unknown: set[str] = set()
    for host in asked:
        probe, began = _probes[host]
        if ray.wait([probe], timeout=0)[0]:
            try:
                _gpu_bytes[host] = ray.get(probe)
            except RayError:
                del _probes[host]  # asked again
        elif time.monotonic() - began < _PROBE_SECONDS:
            unknown.add(host)
    return unknown
