"""The runs of a library as Ray metrics, which Prometheus collects; `deploy/grafana.json` shows them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, get_args

from ray.util.metrics import Gauge

from rave_dist.records import RunRecord
from rave_dist.records.training import RunStatus

_OF_RUN: Final[dict[str, tuple[str, Callable[[RunRecord], float | None]]]] = {
    "rave_dist_step": ("optimizer steps done", lambda record: record.step),
    "rave_dist_steps": ("optimizer steps of the schedule", lambda record: record.steps or None),
    "rave_dist_phase": ("phase of the training, 1 or 2", lambda record: record.phase),
    "rave_dist_held_out_distance": ("spectral distance of the held-out audio", lambda record: record.validation.last),
    "rave_dist_steps_per_second": ("speed; 0 while it does not train", lambda record: record.steps_per_second or 0.0),
    "rave_dist_training_seconds": ("training time", lambda record: record.seconds),
    "rave_dist_retries": ("restarts by the last command", lambda record: record.retries),
}
_STATE = "rave_dist_state"

NAMES: Final = tuple(f"ray_{name}" for name in (*_OF_RUN, _STATE))
"""As Prometheus gets them from Ray."""


class Gauges:
    """Metrics with the labels ``library`` and ``instrument``; `_STATE` is 1 for the present ``state``, else 0."""

    def __init__(self) -> None:
        labels = ("library", "instrument")
        self._of_run = {name: Gauge(name, description=text, tag_keys=labels) for name, (text, _) in _OF_RUN.items()}
        self._state = Gauge(_STATE, description="1 for the present state", tag_keys=(*labels, "state"))

    def set(self, records: Sequence[RunRecord]) -> None:
        """Sets the values of runs."""
        for record in records:
            labels = {"library": record.library, "instrument": record.instrument}
            for name, (_, read) in _OF_RUN.items():
                value = read(record)
                if value is not None:
                    self._of_run[name].set(value, tags=labels)
            for state in get_args(RunStatus):
                self._state.set(float(record.state == state), tags={**labels, "state": state})
