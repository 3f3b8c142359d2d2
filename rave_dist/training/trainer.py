"""One run, from its first step to the files that a model is published from. No Ray.

What it writes is named in `rave_dist.records.RunFolder`: spec and configuration at once; checkpoints, events and metrics during
training; weights and last the result at its end.
"""

from __future__ import annotations

import logging
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from rave_dist.errors import TrainingError
from rave_dist.rave.config import configure
from rave_dist.rave.models import build_model
from rave_dist.rave.presets import smaller_batch, window_and_batch
from rave_dist.rave.window import check_window
from rave_dist.records import Rollback, TrainingSpec
from rave_dist.storage.store import Store
from rave_dist.training.data.loader import PcmSegment, Windows
from rave_dist.training.evaluation.metrics_log import MetricsLog
from rave_dist.training.evaluation.non_finite import NonFiniteMonitor, NotFinite, explain
from rave_dist.training.evaluation.receptive_field import set_receptive_field
from rave_dist.training.evaluation.validation import excerpt, validate
from rave_dist.training.heartbeat import Speed
from rave_dist.training.preflight.step_time import measure_step_times
from rave_dist.training.preflight.throwaway_run import ThrowawayRun
from rave_dist.training.schedule import Schedule, continue_schedule, end_phase_1, first_schedule, plan_schedule
from rave_dist.training.state import checkpoint
from rave_dist.training.state.async_checkpoint import AsyncCheckpointer, on_host
from rave_dist.training.state.initialization import InitialWeights, load_initial_weights
from rave_dist.training.state.outputs import write_outputs
from rave_dist.training.state.run_state import RunState
from rave_dist.training.step.memory import device_name, is_out_of_memory
from rave_dist.training.step.training_step import TrainingStep

logger = logging.getLogger(__name__)

LOG_EVERY = 50
"""Steps between two looks at the losses on long runs, as in stock RAVE: each look waits for the device."""

LONG_STEP_SECONDS = 3.0
"""Whoever asks for an end may not wait for long: what a longer step begins from is held ready, to be saved while it is done."""

_REPLANS = 50


@dataclass(frozen=True)
class Outcome:
    """How a run ended: ``finished`` when its budget is spent, otherwise it was asked to stop and can go on."""

    finished: bool
    step: int
    phase: int


Tell = Callable[[RunState, float | None], None]


def train(
    store: Store,
    spec: TrainingSpec,
    train_segments: Sequence[PcmSegment],
    validation_segments: Sequence[PcmSegment],
    *,
    device: torch.device | str = "cpu",
    accumulation_steps: int = 1,
    tell: Tell = lambda state, speed: None,
    stop: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Trains one instrument until its budget is spent or it is asked to stop; goes on from its last checkpoint.

    Args:
        store: where the run lies, at ``spec.run_key``.
        spec: what to train.
        train_segments: PCM to train on.
        validation_segments: PCM held out.
        device: where to compute.
        accumulation_steps: equal parts of the batch whose gradients are added up in a step; a resumed run keeps its own
            number unless this is larger.
        tell: called after every step and validation with the state and the steps per second.
        stop: asked before every step, and by a thread during long ones; when true, the run saves itself and returns.

    Raises:
        NotFiniteError: a loss, a weight or a held-out distance is not finite, and ``spec.recover`` does not say to go on, or
            not any more. The checkpoints are of before.
        TrainingError: the memory does not suffice, or all checkpoints are damaged.
        ConfigurationError: the configuration does not make a model, or the window is too short for it.
        DatasetError: too little audio.
        StoreError: the store cannot be used.
    """
    device, rollbacks = torch.device(device), list[Rollback]()
    try:
        while True:
            with tempfile.TemporaryDirectory(prefix="rave-dist-run-") as folder:
                run = _Run(
                    store, spec, train_segments, validation_segments, device, accumulation_steps, Path(folder), rollbacks
                )
                outcome = run.go(tell, stop)
            if outcome is not None:
                return outcome
            rollbacks = run.state.rollbacks
            del run  # its memory, before the next one takes as much
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, TrainingError) or not is_out_of_memory(error):
            raise
        again = "run the same command again, which tries anew what fits, or " if spec.batch == "auto" else ""
        raise TrainingError(
            f"a training step does not fit the memory of {device_name(device)}",
            where=spec.instrument,
            fix=again + smaller_batch(spec, window_and_batch(spec)[1] // accumulation_steps // 2),
        ) from error


class _Run:
    def __init__(
        self,
        store: Store,
        spec: TrainingSpec,
        train_segments: Sequence[PcmSegment],
        validation_segments: Sequence[PcmSegment],
        device: torch.device,
        accumulation_steps: int,
        folder: Path,
        rollbacks: Sequence[Rollback],
    ) -> None:
        self.store, self.spec, self.device = store, spec, device
        self.train_segments, self.validation_segments = train_segments, validation_segments
        self.window, batch = window_and_batch(spec)
        config_text = configure(spec.config, spec.override, sample_rate=spec.sample_rate, channels=spec.channels)
        spec.save(store, spec.folder.spec)
        store.write_bytes(spec.folder.config, config_text.encode())
        loaded = checkpoint.load_checkpoint(store, self.checkpoints)
        start = load_initial_weights(store, spec.base) if loaded is None and spec.base is not None else None
        if loaded is None:
            self.state = self._first_state(config_text, batch, accumulation_steps, start)
        else:
            self.state = RunState.from_saved(loaded[1]["state"])
            self._take_accumulation_steps(accumulation_steps, batch)

        checkpoint.seed_everything(spec.seed)
        self.model = build_model(config_text, channels=spec.channels).to(device)
        self.best = loaded[1]["bests"] if loaded is not None else {}
        if loaded is None:
            set_receptive_field(self.model)
            check_window(self.model, self.window)
            if start is not None:
                start.put_into(self.model)
        else:
            checkpoint.load_weights(self.model, loaded[1]["model"], where=store.address(self.checkpoints))
        self.windows = Windows(
            train_segments,
            window=self.window,
            batch=batch,
            seed=spec.seed,
            device=device,
            sample_rate=spec.sample_rate,
            augment=spec.augment,
        )
        schedule = self.state.schedule
        self.training_step = TrainingStep(
            self.model,
            phase_1_steps=schedule.phase_1_steps,
            warmup_steps=schedule.warmup_steps,
            device=device,
            compute=spec.compute,
            accumulation_steps=self.state.accumulation_steps,
        )
        if start is not None:
            start.restore(self.training_step)
        logged = None
        if loaded is not None:
            saved = loaded[1]
            self.training_step.load_state_dict(saved["training"])
            self.windows.load_state_dict(saved["windows"])
            checkpoint.restore_random_states(saved["random"], device)
            logged = saved["metrics_log"]
        for rollback in rollbacks[len(self.state.rollbacks) :]:  # since this checkpoint
            self.training_step.scale_learning_rate(rollback.rate)
            self.state.rollbacks.append(rollback)
        self.metrics_log = MetricsLog(store, spec.folder, folder, state=logged, step=self.state.step)
        self.heard = excerpt(train_segments, like=validation_segments, window=self.window)
        self.monitor = NonFiniteMonitor(self.model.parameters(), device)
        self.checkpointer = AsyncCheckpointer(store, self.checkpoints, keep=spec.checkpoint.keep)
        self.saved_step = self.state.step if loaded is not None else -1
        self.saved_at = time.monotonic()
        self.planned = (self.state.step, self.state.seconds)

    @property
    def checkpoints(self) -> str:
        return self.spec.folder.checkpoints

    def _take_accumulation_steps(self, accumulation_steps: int, batch: int) -> None:
        """A run that goes on computes as it did, or in smaller parts where there is less memory now."""
        if accumulation_steps > self.state.accumulation_steps:
            logger.warning(
                "%s: there is less memory now: from step %d on a step of %d windows is computed in %d parts instead of %d",
                *(self.spec.instrument, self.state.step, batch, accumulation_steps, self.state.accumulation_steps),
            )
            self.state.accumulation_steps = accumulation_steps

    def _first_state(self, config_text: str, batch: int, accumulation_steps: int, start: InitialWeights | None) -> RunState:
        """Budgets in hours begin with real steps of both phases, which say how many of them there will be."""
        spec, step_times = self.spec, None
        if spec.budget.hours is not None:
            trial = ThrowawayRun(
                config_text,
                channels=spec.channels,
                window=self.window,
                batch=batch,
                device=self.device,
                compute=spec.compute,
                accumulation_steps=accumulation_steps,
            )
            step_times = measure_step_times(trial)
            del trial  # its memory, before the run takes as much
        resume_point = None if start is None else start.resume_point
        schedule = first_schedule(spec.budget, step_times=step_times, override=spec.override, resume_point=resume_point)
        step = 0 if resume_point is None else resume_point.step
        return RunState(schedule, step=step, step_times=step_times, accumulation_steps=accumulation_steps)

    def go(self, tell: Tell, stop: Callable[[], bool]) -> Outcome | None:
        """None where it is to be resumed from its last checkpoint after a NaN or infinite value."""
        try:
            return self._go(tell, stop)
        except NotFinite as error:
            failure = explain(error, self.store, self.spec, self.train_segments)
            recover, rollbacks = self.spec.recover, self.state.rollbacks
            if recover is None or len(rollbacks) >= recover.times:
                raise failure from error
            logger.warning("%s; it goes on from its last checkpoint at %g of the learning rate", failure.what, recover.rate)
            rollbacks.append(Rollback(step=error.step, what=failure.what, rate=recover.rate))
            return None

    def _go(self, tell: Tell, stop: Callable[[], bool]) -> Outcome:
        state = self.state
        speed = Speed()
        with self.metrics_log, self.checkpointer:
            self._validate_if_due()
            tell(state, None)
            while not self._spent():
                if stop():
                    self._save()
                    self.checkpointer.wait()  # before anything else: whoever asks may not wait for long
                    self._finish(complete=False)
                    return Outcome(False, state.step, state.phase)
                began = time.monotonic()
                self._step()
                if self._validation_due() or time.monotonic() - began > LONG_STEP_SECONDS:
                    self.monitor.raise_if_bad()
                    self.checkpointer.hold(state.step, self._saved(), stop)
                self._validate_if_due()
                state.seconds += time.monotonic() - began
                self._replan()
                tell(state, speed.tell(state.step))
                self.checkpointer.check()
                if self._checkpoint_due():
                    self._save()
            state.schedule = replace(state.schedule, steps=state.step)
            self._save()
            self.checkpointer.wait()
            self._finish(complete=True)
            tell(state, None)
        return Outcome(True, state.step, state.phase)

    def _spent(self) -> bool:
        """Hours end by the clock, but never before phase 2 has begun; steps by count; both earlier when patience does."""
        hours, state = self.spec.budget.hours, self.state
        if hours is None or state.ended_early:
            return state.ended_early or state.step >= state.schedule.steps
        return state.phase == 2 and state.seconds >= 3600 * hours

    def _step(self) -> None:
        state, schedule = self.state, self.state.schedule
        losses = self.training_step(self.windows.next_batch(), state.step)
        self.monitor.record(state.step, losses, self.windows.places)
        state.step += 1
        every = min(LOG_EVERY, max(1, schedule.steps // 500))
        if state.step % every == 0 or self._validation_due() or self._checkpoint_due():
            values = self.monitor.drain()
            state.train_distance = values.get("fullband_spectral_distance", state.train_distance)
            self.metrics_log.train(state.step, state.phase, values, steps=schedule.steps)

    def _validation_due(self) -> bool:
        step, schedule = self.state.step, self.state.schedule
        return step % schedule.validate_every == 0 or step in (schedule.phase_1_steps, schedule.steps)

    def _validate_if_due(self) -> None:
        """Also when a run goes on from just before a validation."""
        state = self.state
        if state.validated_step != state.step and (state.first is None or self._validation_due()):
            self._validate()
            self._lose_patience()

    def _validate(self, *, drawn: bool = True) -> None:
        values = validate(self.model, self.validation_segments, window=self.window, device=self.device)
        if not math.isfinite(values["validation"]):
            raise NotFinite("the held-out distance", self.state.step)
        heard = validate(self.model, self.heard, window=self.window, device=self.device)
        values["validation/training"] = heard["validation"]
        until = self.spec.budget.until
        if self.state.record_validation(values["validation"], improvement=until.improvement if until else 0.0):
            self.best[self.state.phase] = on_host(self.model.state_dict())
        if drawn:
            self.metrics_log.validation(self.state.step, self.state.phase, values)
            self._sync()

    def _lose_patience(self) -> None:
        """Ends the phase in which validation has not improved for as long as the budget allows."""
        until, state = self.spec.budget.until, self.state
        if until is None or state.validations_without_improvement < until.patience:
            return
        if state.phase == 2:
            state.ended_early = True
        elif state.step < state.schedule.phase_1_steps:
            self._reschedule(end_phase_1(state.schedule, done=state.step))
            if self.spec.budget.hours is not None and state.step_times is not None:
                self._replan_phase_2(state.step_times.phase_2, self.spec.budget.hours)
                self.planned = (state.step, state.seconds)

    def _reschedule(self, schedule: Schedule) -> None:
        self.state.schedule = schedule
        self.training_step.reschedule(phase_1_steps=schedule.phase_1_steps, warmup_steps=schedule.warmup_steps)

    def _checkpoint_due(self) -> bool:
        policy = self.spec.checkpoint
        if policy.steps is not None:
            return self.state.step % policy.steps == 0
        return policy.every_seconds is not None and time.monotonic() - self.saved_at >= policy.every_seconds

    def _save(self) -> None:
        """Begins to write a checkpoint, unless this very step has one."""
        if self.saved_step == self.state.step:
            return
        self.monitor.raise_if_bad()
        self.checkpointer.wait()  # no second copy beside the one that is being written
        self.checkpointer.save(self.state.step, self._saved())
        self._sync(always=True)
        self.saved_step, self.saved_at = self.state.step, time.monotonic()

    def _saved(self) -> dict[str, Any]:
        """All that decides what the next step computes, as it is now."""
        live = {
            "state": self.state.to_saved(),
            "model": self.model.state_dict(),
            "training": self.training_step.state_dict(),
            "windows": self.windows.state_dict(),
            "random": checkpoint.random_states(self.device),
            "metrics_log": self.metrics_log.state_dict(),
        }
        return {**on_host(live), "bests": dict(self.best)}

    def _replan(self) -> None:
        """Hours only: moves the ends of the phases as the machine turns out faster or slower, fifty times a run."""
        hours, state = self.spec.budget.hours, self.state
        steps, seconds = state.step - self.planned[0], state.seconds - self.planned[1]
        if hours is None or state.step_times is None or seconds < 3600 * hours / _REPLANS:
            return
        now, done = seconds / steps, state.step
        if state.schedule.phase(done) == 1:
            state.step_times = state.step_times.scaled(now)
            self._reschedule(
                plan_schedule(
                    self.spec.budget, step_times=state.step_times, override=self.spec.override, done=done, seconds=state.seconds
                )
            )
            if state.schedule.phase_1_steps == done and state.validated_step != done:
                self._validate()
        else:
            self._replan_phase_2(now, hours)
        self.planned = (done, state.seconds)

    def _replan_phase_2(self, step_times: float, hours: float) -> None:
        state = self.state
        state.schedule = continue_schedule(
            state.schedule, pace_phase_2=step_times, done=state.step, seconds=state.seconds, hours=hours
        )

    def _sync(self, *, always: bool = False) -> None:
        schedule = self.state.schedule
        self.metrics_log.sync(steps=schedule.steps, phase_1_steps=schedule.phase_1_steps, window=self.window, always=always)

    def _finish(self, *, complete: bool) -> None:
        """Leaves what a model is published from: the best weights of its phase, and beside them those of phase 1, which are
        measured too. The run itself cannot go on after this.

        Where it was cut is validated too, for it may be the best, or the first of phase 2; the run that goes on from the
        checkpoint knows nothing of that, as one that was never cut.
        """
        if self.state.validated_step != self.state.step:
            self._validate(drawn=complete)
        self._sync(always=True)
        write_outputs(self.store, self.spec, self.model, self.state, self.best, self.train_segments, complete=complete)
