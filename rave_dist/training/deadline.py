"""Runs within a deadline: their budgets get limits in time, so that the last one ends before it.

All runs get the same share of the time that they would need, more than that if there is more: a run ends by its steps or by
its time, whichever is first, so that the deadline holds even if steps take longer than expected.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from rave_dist.errors import ConfigurationError
from rave_dist.options import Budget
from rave_dist.records import RunRecord, TrainingSpec
from rave_dist.scheduling.admission import Candidate, Host, has_room
from rave_dist.scheduling.simulation import START_SECONDS, simulate
from rave_dist.storage.parallel import at_once
from rave_dist.storage.store import Store
from rave_dist.time_left import duration
from rave_dist.training.continuation import plan_continuation
from rave_dist.training.heartbeat import read_records
from rave_dist.training.needs import Needs
from rave_dist.training.speeds import Speeds, slowest_card

END_SECONDS = 120.0
"""What a run takes after its last step: its last checkpoint, exports, measurements."""

_LEAST_SECONDS = 10.0  # of training of the longest run; with less it is not worth to start
_SHARES = (1e-9, 1e6)
_HALVINGS = 25


@dataclass(frozen=True)
class Limited:
    """The runs with their budgets, and the share of the time that they would need which they get; above 1 there is more."""

    specs: list[TrainingSpec]
    share: float


def limit_budgets(
    store: Store, specs: Sequence[TrainingSpec], hosts: Sequence[Host], *, seconds: float, most: int | None = None
) -> Limited:
    """Limits the budgets of runs so that all end in time on the hosts that are there.

    Args:
        store: of the runs; those that are complete there are left as they are.
        specs: the runs, with the budgets of their manifest.
        hosts: the cluster.
        seconds: until the deadline.
        most: how many train at the same time; None for as many as fit.

    Raises:
        ConfigurationError: starting and publishing the runs takes longer than that.
        StoreError: the store cannot be read.
    """
    progress = at_once(lambda spec: _progress(store, spec), specs)
    speeds = Speeds(store, specs[0].library, [spec.instrument for spec in specs], slowest_card(hosts))
    needs = Needs(store, specs, hosts, speeds)
    runs: dict[str, Candidate] = {}
    for spec, record in zip(specs, progress, strict=True):
        candidate = needs.candidate(spec, record)
        if record.state != "done" and candidate.seconds and has_room(hosts, candidate.need):
            runs[spec.instrument] = candidate
    hours = {spec.instrument for spec in specs if spec.budget.hours is not None}

    def allotted(share: float) -> dict[str, float]:
        return {name: run.seconds * (min(1.0, share) if name in hours else share) for name, run in runs.items()}

    def end(share: float) -> float:
        given = allotted(share)
        candidates = [replace(run, seconds=given[name]) for name, run in runs.items()]
        spans = simulate(candidates, hosts, start_seconds=START_SECONDS + END_SECONDS, most=most)
        return max((span.end for span in spans), default=0.0)

    share = _largest(lambda share: end(share) <= seconds)
    given = {} if share is None else allotted(share)
    if share is None or (runs and max(given.values()) < _LEAST_SECONDS):
        raise ConfigurationError(
            f"the deadline is in {duration(seconds)}, and starting and publishing the runs takes about {duration(end(0.0))}",
            where="--deadline",
            fix="give more time, train fewer instruments (--only), or use more hosts",
        )
    limited = [
        spec.model_copy(update={"budget": _limited(spec.budget, record.seconds + given[spec.instrument])})
        if spec.instrument in given
        else spec
        for spec, record in zip(specs, progress, strict=True)
    ]
    return Limited(limited, share)


def _progress(store: Store, spec: TrainingSpec) -> RunRecord:
    """How far the run of a manifest is, or the one that it continues."""
    planned = plan_continuation(store, spec)
    record = RunRecord(library=spec.library, instrument=spec.instrument, run_id=planned.spec.run_id, dataset=spec.dataset)
    if planned.last is None:
        return record
    (current,) = read_records(store, spec.library, [spec.instrument])
    last, result = planned.last, planned.last.result
    seconds = current.seconds if current.run_id == last.spec.run_id else result.seconds if result else 0.0
    complete = last.is_complete and planned.earlier is None
    fields = {"step": last.step, "seconds": seconds, "threads": current.threads, "state": "done" if complete else "waiting"}
    return record.model_copy(update=fields)


def _limited(budget: Budget, seconds: float) -> Budget:
    hours = seconds / 3600 if budget.hours is None else min(budget.hours, seconds / 3600)
    return budget.model_copy(update={"hours": round(hours, 4)})


def _largest(holds: Callable[[float], bool]) -> float | None:
    """The largest share for which a condition holds, by bisection; None if it does not hold for the least one."""
    least, most = _SHARES
    if not holds(least):
        return None
    for _ in range(_HALVINGS):
        middle = math.sqrt(least * most)
        least, most = (middle, most) if holds(middle) else (least, middle)
    return least
