"""A night simulated with the scheduler of `rave_dist.scheduling.admission`: which run is where, and when the last one ends.

A run loses what it did since its last checkpoint when its host is lost or its process dies, and continues where there is room.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from rave_dist.scheduling.admission import Candidate, Host, Room, Share, admit, gpu_share

Ending = Literal["done", "process died", "host lost"]


@dataclass(frozen=True)
class Span:
    """One attempt of a run: its share, and when it began and ended, in seconds since the start."""

    name: str
    share: Share
    start: float
    end: float
    ending: Ending


@dataclass(frozen=True)
class Faults:
    """What goes wrong, in seconds since the start.

    ``joins`` and ``losses`` say when hosts come and go, by their id; one without an entry is there all the time. ``deaths``
    has, by the name of a run, the seconds after which each of its first attempts dies.
    """

    joins: Mapping[str, float] = field(default_factory=dict)
    losses: Mapping[str, float] = field(default_factory=dict)
    deaths: Mapping[str, Sequence[float]] = field(default_factory=dict)


NO_FAULTS = Faults()

START_SECONDS = 60.0
"""What an attempt takes before its first step: its process, its dry run, its audio."""


def simulate(
    runs: Sequence[Candidate],
    hosts: Sequence[Host],
    *,
    faults: Faults = NO_FAULTS,
    start_seconds: float = 0.0,
    checkpoint_seconds: float = 600.0,
    most: int | None = None,
) -> list[Span]:
    """The attempts of all runs, by their start.

    Args:
        runs: with the seconds that each takes.
        hosts: the cluster, with hosts that join later.
        faults: what goes wrong.
        start_seconds: what every attempt takes in addition.
        checkpoint_seconds: time between two checkpoints of a run.
        most: how many run at once; None for as many as fit.

    Raises:
        ValueError: a run remains for which no host has room.
    """
    state = _State(runs, hosts, faults, start_seconds, checkpoint_seconds, most)
    for host in hosts:
        state.schedule(faults.joins.get(host.id, 0.0), "join", host.id)
        if host.id in faults.losses:
            state.schedule(faults.losses[host.id], "lose", host.id)
    while state.events:
        state.advance()
    if state.waiting:
        raise ValueError(f"no host has room for {', '.join(sorted(state.waiting))}")
    return sorted(state.spans, key=lambda span: (span.start, span.name))


def lower_bound(runs: Sequence[Candidate], hosts: Sequence[Host], *, faults: Faults = NO_FAULTS) -> float:
    """Seconds that no schedule can beat: those of the longest run, and the shared work over what the hosts can give.

    Each run is counted with the share of a GPU (or the CPUs) that it has on the first host.
    """
    longest = max((run.seconds for run in runs), default=0.0)
    if any(host.gpus for host in hosts):
        card = next(host.gpu_bytes for host in hosts if host.gpus)
        work = sum(run.seconds * run.need.workers * gpu_share(run.need.gpu_bytes or 0, card) for run in runs)
        capacity = {host.id: float(host.gpus) for host in hosts}
    else:
        work = sum(run.seconds * run.need.workers * run.need.cpus for run in runs)
        capacity = {host.id: host.cpus for host in hosts}
    return max(longest, _time_for(work, capacity, faults))


def _time_for(work: float, capacity: Mapping[str, float], faults: Faults) -> float:
    """When hosts that come and go have given an amount of work."""
    changes = [(faults.joins.get(host, 0.0), size) for host, size in capacity.items()]
    changes += [(faults.losses[host], -size) for host, size in capacity.items() if host in faults.losses]
    now = speed = 0.0
    for moment, change in sorted(changes):
        if speed * (moment - now) >= work:
            break
        work -= speed * (moment - now)
        now, speed = moment, speed + change
    return now + work / speed if speed else math.inf


@dataclass
class _Attempt:
    run: Candidate
    share: Share
    start: float
    ending_event: int


class _State:
    def __init__(
        self,
        runs: Sequence[Candidate],
        hosts: Sequence[Host],
        faults: Faults,
        start_seconds: float,
        checkpoint_seconds: float,
        most: int | None,
    ) -> None:
        self.waiting = {run.name: run for run in runs}
        self.spans: list[Span] = []
        self.events: list[tuple[float, int, str, str]] = []
        self._hosts = {host.id: host for host in hosts}
        self._there: dict[str, Host] = {}
        self._attempts: dict[str, _Attempt] = {}
        self._deaths = {name: list(moments) for name, moments in faults.deaths.items()}
        self._start_seconds, self._checkpoint_seconds = start_seconds, checkpoint_seconds
        self._most = most
        self._number = 0

    def schedule(self, moment: float, kind: str, subject: str) -> int:
        """Adds an event; returns its number."""
        self._number += 1
        heapq.heappush(self.events, (moment, self._number, kind, subject))
        return self._number

    def advance(self) -> None:
        """Handles all events of the next moment, then starts what fits."""
        now = self.events[0][0]
        while self.events and self.events[0][0] == now:
            _, number, kind, subject = heapq.heappop(self.events)
            if kind == "join":
                self._there[subject] = self._hosts[subject]
            elif kind == "lose":
                del self._there[subject]
                for name in [n for n, attempt in self._attempts.items() if subject in attempt.share.hosts]:
                    self._end(name, now, "host lost")
            elif subject in self._attempts and self._attempts[subject].ending_event == number:
                self._end(subject, now, "done" if kind == "done" else "process died")
        self._start(now)

    def _start(self, now: float) -> None:
        room = Room(self._there.values(), [attempt.share for attempt in self._attempts.values()])
        most = None if self._most is None else self._most - len(self._attempts)
        for run, share in admit(self.waiting.values(), room, most=most):
            del self.waiting[run.name]
            deaths = self._deaths.get(run.name)
            dies = deaths.pop(0) if deaths else math.inf
            lasts = self._start_seconds + run.seconds
            event = self.schedule(now + min(dies, lasts), "done" if lasts <= dies else "die", run.name)
            self._attempts[run.name] = _Attempt(run, share, now, event)

    def _end(self, name: str, now: float, ending: Ending) -> None:
        attempt = self._attempts.pop(name)
        self.spans.append(Span(name, attempt.share, attempt.start, now, ending))
        if ending != "done":
            trained = max(0.0, now - attempt.start - self._start_seconds)
            saved = trained - trained % self._checkpoint_seconds
            self.waiting[name] = replace(attempt.run, seconds=attempt.run.seconds - saved)
