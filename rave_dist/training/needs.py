"""What a run needs of a host, and how long it will probably take.

The memory is what a dry run of the same step used on the same kind of device, or a run since; before the first one it is
estimated from the measured facts of the model.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

from rave_dist.errors import ConfigurationError
from rave_dist.rave.step_config import StepConfig
from rave_dist.records import DryRunResult, RunRecord, TrainingSpec
from rave_dist.scheduling.admission import MOST_CPUS_PER_RUN, Candidate, Host, Need, cpus_per_run, narrowed
from rave_dist.storage.store import Store
from rave_dist.training.preflight.dry_run_results import find_results
from rave_dist.training.preflight.model_facts import ModelFacts, measure_model
from rave_dist.training.schedule import StepTimes, plan_schedule
from rave_dist.training.speeds import Speeds

_PROCESS_BYTES = 450 << 20  # Python with torch, RAVE and Ray, on a CPU; the audio stays on the disk
_GPU_PROCESS_BYTES = 2 << 30  # and with CUDA's libraries
_GROWTH = 1.1  # of the process beyond its dry run: metrics, fragmentation
_COPIES = 3 * 16  # bytes per parameter: the state that a checkpoint writes, the one held ready, and the best weights


class Needs:
    """The runs of a library as the scheduler sees them.

    Args:
        store: of the results of dry runs.
        specs: the runs.
        hosts: the cluster.
        speeds: of steps on the device that the runs train on.

    Attributes:
        cpus: CPU threads of each worker; on a GPU what the dry run used replaces them.

    Raises:
        StoreError: the store cannot be read.
    """

    def __init__(self, store: Store, specs: Sequence[TrainingSpec], hosts: Sequence[Host], speeds: Speeds) -> None:
        self._store, self._hosts, self._speeds = store, hosts, speeds
        self._gpu = speeds.card is not None
        self._dry_runs: dict[str, DryRunResult] = {}
        self.cpus = 1 if self._gpu else cpus_per_run(hosts, sum(spec.workers for spec in specs))
        self.read_dry_runs(specs)

    def read_dry_runs(self, specs: Iterable[TrainingSpec]) -> None:
        """Reads the results of dry runs of these runs from the store, which may have new ones.

        Raises:
            StoreError: the store cannot be read.
        """
        self._dry_runs |= find_results(self._store, specs, self._speeds.card)

    def dry_run(self, spec: TrainingSpec) -> DryRunResult | None:
        """The result of a dry run of a run's step on this kind of device."""
        return self._dry_runs.get(spec.worker_step_id)

    def candidate(self, spec: TrainingSpec, record: RunRecord) -> Candidate:
        """A run; one with an invalid configuration needs little, because it will report that at once.

        It keeps the CPU threads that it began with, on which its rounding depends, on fewer CPUs where no host has as many.

        Args:
            spec: the run.
            record: its progress.
        """
        facts: ModelFacts | None = None
        with contextlib.suppress(ConfigurationError):
            facts = measure_model(spec)
        cpus, tested = self.cpus, self.dry_run(spec)
        if self._gpu and tested is not None:
            cpus = max(1, min(MOST_CPUS_PER_RUN, round(tested.cpus)))
        need = replace(
            _need(spec, facts, tested, cpus=record.threads_with(spec.workers) or cpus, gpu=self._gpu),
            accelerator=spec.placement.accelerator or "",
            labels=tuple(sorted(spec.placement.labels.items())),
            workers=spec.workers,
        )
        need = narrowed(self._hosts, need)
        seconds = 0.0 if facts is None else _seconds_left(spec, record, self._speeds.of(spec, cpus=need.cpus)[0])
        return Candidate(spec.instrument, need, seconds, priority=spec.placement.priority)


def step_bytes(facts: ModelFacts, tested: DryRunResult | None, batch: int) -> int:
    """Memory of a training step on its device: what a dry run of this batch used, otherwise estimated from the facts."""
    return facts.step_bytes(batch) if tested is None else tested.device_bytes


def _need(spec: TrainingSpec, facts: ModelFacts | None, tested: DryRunResult | None, *, cpus: int, gpu: bool) -> Need:
    if facts is None:
        return Need(cpus, gpu_bytes=1 if gpu else None)
    on_device = step_bytes(facts, tested, StepConfig.of(spec).of_one_worker().batch)
    if tested is None:
        own = _COPIES * facts.parameters + (_GPU_PROCESS_BYTES if gpu else _PROCESS_BYTES + on_device)
    else:
        own = round(_GROWTH * tested.host_bytes)
    whole_card = spec.workers > 1  # NCCL refuses two workers on one card
    return Need(cpus, memory=own, gpu_bytes=(0 if whole_card else on_device) if gpu else None)


def _seconds_left(spec: TrainingSpec, record: RunRecord, times: StepTimes) -> float:
    """The time until the budget is used up."""
    budget, done = spec.budget, record.step
    by_time = math.inf if budget.hours is None else max(0.0, 3600 * budget.hours - record.seconds)
    if budget.hours is not None and budget.steps is None:
        return by_time
    schedule = plan_schedule(budget, step_times=times, override=spec.override, done=done, seconds=record.seconds)
    return min(by_time, schedule.seconds(times, done=done))
