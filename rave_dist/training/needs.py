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
from rave_dist.training.schedule import StepTimes, plan_schedule
from rave_dist.training.speeds import Speeds

_PROCESS_BYTES = 450 << 20  # Python with torch, RAVE and Ray, on a CPU; the audio stays on the disk
_GPU_PROCESS_BYTES = 2 << 30  # and with CUDA's libraries
_COPIES = 3 * 16  # bytes per parameter: the state that a checkpoint writes, the one held ready, and the best weights


def candidate(spec: TrainingSpec, record: RunRecord, speeds: Speeds, *, cpus: int) -> Candidate:
    """A run as the scheduler sees it; one with an invalid configuration needs little, because it will report that at once.

    Args:
        spec: the run.
        record: its progress.
        speeds: of steps on the device that it trains on.
        cpus: CPU threads of a worker, unless the run began with another number, on which its rounding depends.
    """
    facts: ModelFacts | None = None
    with contextlib.suppress(ConfigurationError):
        facts = measure_model(spec)
    threads = record.threads if record.workers == spec.workers else None
    need = replace(
        _need(spec, facts, cpus=threads or cpus, gpu=speeds.card is not None),
        accelerator=spec.placement.accelerator or "",
        labels=tuple(sorted(spec.placement.labels.items())),
        workers=spec.workers,
    )
    seconds = 0.0 if facts is None else _seconds_left(spec, record, speeds.of(spec, cpus=need.cpus)[0])
    return Candidate(spec.instrument, need, seconds, priority=spec.placement.priority)


def _need(spec: TrainingSpec, facts: ModelFacts | None, *, cpus: int, gpu: bool) -> Need:
    if facts is None:
        return Need(cpus, gpu_bytes=1 if gpu else None)
    step_bytes = facts.step_bytes(StepConfig.of(spec).of_one_worker().batch)
    own = _COPIES * facts.parameters + (_GPU_PROCESS_BYTES if gpu else _PROCESS_BYTES + step_bytes)
    whole_card = spec.workers > 1  # NCCL refuses two workers on one card
    return Need(cpus, memory=own, gpu_bytes=(0 if whole_card else step_bytes) if gpu else None)


def _seconds_left(spec: TrainingSpec, record: RunRecord, times: StepTimes) -> float:
    """The time until the budget is used up."""
    budget, done = spec.budget, record.step
    by_time = math.inf if budget.hours is None else max(0.0, 3600 * budget.hours - record.seconds)
    if budget.hours is not None and budget.steps is None:
        return by_time
    schedule = plan_schedule(budget, step_times=times, override=spec.override, done=done, seconds=record.seconds)
    return min(by_time, schedule.seconds(times, done=done))
