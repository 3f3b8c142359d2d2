"""What a run needs of a host, and how long it will probably take, before its dry run has measured it."""

from __future__ import annotations

import contextlib
import math
from dataclasses import replace

from rave_dist.errors import ConfigurationError
from rave_dist.rave.step_config import StepConfig
from rave_dist.records import RunRecord, TrainingSpec
from rave_dist.scheduling.admission import Candidate, Need
from rave_dist.training.preflight.model_facts import ModelFacts, measure_model
from rave_dist.training.schedule import StepTimes

_PROCESS_BYTES = 450 << 20  # Python with torch, RAVE and Ray, on a CPU
_GPU_PROCESS_BYTES = 2 << 30  # and with CUDA's libraries
_COPIES = 3 * 16  # bytes per parameter: the state that a checkpoint writes, the one held ready, and the best weights


def candidate(spec: TrainingSpec, record: RunRecord, *, cpus: int, gpu: bool) -> Candidate:
    """A run as the scheduler sees it; one with an invalid configuration needs little, because it will report that at once.

    Args:
        spec: the run.
        record: its progress.
        cpus: CPU threads, unless the run began with another number, on which its rounding depends.
        gpu: whether it trains on a GPU.
    """
    facts: ModelFacts | None = None
    with contextlib.suppress(ConfigurationError):
        facts = measure_model(spec)
    need = replace(
        _need(spec, facts, cpus=record.threads or cpus, gpu=gpu),
        accelerator=spec.placement.accelerator or "",
        labels=tuple(sorted(spec.placement.labels.items())),
    )
    seconds = _seconds_left(spec, record, facts, cpus=need.cpus)
    return Candidate(spec.instrument, need, seconds, priority=spec.placement.priority)


def _need(spec: TrainingSpec, facts: ModelFacts | None, *, cpus: int, gpu: bool) -> Need:
    if facts is None:
        return Need(cpus, gpu_bytes=1 if gpu else None)
    step_bytes = facts.step_bytes(StepConfig.of(spec).batch)
    own = _COPIES * facts.parameters + (_GPU_PROCESS_BYTES if gpu else _PROCESS_BYTES + step_bytes)
    return Need(cpus, memory=own, gpu_bytes=step_bytes if gpu else None)


def _seconds_left(spec: TrainingSpec, record: RunRecord, facts: ModelFacts | None, *, cpus: int) -> float:
    """The rest of a budget of hours; for steps the time on this machine's cores, whose proportions matter here."""
    if facts is None:
        return 0.0
    budget = spec.budget
    if budget.hours is not None:
        return max(0.0, 3600 * budget.hours - record.seconds)
    if budget.steps is None:
        return math.inf
    times: StepTimes = facts.step_times(StepConfig.of(spec).batch)
    return max(0, budget.steps - record.step) * (2 * times.phase_1 + times.phase_2) / 3 / cpus
