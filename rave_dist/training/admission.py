"""How many runs at once, and with what: admission of runs to a cluster as plain arithmetic. No Ray.

A run that waits inside Ray Train holds processes and retries without end, so a run is handed over only when there is room.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rave_dist.errors import ClusterError

MOST_CPUS_PER_RUN = 8
"""More threads than that hardly help a RAVE step on a CPU."""

FINEST_GPU_SHARE = 4
"""Most runs on one GPU: more would wait for one another's kernels."""

_MEMORY_MARGIN = 1.3
"""What the CUDA context, the allocator's gaps and cuDNN's workspaces take in addition to the tensors of a step."""


@dataclass(frozen=True)
class Node:
    """What a node has in all."""

    cpus: float
    gpus: float = 0.0


@dataclass(frozen=True)
class Share:
    """What one run gets; ``gpus`` may be a fraction."""

    cpus: int
    gpus: float = 0.0

    def resources(self) -> dict[str, float]:
        """As Ray writes it."""
        return {"CPU": self.cpus, "GPU": self.gpus} if self.gpus else {"CPU": self.cpus}


def gpu_share(step_bytes: int, gpu_bytes: int) -> float:
    """The part of a GPU that a run needs: 1, 1/2, 1/3 or 1/4.

    Args:
        step_bytes: memory of a training step.
        gpu_bytes: memory of the GPU.
    """
    fit = int(gpu_bytes / (_MEMORY_MARGIN * step_bytes)) if step_bytes else 1
    return 1 / min(max(fit, 1), FINEST_GPU_SHARE)


def share(nodes: Sequence[Node], runs: int, *, gpus_per_run: float = 0.0) -> Share:
    """What each of several runs gets: on GPUs its part of one and a CPU; without GPUs an equal part of the CPUs.

    Args:
        nodes: the cluster.
        runs: how many runs there are to do.
        gpus_per_run: the part of a GPU that each needs; 0 to train on CPUs.

    Raises:
        ClusterError: no node can take even one run.
    """
    if gpus_per_run:
        wanted = Share(1, gpus_per_run)
    else:
        usable = sum(_usable_cpus(node, nodes) for node in nodes)
        widest = max((int(node.cpus) for node in nodes), default=0)
        wanted = Share(max(1, min(usable // max(1, runs), widest, MOST_CPUS_PER_RUN)))
    if not capacity(nodes, wanted):
        raise ClusterError(
            "no node has room for a training run",
            fix=f"add a node with {' and '.join(f'{amount:g} {kind}' for kind, amount in wanted.resources().items())}",
        )
    return wanted


def capacity(nodes: Sequence[Node], wanted: Share) -> int:
    """How many runs of a share the cluster holds at once."""
    return sum(_fit(node, _usable_cpus(node, nodes), wanted) for node in nodes)


def admit(*, waiting: int, running: int, starting: int, capacity: int, free: Node, wanted: Share) -> int:
    """How many waiting runs to start now.

    Args:
        waiting: runs that wait.
        running: runs that hold, or are about to hold, their share.
        starting: those of them that do not hold it yet, so that what is free still counts it.
        capacity: how many runs the cluster holds at once.
        free: what the whole cluster has free at this moment, as others may work on it too.
        wanted: what each run gets.
    """
    room = math.floor(free.cpus / wanted.cpus + 1e-6)
    if wanted.gpus:
        room = min(room, math.floor(free.gpus / wanted.gpus + 1e-6))
    return max(0, min(waiting, capacity - running, room - starting))


def _fit(node: Node, cpus: int, wanted: Share) -> int:
    """Whole shares in a node; a GPU's fractions do not reach over to the next GPU."""
    by_cpu = cpus // wanted.cpus
    if not wanted.gpus:
        return max(0, by_cpu)
    per_gpu = math.floor(1 / wanted.gpus + 1e-6)
    return max(0, min(by_cpu, math.floor(node.gpus + 1e-6) * per_gpu))


def _usable_cpus(node: Node, nodes: Sequence[Node]) -> int:
    """A node's CPUs less the one that the largest node of a cluster of four or more keeps free for reading data."""
    spare = 1 if sum(n.cpus for n in nodes) >= 4 and node is max(nodes, key=lambda n: n.cpus) else 0
    return max(0, int(node.cpus) - spare)
