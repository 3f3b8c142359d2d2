"""Progress, remaining and spent time of training runs; None where they are unknown.

Only training time is included, not exports and measurements, which take some minutes per instrument. A step of phase 2 takes
longer than one of phase 1, so that the rate of phase 1 gives a lower limit; with early stopping the budget is an upper limit.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from rave_dist.records import RunRecord

Bound = Literal["about", "at least", "at most"]


@dataclass(frozen=True)
class TimeLeft:
    """Remaining seconds of training, and the direction of their error."""

    seconds: float
    bound: Bound = "about"

    def __str__(self) -> str:
        return f"{self.bound} {duration(self.seconds)} left"

    def end(self, now: datetime) -> datetime:
        """The expected end."""
        return now + timedelta(seconds=self.seconds)

    def to_json(self, now: datetime) -> dict[str, Any]:
        """Seconds, bound and expected end as JSON values."""
        return {"seconds": round(self.seconds), "bound": self.bound, "end": self.end(now).isoformat(timespec="seconds")}


def duration(seconds: float) -> str:
    """Seconds to the precision of an estimate: ``40 s``, ``15 min``, ``3 h 20 min``, ``52 h``."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    if minutes < 48 * 60:
        hours, minutes = divmod(10 * round(minutes / 10), 60)
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{round(minutes / 60)} h"


def used(record: RunRecord) -> float | None:
    """The share of a run's budget that it has used, 0 to 1."""
    budget = record.budget
    of_steps = record.step / record.steps if record.steps else None
    if budget is None or budget.hours is None:
        return None if of_steps is None else min(1.0, of_steps)
    of_time = record.seconds / (3600 * budget.hours)
    return min(1.0, of_time if budget.steps is None else max(of_time, record.step / budget.steps))


def spent(records: Sequence[RunRecord], price: float | None = None) -> dict[str, float]:
    """What the training took: hours of GPUs, and of CPU cores without one, by the shares of the last attempts.

    With the price of a GPU for an hour, also the cost of the GPUs.
    """
    on_gpus = sum(record.workers * record.gpu_share * record.seconds for record in records)
    on_cores = sum(record.workers * (record.threads or 1) * record.seconds for record in records if not record.gpu_share)
    cost = {} if price is None else {"cost": round(price * on_gpus / 3600, 2)}
    return {"gpu_hours": round(on_gpus / 3600, 3), "core_hours": round(on_cores / 3600, 3), **cost}


def time_left(record: RunRecord, *, steps_per_second: float | None = None) -> TimeLeft | None:
    """The training time of a run until its budget is used up.

    Args:
        record: of the run.
        steps_per_second: rate to assume if the run has none yet.
    """
    budget = record.budget
    early_stopping = budget is not None and budget.until is not None
    if budget is not None and budget.hours is not None:
        left = max(0.0, 3600 * budget.hours - record.seconds)
        return TimeLeft(left, "at most" if early_stopping or budget.steps is not None else "about")
    pace = record.steps_per_second or steps_per_second
    if not pace or not record.steps:
        return None
    left = max(0, record.steps - record.step) / pace
    if record.phase == 1:
        return None if early_stopping else TimeLeft(left, "at least")
    return TimeLeft(left, "at most" if early_stopping else "about")


def library_time_left(records: Sequence[RunRecord]) -> TimeLeft | None:
    """The training time of all runs of a library, if waiting runs start when others end.

    Args:
        records: of all instruments, in the order in which they are admitted.
    """
    training = [
        r for r in records if r.state == "running" and r.activity in ("starting", "copying audio", "dry run", "training")
    ]
    starting = [r for r in records if r.state == "waiting" and r.activity == "starting"]
    waiting = [r for r in records if r.state == "waiting" and r.activity == "waiting"]
    paces = [r.steps_per_second for r in training if r.steps_per_second]
    pace = sum(paces) / len(paces) if paces else None
    estimates = [time_left(r, steps_per_second=pace) for r in (*training, *starting, *waiting)]
    known = [estimate for estimate in estimates if estimate is not None]
    bounds = {estimate.bound for estimate in known} - {"about"}
    if not training or len(known) < len(estimates) or len(bounds) > 1:
        return None
    places = len(training) + len(starting)
    ends = [estimate.seconds for estimate in known[:places]]
    heapq.heapify(ends)
    for estimate in known[places:]:
        heapq.heappush(ends, heapq.heappop(ends) + estimate.seconds)
    return TimeLeft(max(ends), next(iter(bounds), "about"))
