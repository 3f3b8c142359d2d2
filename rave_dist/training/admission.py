"""Admission of runs to a cluster: how many at once, with which resources; independent of Ray.

A run that waits inside Ray Train holds processes and retries without end, so runs start only when resources are free.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rave_dist.errors import ClusterError

MOST_CPUS_PER_RUN = 8
"""Maximum CPU threads of a run; more hardly help a RAVE step."""

FINEST_GPU_SHARE = 4
"""Maximum runs on one GPU; more would wait for each other's kernels."""

_MEMORY_MARGIN = 1.3
"""Memory of the CUDA context, fragmentation and cuDNN's workspaces, in addition to the tensors of a step."""


@dataclass(frozen=True)
class Node:
    """Total resources of a node."""

    cpus: float
    gpus: float = 0.0


@dataclass(frozen=True)
class Share:
    """Resources of one run; ``gpus`` may be a fraction."""

    cpus: int
    gpus: float = 0.0

    def resources(self) -> dict[str, float]:
        """In Ray's notation."""
        return {"CPU": self.cpus, "GPU": self.gpus} if self.gpus else {"CPU": self.cpus}


def gpu_share(step_bytes: int, gpu_bytes: int) -> float:
    """The fraction of a GPU that a run needs: 1, 1/2, 1/3 or 1/4.

    Args:
        step_bytes: memory of a training step.
        gpu_bytes: memory of the GPU.
    """
    fit = int(gpu_bytes / (_MEMORY_MARGIN * step_bytes)) if step_bytes else 1
    return 1 / min(max(fit, 1), FINEST_GPU_SHARE)


def share(nodes: Sequence[Node], runs: int, *, gpus_per_run: float = 0.0) -> Share:
    """The resources of each run: a fraction of a GPU and a CPU, or without GPUs an equal share of the CPUs.

    Args:
        nodes: the cluster.
        runs: number of runs.
        gpus_per_run: the fraction of a GPU that each needs; 0 to train on CPUs.

    Raises:
        ClusterError: no node has the resources for one run.
    """
    if gpus_per_run:
        wanted = Share(1, gpus_per_run)
    else:
        usable = sum(_usable_cpus(node, nodes) for node in nodes)
        widest = max((int(node.cpus) for node in nodes), default=0)
        wanted = Share(max(1, min(usable // max(1, runs), widest, MOST_CPUS_PER_RUN)))
    if not capacity(nodes, wanted):
        raise ClusterError(
            "no node has the resources for a training run",
            fix=f"add a node with {' and '.join(f'{amount:g} {kind}' for kind, amount in wanted.resources().items())}",
        )
    return wanted


def capacity(nodes: Sequence[Node], wanted: Share) -> int:
    """The number of runs that fit the cluster at once."""
    return sum(_fit(node, _usable_cpus(node, nodes), wanted) for node in nodes)


def admit(*, waiting: int, running: int, starting: int, capacity: int, free: Node, wanted: Share) -> int:
    """The number of waiting runs to start now.

    Args:
        waiting: number of waiting runs.
        running: number of runs that have, or will have, their resources.
        starting: those of them whose resources are not yet allocated, and still count as free.
        capacity: number of runs that fit the cluster at once.
        free: free resources of the cluster, which may be shared with others.
        wanted: resources of each run.
    """
    room = math.floor(free.cpus / wanted.cpus + 1e-6)
    if wanted.gpus:
        room = min(room, math.floor(free.gpus / wanted.gpus + 1e-6))
    return max(0, min(waiting, capacity - running, room - starting))


def _fit(node: Node, cpus: int, wanted: Share) -> int:
    """The number of runs that fit a node; fractions of a GPU cannot span two GPUs."""
    by_cpu = cpus // wanted.cpus
    if not wanted.gpus:
        return max(0, by_cpu)
    per_gpu = math.floor(1 / wanted.gpus + 1e-6)
    return max(0, min(by_cpu, math.floor(node.gpus + 1e-6) * per_gpu))


def _usable_cpus(node: Node, nodes: Sequence[Node]) -> int:
    """A node's CPUs for training; the largest node of a cluster of four or more CPUs reserves one for reading data."""
    spare = 1 if sum(n.cpus for n in nodes) >= 4 and node is max(nodes, key=lambda n: n.cpus) else 0
    return max(0, int(node.cpus) - spare)
