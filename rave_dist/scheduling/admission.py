"""Admission of runs to a cluster: which run starts next, on which host, with which resources; independent of Ray.

Each run has needs of its own. Runs that take much of the time that is left, or much of a card, start first, so that neither
is left for the end; smaller ones fill the room that these cannot use. Of the cards with room the fullest is taken, which keeps
whole ones free.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace

MOST_CPUS_PER_RUN = 8
"""Maximum CPU threads of a run; more hardly help a RAVE step."""

MOST_RUNS_PER_GPU = 8
"""Maximum runs on one GPU; more would wait for each other's kernels."""

MEMORY_MARGIN = 1.3
"""Memory of a run on a GPU per memory of the tensors of its step: the CUDA context, fragmentation, cuDNN's workspaces."""

ALL_MEMORY = sys.maxsize
"""The ``Need.memory`` of a run that needs all of a host's."""

_GPU_STEPS = 20  # shares are multiples of 1/20: finer ones leave rests that nobody can use
_TOLERANCE = 1e-6
_DAY = 86400.0

Labels = tuple[tuple[str, str], ...]
"""Names and values of labels."""


@dataclass(frozen=True)
class Host:
    """The resources of a host, in total; ``memory`` and ``gpu_bytes`` (of one of its GPUs) in bytes."""

    id: str
    cpus: float
    memory: float = math.inf
    gpus: int = 0
    gpu_bytes: int = 0
    accelerator: str = ""
    labels: Labels = ()


@dataclass(frozen=True)
class Need:
    """What one run needs; ``gpu_bytes`` is the memory of its training step, None to train on a CPU.

    An ``accelerator``, ``labels``, and the ids of hosts to ``avoid`` restrict the hosts. Each of several ``workers`` needs all
    of this.
    """

    cpus: int = 1
    memory: int = 0
    gpu_bytes: int | None = None
    accelerator: str = ""
    labels: Labels = ()
    avoid: frozenset[str] = frozenset()
    workers: int = 1


@dataclass(frozen=True)
class Candidate:
    """A waiting run: its need, the seconds that it will probably take, and its priority (larger ones first)."""

    name: str
    need: Need
    seconds: float = 0.0
    priority: int = 0


@dataclass(frozen=True)
class Share:
    """Resources of one run on a host; ``gpus`` may be a fraction of one, ``gpu`` is its index.

    Of several workers it is that of the first one; ``others`` has those of the rest.
    """

    host: str
    cpus: int
    memory: int = 0
    gpus: float = 0.0
    gpu: int = 0
    others: tuple[Share, ...] = ()

    @property
    def all(self) -> tuple[Share, ...]:
        """Those of all workers, each without the others."""
        return (replace(self, others=()), *self.others)

    @property
    def hosts(self) -> set[str]:
        """The ids of all hosts."""
        return {self.host, *(other.host for other in self.others)}


class Room:
    """The free resources of hosts.

    Args:
        hosts: the cluster.
        taken: the shares of runs that are there.
    """

    def __init__(self, hosts: Iterable[Host], taken: Iterable[Share] = ()) -> None:
        self._hosts = {host.id: host for host in hosts}
        self._cpus = {host.id: host.cpus for host in self._hosts.values()}
        self._all_cpus = sum(self._cpus.values())
        self._cpus_of_runs = 0.0
        self._memory = {host.id: host.memory for host in self._hosts.values()}
        self._gpus = {host.id: [1.0] * host.gpus for host in self._hosts.values()}
        for share in taken:
            self.take(share)

    def find(self, need: Need) -> Share | None:
        """The share of a run on the fullest card, or without cards on the emptiest host; None if there is no room.

        Several workers share a host if there is one for all of them.
        """
        if self._uses_reserved(need):
            return None
        if need.workers == 1:
            return self._find_one(need, self._hosts.values())
        together = [share for host in self._hosts.values() if (share := self._find_several(need, [host])) is not None]
        return min(together, key=self._rank, default=None) or self._find_several(need, self._hosts.values())

    def _find_one(self, need: Need, hosts: Iterable[Host]) -> Share | None:
        found = [share for host in hosts if (share := self._on(host, need)) is not None]
        return min(found, key=self._rank, default=None)

    def _find_several(self, need: Need, hosts: Iterable[Host]) -> Share | None:
        room, shares = deepcopy(self), list[Share]()
        for _ in range(need.workers):
            share = room._find_one(need, hosts)
            if share is None:
                return None
            room.take(share)
            shares.append(share)
        return replace(shares[0], others=tuple(shares[1:]))

    def take(self, share: Share) -> None:
        """Counts a share as used; one on a host that is gone is ignored."""
        for other in share.others:
            self.take(other)
        if share.host not in self._hosts:
            return
        self._cpus[share.host] -= share.cpus
        self._cpus_of_runs += share.cpus
        self._memory[share.host] -= share.memory
        if share.gpus and share.gpu < len(self._gpus[share.host]):
            self._gpus[share.host][share.gpu] -= share.gpus

    def hold(self, need: Need) -> None:
        """Counts what a run needs that finds no room as used, where most of it is free, so that it is next there."""
        one = replace(need, workers=1)
        for _ in range(need.workers):
            suited = [host for host in self._hosts.values() if has_room([host], one)]
            if not suited:
                return
            share = max((self._future(host, one) for host in suited), key=self._left)
            self.take(share)

    def limit(self, host: str, *, cpus: float, memory: float, gpus: float) -> None:
        """Reduces what is free on a host to what others have left of it."""
        if host in self._hosts:
            self._cpus[host] = min(self._cpus[host], cpus)
            self._memory[host] = min(self._memory[host], memory)
            while sum(self._gpus[host]) > gpus + _TOLERANCE:  # whose they are is not known: whole ones first
                excess = sum(self._gpus[host]) - gpus
                largest = max(range(len(self._gpus[host])), key=self._gpus[host].__getitem__)
                self._gpus[host][largest] -= min(excess, self._gpus[host][largest])

    def part(self, need: Need) -> float:
        """The part of a card that a run needs, or without cards that of a host's CPUs; of the host where it is smallest.

        Several workers may need more than one.
        """
        if need.gpu_bytes is not None:
            parts = (gpu_share(need.gpu_bytes, host.gpu_bytes) for host in self._hosts.values() if host.gpus)
            return need.workers * min(parts, default=1.0)
        return need.workers * need.cpus / max((host.cpus for host in self._hosts.values()), default=need.cpus)

    def size(self, *, gpu: bool) -> float:
        """The number of cards, or of hosts."""
        return float(sum(host.gpus for host in self._hosts.values()) if gpu else len(self._hosts))

    def _on(self, host: Host, need: Need) -> Share | None:
        if need.cpus > self._cpus[host.id] + _TOLERANCE or not _suits(host, need):
            return None
        memory = _memory_on(host, need)
        if memory > self._memory[host.id]:
            return None
        if need.gpu_bytes is None:
            return Share(host.id, need.cpus, memory)
        part = gpu_share(need.gpu_bytes, host.gpu_bytes)
        fitting = [index for index, free in enumerate(self._gpus[host.id]) if part <= free + _TOLERANCE]
        if not fitting:
            return None
        fullest = min(fitting, key=self._gpus[host.id].__getitem__)
        return Share(host.id, need.cpus, memory, part, fullest)

    def _future(self, host: Host, need: Need) -> Share:
        """The share of a run on the emptiest card of a host when it has room."""
        memory = _memory_on(host, need)
        if need.gpu_bytes is None:
            return Share(host.id, need.cpus, memory)
        free = self._gpus[host.id]
        return Share(host.id, need.cpus, memory, gpu_share(need.gpu_bytes, host.gpu_bytes), free.index(max(free)))

    def _left(self, share: Share) -> float:
        """What a share would leave free of its card, or without one of the CPUs; negative if it has to wait for others."""
        return self._gpus[share.host][share.gpu] - share.gpus if share.gpus else self._cpus[share.host] - share.cpus

    def _uses_reserved(self, need: Need) -> bool:
        """Whether too few CPUs would be left; the first run has what it needs, or one of a whole host might never start."""
        used = self._cpus_of_runs + need.workers * need.cpus
        return self._cpus_of_runs > 0 and used > self._all_cpus - _reserved(self._all_cpus) + _TOLERANCE

    def _rank(self, share: Share) -> float:
        """What a share would leave on its card; without one, lower on an emptier host: cores share its memory bus."""
        return self._left(share) if share.gpus else -self._cpus[share.host]


def gpu_share(step_bytes: int, gpu_bytes: int) -> float:
    """The fraction of a GPU that a run needs, a multiple of 1/20, at least 1/8 and at most 1.

    Args:
        step_bytes: memory of a training step; 0 if unknown, which takes a whole GPU.
        gpu_bytes: memory of the GPU; 0 if unknown.
    """
    if not step_bytes or not gpu_bytes:
        return 1.0
    needed = math.ceil(_GPU_STEPS * MEMORY_MARGIN * step_bytes / gpu_bytes - _TOLERANCE) / _GPU_STEPS
    return min(1.0, max(needed, 1 / MOST_RUNS_PER_GPU))


def cpus_per_run(hosts: Sequence[Host], runs: int) -> int:
    """The CPUs of each run on a cluster without GPUs: an equal part, at least 1 and at most those of one host.

    Args:
        hosts: the cluster.
        runs: their number, with each worker of several counted.
    """
    usable = sum(int(host.cpus) for host in hosts) - _reserved(sum(host.cpus for host in hosts))
    widest = max((int(host.cpus) for host in hosts), default=0)
    return max(1, min(usable // max(1, runs), widest, MOST_CPUS_PER_RUN))


def admit(
    waiting: Iterable[Candidate], room: Room, *, most: int | None = None, allowance: float = math.inf
) -> list[tuple[Candidate, Share]]:
    """The runs to start now, with their shares, which are taken from the room.

    Smaller runs fill what the first ones cannot use. A run of a higher priority that finds no room is next on the hosts that
    are nearest to have it: those of lower priorities leave it there.

    Args:
        waiting: runs without a process.
        room: what is free.
        most: how many may start; None for as many as fit.
        allowance: how far a library that wants the same cluster is ahead, in card-seconds as of `cost`; the run that
            exceeds it is the last one to start.
    """
    started: list[tuple[Candidate, Share]] = []
    refused: set[Need] = set()
    first: Candidate | None = None  # of its priority, that found no room
    for candidate in _in_order(list(waiting), room):
        if (most is not None and len(started) >= most) or allowance < 0:
            break
        if first is not None and candidate.priority < first.priority:
            room.hold(first.need)
            first = None
        if candidate.need in refused:
            continue
        share = room.find(candidate.need)
        if share is None:
            refused.add(candidate.need)
            first = first or candidate
        else:
            room.take(share)
            allowance -= cost(candidate, room)
            started.append((candidate, share))
    return started


def cost(candidate: Candidate, room: Room) -> float:
    """What a run takes from a cluster: its part of a card (without cards of a host) times its seconds, of a day at most."""
    return room.part(candidate.need) * min(candidate.seconds, _DAY)


def _in_order(waiting: Sequence[Candidate], room: Room) -> list[Candidate]:
    """By priority, then by the sum of two parts: of a card, and of the time that the waiting runs take at least."""
    if not waiting:
        return []
    parts = {need: room.part(need) for need in {candidate.need for candidate in waiting}}
    gpu = any(need.gpu_bytes is not None for need in parts)
    work = sum(candidate.seconds * parts[candidate.need] for candidate in waiting) / max(1.0, room.size(gpu=gpu))
    rest = max(work, max(candidate.seconds for candidate in waiting)) or 1.0

    def urgency(candidate: Candidate) -> float:
        return parts[candidate.need] + (1.0 if rest == math.inf else candidate.seconds / rest)

    return sorted(waiting, key=lambda one: (-one.priority, -urgency(one), one.name))


def missing(hosts: Sequence[Host], need: Need) -> str:
    """What a run waits for that finds no room: a host that does not exist, or resources that are in use."""
    wanted = [f"{need.cpus} CPU{'s' if need.cpus > 1 else ''}"]
    if need.gpu_bytes is not None:
        part = Room(hosts).part(need) / need.workers
        wanted.append(f"a {need.accelerator or 'GPU'}" if part >= 1 else f"{part:.0%} of a {need.accelerator or 'GPU'}")
    elif need.accelerator:
        wanted.append(f"a {need.accelerator}")
    if need.memory:
        wanted.append(f"{need.memory / 2**30:.1f} GiB of memory" if need.memory < ALL_MEMORY else "all memory of a host")
    wanted += [f"label {name}={value}" for name, value in need.labels]
    said = " and ".join(wanted)
    if need.workers > 1:
        said = f"{said} for each of {need.workers} workers"
    return f"{said}, which other work holds" if has_room(hosts, need) else f"a host with {said}"


def has_room(hosts: Sequence[Host], need: Need) -> bool:
    """Whether a host could hold a run if it were empty."""
    return Room(hosts).find(need) is not None


def narrowed(hosts: Iterable[Host], need: Need) -> Need:
    """The need with the CPUs of the largest host that suits, if none has as many: one may be lost while its run waits."""
    largest = max((host.cpus for host in hosts if _suits(host, need)), default=0.0)
    return replace(need, cpus=int(largest)) if 1 <= largest < need.cpus else need


def _memory_on(host: Host, need: Need) -> int:
    """The memory of a run on a host: what it needs, at most all of the host's."""
    return min(need.memory, int(host.memory)) if math.isfinite(host.memory) else need.memory


def _suits(host: Host, need: Need) -> bool:
    if host.id in need.avoid or (need.accelerator and need.accelerator != host.accelerator):
        return False
    return set(need.labels) <= set(host.labels)


def _reserved(cpus: float) -> int:
    """CPUs of a cluster that runs leave for reading data, on any host: whichever has them may be lost."""
    return 1 if cpus >= 4 else 0
