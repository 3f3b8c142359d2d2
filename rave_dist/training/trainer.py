"""One run, from its first step to its outputs; independent of Ray.

It writes the files of `rave_dist.records.RunFolder`: spec and configuration at once; checkpoints, events and metrics during
training; weights and finally the result at its end.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from rave_dist.errors import InsufficientMemoryError, TrainingError
from rave_dist.rave.presets import smaller_batch
from rave_dist.rave.step_config import StepConfig
from rave_dist.records import Rollback, TrainingSpec
from rave_dist.storage.store import Store
from rave_dist.temporary import temporary_folder
from rave_dist.training.assembly import assemble
from rave_dist.training.data.loader import PcmSegment
from rave_dist.training.evaluation.metrics_log import MetricsLog
from rave_dist.training.evaluation.non_finite import NonFiniteMonitor, NotFinite, explain
from rave_dist.training.evaluation.validation import excerpt, validate
from rave_dist.training.heartbeat import Speed
from rave_dist.training.planner import Planner
from rave_dist.training.state.async_checkpoint import AsyncCheckpointer, on_host
from rave_dist.training.state.checkpoint import remove_old_checkpoints
from rave_dist.training.state.disk import run_bytes
from rave_dist.training.state.outputs import write_outputs
from rave_dist.training.state.run_state import RunState
from rave_dist.training.step.memory import device_name, is_out_of_memory
from rave_dist.training.worker_group import WorkerGroup

logger = logging.getLogger(__name__)

LOG_EVERY = 50
"""Steps between two reads of the losses on long runs, as in stock RAVE: each read waits for the device."""

LONG_STEP_SECONDS = 3.0
"""Duration of a step above which the state is kept ready, so that a run can be stopped during the next step."""

OnProgress = Callable[[RunState, float | None], None]


@dataclass(frozen=True)
class Outcome:
    """The end of a run: ``finished`` if its budget is used up, otherwise it was stopped and can be resumed."""

    finished: bool
    step: int
    phase: int


def train(
    store: Store,
    spec: TrainingSpec,
    train_segments: Sequence[PcmSegment],
    validation_segments: Sequence[PcmSegment],
    *,
    device: torch.device | str = "cpu",
    accumulation_steps: int = 1,
    on_progress: OnProgress = lambda state, speed: None,
    stop: Callable[[], bool] = lambda: False,
    group: WorkerGroup | None = None,
) -> Outcome:
    """Trains one instrument until its budget is used up or it is asked to stop; resumes from its last checkpoint.

    Args:
        store: where the run is stored, in ``spec.folder``.
        spec: what to train.
        train_segments: PCM of the training audio.
        validation_segments: PCM of the held-out audio.
        device: ``cpu`` or ``cuda``.
        accumulation_steps: equal parts of the batch whose gradients are added up in a step; a resumed run keeps its own
            number unless this is larger.
        on_progress: called after every step and validation with the state and the steps per second.
        stop: called before every step, and by a thread during long ones; if it returns True, the run saves its state and
            ends.
        group: the workers of a run with several, whose first one this is; it tells the others what to compute.

    Raises:
        NotFiniteError: a loss, a weight or a held-out distance is NaN or infinite, and ``spec.recover`` does not allow another
            rollback. The checkpoints are from before.
        InsufficientMemoryError: the memory does not suffice.
        TrainingError: all checkpoints are damaged.
        ConfigurationError: the configuration or the window is invalid.
        DatasetError: too little audio.
        StoreError: the store cannot be used.
    """
    device, rollbacks = torch.device(device), list[Rollback]()
    try:
        while True:
            with temporary_folder("run") as folder:
                run = _Run(
                    store,
                    spec,
                    train_segments,
                    validation_segments,
                    device=device,
                    accumulation_steps=accumulation_steps,
                    folder=Path(folder),
                    rollbacks=rollbacks,
                    group=group,
                )
                outcome = run.train(on_progress, stop)
            if outcome is not None:
                return outcome
            rollbacks = run.state.rollbacks
            del run  # frees its memory before the next one needs it
    except (MemoryError, RuntimeError) as error:
        too_large = step_too_large(error, spec, device, accumulation_steps)
        if too_large is None:
            raise
        raise too_large from error


def step_too_large(
    error: Exception, spec: TrainingSpec, device: torch.device, accumulation_steps: int
) -> InsufficientMemoryError | None:
    """The error for users if a step has failed because the memory does not suffice; None if it failed otherwise."""
    if isinstance(error, TrainingError) or not is_out_of_memory(error):
        return None
    again = "run the same command again, which measures again, or " if spec.batch == "auto" else ""
    return InsufficientMemoryError(
        f"a training step does not fit the memory of {device_name(device)}",
        where=spec.instrument,
        fix=again + smaller_batch(spec, StepConfig.of(spec).batch // accumulation_steps // 2),
    )


class _Run:
    def __init__(
        self,
        store: Store,
        spec: TrainingSpec,
        train_segments: Sequence[PcmSegment],
        validation_segments: Sequence[PcmSegment],
        *,
        device: torch.device,
        accumulation_steps: int,
        folder: Path,
        rollbacks: Sequence[Rollback],
        group: WorkerGroup | None,
    ) -> None:
        self.store, self.spec, self.device, self.group = store, spec, device, group
        self.train_segments, self.validation_segments = train_segments, validation_segments
        spec.save(store, spec.folder.spec)
        store.write_bytes(spec.folder.config, StepConfig.of(spec).config_text.encode())
        self.parts = assemble(
            store, spec, train_segments, device=device, accumulation_steps=accumulation_steps, rollbacks=rollbacks, group=group
        )
        if group is not None:
            group.send("begin", self.parts.to_shared(device))
        if self.parts.resumed:  # its last process may have died after it wrote a checkpoint and before it removed old ones
            remove_old_checkpoints(store, spec.folder.checkpoints, self.parts.state.step, keep=spec.checkpoint.keep)
        else:
            parameters = sum(parameter.numel() for parameter in self.parts.model.parameters())
            store.check_writable(needed_bytes=run_bytes(parameters, keep=spec.checkpoint.keep))
        self.state, self.window = self.parts.state, self.parts.config.window
        self.planner = Planner(spec, self.state, self._reschedule)
        self.metrics_log = MetricsLog(store, spec.folder, folder, state=self.parts.metrics, step=self.state.step)
        self.training_excerpt = excerpt(train_segments, like=validation_segments, window=self.window)
        self.monitor = NonFiniteMonitor(self.parts.model.parameters(), device)
        self.checkpointer = AsyncCheckpointer(store, spec.folder.checkpoints, keep=spec.checkpoint.keep)
        self.saved_step = self.state.step if self.parts.resumed else -1
        self.saved_at = time.monotonic()

    def train(self, on_progress: OnProgress, stop: Callable[[], bool]) -> Outcome | None:
        """Trains until the budget is used up or the run is asked to stop; None after a NaN or infinite value, to resume."""
        try:
            return self._train(on_progress, stop)
        except NotFinite as error:
            failure = explain(error, self.store, self.spec, self.train_segments)
            recover, rollbacks = self.spec.recover, self.state.rollbacks
            if recover is None or len(rollbacks) >= recover.times:
                raise failure from error
            logger.warning("%s; resuming from the last checkpoint with the learning rate times %g", failure.what, recover.rate)
            rollbacks.append(Rollback(step=error.step, what=failure.what, rate=recover.rate))
            return None

    def _train(self, on_progress: OnProgress, stop: Callable[[], bool]) -> Outcome:
        state = self.state
        speed = Speed()
        with self.metrics_log, self.checkpointer:
            if self.spec.continues is not None and not self.parts.resumed:
                self._save()  # from now on the run needs the earlier one no more
            self._validate_if_due()
            on_progress(state, None)
            while not self.planner.budget_used_up():
                if stop():
                    self._save()
                    self.checkpointer.wait()  # first, because the caller may not wait for long
                    self._finish(complete=False)
                    return Outcome(False, state.step, state.phase)
                began = time.monotonic()
                self._step()
                if self._validation_due() or time.monotonic() - began > LONG_STEP_SECONDS:
                    self.monitor.raise_if_bad()
                    self.checkpointer.hold(state.step, self._saved(), stop)
                self._validate_if_due()
                state.seconds += time.monotonic() - began
                if self.planner.follow_speed() and state.validated_step != state.step:
                    self._validate()
                on_progress(state, speed.update(state.step))
                self.checkpointer.check()
                if self._checkpoint_due():
                    self._save()
            state.schedule = replace(state.schedule, steps=state.step)
            self._save()
            self.checkpointer.wait()
            self._finish(complete=True)
            on_progress(state, None)
        return Outcome(True, state.step, state.phase)

    def _step(self) -> None:
        state, schedule, windows = self.state, self.state.schedule, self.parts.windows
        if self.group is not None:
            self.group.send("step", state.step)
            self.group.is_in_step = True
        losses = self.parts.training_step(windows.next_batch(), state.step)
        if self.group is not None:
            self.group.is_in_step = False
        self.monitor.record(state.step, losses, windows.places)
        state.step += 1
        every = min(LOG_EVERY, max(1, schedule.steps // 500))
        if state.step % every == 0 or self._validation_due() or self._checkpoint_due():
            values = self.monitor.drain()
            state.train_distance = values.get("fullband_spectral_distance", state.train_distance)
            self.metrics_log.train(state.step, state.phase, values, steps=schedule.steps)

    def _reschedule(self, **lengths: int) -> None:
        self.parts.training_step.reschedule(**lengths)
        if self.group is not None:
            self.group.send("reschedule", lengths)

    def _validation_due(self) -> bool:
        step, schedule = self.state.step, self.state.schedule
        return step % schedule.validate_every == 0 or step in (schedule.phase_1_steps, schedule.steps)

    def _validate_if_due(self) -> None:
        """Whether a validation is due; also for a run that is resumed from just before one."""
        state = self.state
        if state.validated_step != state.step and (state.first is None or self._validation_due()):
            self._validate()
            self.planner.apply_early_stopping()

    def _validate(self, *, logged: bool = True) -> None:
        model, state = self.parts.model, self.state
        values = validate(model, self.validation_segments, window=self.window, device=self.device)
        if not math.isfinite(values["validation"]):
            raise NotFinite("the held-out distance", state.step)
        of_training = validate(model, self.training_excerpt, window=self.window, device=self.device)
        values["validation/training"] = of_training["validation"]
        until = self.spec.budget.until
        if state.record_validation(values["validation"], improvement=until.improvement if until else 0.0):
            self.parts.best[state.phase] = on_host(model.state_dict())
        if logged:
            self.metrics_log.validation(state.step, state.phase, values)
            self._sync()

    def _checkpoint_due(self) -> bool:
        policy = self.spec.checkpoint
        if policy.steps is not None:
            return self.state.step % policy.steps == 0
        return policy.every_seconds is not None and time.monotonic() - self.saved_at >= policy.every_seconds

    def _save(self) -> None:
        """Starts to write a checkpoint, unless this step has one."""
        if self.saved_step == self.state.step:
            return
        self.monitor.raise_if_bad()
        self.checkpointer.wait()  # so that at most one other copy is in memory
        self.checkpointer.save(self.state.step, self._saved())
        self._sync(always=True)
        self.saved_step, self.saved_at = self.state.step, time.monotonic()

    def _saved(self) -> dict[str, Any]:
        return self.parts.to_saved(self.device, self.metrics_log.state_dict())

    def _sync(self, *, always: bool = False) -> None:
        schedule = self.state.schedule
        self.metrics_log.sync(steps=schedule.steps, phase_1_steps=schedule.phase_1_steps, window=self.window, always=always)

    def _finish(self, *, complete: bool) -> None:
        """Writes the outputs of the run, which this object cannot continue afterwards.

        These are the best weights of the phase, and in phase 2 also those of phase 1. The last step of a stopped run is
        validated too, because it may be the best, or the first of phase 2. The checkpoint was written before, so that a resumed
        run computes the same as an uninterrupted one.
        """
        if self.state.validated_step != self.state.step:
            self._validate(logged=complete)
        self._sync(always=True)
        write_outputs(
            self.store, self.spec, self.parts.model, self.state, self.parts.best, self.train_segments, complete=complete
        )
