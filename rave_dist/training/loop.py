"""One run, from its first step to the files that a model is published from. No Ray.

What a run leaves in the store below its own key: ``spec.json`` and ``config.gin`` at once; ``checkpoints/``, ``events/`` and
``curves.json`` as it goes; ``weights.pt``, ``weights_phase_1.pt`` and last ``result.json`` when it ends.
"""

from __future__ import annotations

import logging
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from rave_dist import upstream
from rave_dist.errors import TrainingError
from rave_dist.records import TrainingSpec
from rave_dist.storage import Store
from rave_dist.training import checkpoint
from rave_dist.training.base import Start, load_start
from rave_dist.training.batches import PcmSegment, Windows
from rave_dist.training.curves import Curves
from rave_dist.training.memory import device_name, is_out_of_memory
from rave_dist.training.pace import measure_pace
from rave_dist.training.progress import Speed
from rave_dist.training.result import State, best_weights, leave
from rave_dist.training.saver import Saver, on_host
from rave_dist.training.schedule import Schedule, continue_schedule, end_phase_1, first_schedule, plan_schedule
from rave_dist.training.step import TrainingStep
from rave_dist.training.trial import Trial
from rave_dist.training.validation import excerpt, set_receptive_field, validate
from rave_dist.training.variants import smaller_batch, window_and_batch
from rave_dist.training.watch import NotFinite, Watch, explain
from rave_dist.training.window import check_window

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


Tell = Callable[[State, float | None], None]


def train(
    store: Store,
    spec: TrainingSpec,
    train_segments: Sequence[PcmSegment],
    validation_segments: Sequence[PcmSegment],
    *,
    device: torch.device | str = "cpu",
    parts: int = 1,
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
        parts: in how many parts to compute a step; a run that goes on keeps to its own number unless this is more.
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
    device, setbacks = torch.device(device), None
    try:
        while True:
            with tempfile.TemporaryDirectory(prefix="rave-dist-run-") as folder:
                run = _Run(store, spec, train_segments, validation_segments, device, parts, Path(folder), setbacks)
                outcome = run.go(tell, stop)
            if outcome is not None:
                return outcome
            setbacks = run.state.setbacks
            del run  # its memory, before the next one takes as much
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, TrainingError) or not is_out_of_memory(error):
            raise
        again = "run the same command again, which tries anew what fits, or " if spec.batch == "auto" else ""
        raise TrainingError(
            f"a training step does not fit the memory of {device_name(device)}",
            where=spec.instrument,
            fix=again + smaller_batch(spec, window_and_batch(spec)[1] // parts // 2),
        ) from error


class _Run:
    def __init__(
        self,
        store: Store,
        spec: TrainingSpec,
        train_segments: Sequence[PcmSegment],
        validation_segments: Sequence[PcmSegment],
        device: torch.device,
        parts: int,
        folder: Path,
        setbacks: list[dict[str, Any]] | None,
    ) -> None:
        self.store, self.spec, self.device = store, spec, device
        self.train_segments, self.validation_segments = train_segments, validation_segments
        self.window, batch = window_and_batch(spec)
        config_text = upstream.configure(spec.config, spec.override, sample_rate=spec.sample_rate, channels=spec.channels)
        store.write_json(f"{spec.run_key}/spec.json", spec.to_json())
        store.write_bytes(f"{spec.run_key}/config.gin", config_text.encode())
        loaded = checkpoint.load_checkpoint(store, self.checkpoints)
        start = load_start(store, spec.base) if loaded is None and spec.base is not None else None
        if loaded is None:
            self.state = self._first_state(config_text, batch, parts, start)
        else:
            self.state = State.from_saved(loaded[1]["state"])
            self._take_parts(parts, batch)

        checkpoint.seed_everything(spec.seed)
        self.model = upstream.build_model(config_text, channels=spec.channels).to(device)
        self.best = best_weights(loaded[1]) if loaded is not None else {}
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
            parts=self.state.parts,
        )
        if start is not None:
            start.restore(self.training_step)
        curves = None
        if loaded is not None:
            saved = loaded[1]
            self.training_step.load_state_dict(saved["training"])
            self.windows.load_state_dict(saved["windows"])
            checkpoint.restore_random_states(saved["random"], device)
            curves = saved["curves"]
        for setback in (setbacks or [])[len(self.state.setbacks) :]:  # since this checkpoint
            self.training_step.slow_down(setback["rate"])
            self.state.setbacks.append(setback)
        self.curves = Curves(store, spec.run_key, folder, state=curves, step=self.state.step)
        self.heard = excerpt(train_segments, like=validation_segments, window=self.window)
        self.watch = Watch(self.model.parameters(), device)
        self.saver = Saver(store, self.checkpoints, keep=spec.checkpoint.keep)
        self.saved_step = self.state.step if loaded is not None else -1
        self.saved_at = time.monotonic()
        self.planned = (self.state.step, self.state.seconds)

    @property
    def checkpoints(self) -> str:
        return f"{self.spec.run_key}/checkpoints"

    def _take_parts(self, parts: int, batch: int) -> None:
        """A run that goes on computes as it did, or in smaller parts where there is less memory now."""
        if parts > self.state.parts:
            logger.warning(
                "%s: there is less memory now: from step %d on a step of %d windows is computed in %d parts instead of %d",
                *(self.spec.instrument, self.state.step, batch, parts, self.state.parts),
            )
            self.state.parts = parts

    def _first_state(self, config_text: str, batch: int, parts: int, start: Start | None) -> State:
        """Budgets in hours begin with real steps of both phases, which say how many of them there will be."""
        spec, pace = self.spec, None
        if spec.budget.hours is not None:
            trial = Trial(
                config_text,
                channels=spec.channels,
                window=self.window,
                batch=batch,
                device=self.device,
                compute=spec.compute,
                parts=parts,
            )
            pace = measure_pace(trial)
            del trial  # its memory, before the run takes as much
        begun = None if start is None else start.begun
        schedule = first_schedule(spec.budget, pace=pace, override=spec.override, begun=begun)
        return State(schedule, step=0 if begun is None else begun.step, pace=pace, parts=parts)

    def go(self, tell: Tell, stop: Callable[[], bool]) -> Outcome | None:
        """Until the budget is spent or the run is asked to stop; None after a setback, when it is to go on from its last
        checkpoint."""
        try:
            return self._go(tell, stop)
        except NotFinite as error:
            failure = explain(error, self.store, self.spec, self.train_segments)
            recover, setbacks = self.spec.recover, self.state.setbacks
            if recover is None or len(setbacks) >= recover.times:
                raise failure from error
            logger.warning("%s; it goes on from its last checkpoint at %g of the learning rate", failure.what, recover.rate)
            setbacks.append({"step": error.step, "what": failure.what, "rate": recover.rate})
            return None

    def _go(self, tell: Tell, stop: Callable[[], bool]) -> Outcome:
        state = self.state
        speed = Speed()
        with self.curves, self.saver:
            self._validate_if_due()
            tell(state, None)
            while not self._spent():
                if stop():
                    self._save()
                    self.saver.wait()  # before anything else: whoever asks may not wait for long
                    self._finish(complete=False)
                    return Outcome(False, state.step, state.phase)
                began = time.monotonic()
                self._step()
                if self._validation_due() or time.monotonic() - began > LONG_STEP_SECONDS:
                    self.watch.check()
                    self.saver.hold(state.step, self._saved(), stop)
                self._validate_if_due()
                state.seconds += time.monotonic() - began
                self._replan()
                tell(state, speed.tell(state.step))
                self.saver.check()
                if self._checkpoint_due():
                    self._save()
            state.schedule = replace(state.schedule, steps=state.step)
            self._save()
            self.saver.wait()
            self._finish(complete=True)
            tell(state, None)
        return Outcome(True, state.step, state.phase)

    def _spent(self) -> bool:
        """Hours end by the clock, but never before phase 2 has begun; steps by count; both earlier when patience does."""
        hours, state = self.spec.budget.hours, self.state
        if hours is None or state.settled:
            return state.settled or state.step >= state.schedule.steps
        return state.phase == 2 and state.seconds >= 3600 * hours

    def _step(self) -> None:
        state, schedule = self.state, self.state.schedule
        losses = self.training_step(self.windows.next_batch(), state.step)
        self.watch.see(state.step, losses, self.windows.places)
        state.step += 1
        every = min(LOG_EVERY, max(1, schedule.steps // 500))
        if state.step % every == 0 or self._validation_due() or self._checkpoint_due():
            values = self.watch.take()
            state.train_distance = values.get("fullband_spectral_distance", state.train_distance)
            self.curves.train(state.step, state.phase, values, steps=schedule.steps)

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
        if self.state.note(values["validation"], improvement=until.improvement if until else 0.0):
            self.best[self.state.phase] = on_host(self.model.state_dict())
        if drawn:
            self.curves.validation(self.state.step, self.state.phase, values)
            self._sync()

    def _lose_patience(self) -> None:
        """Ends the phase in which validation has not improved for as long as the budget allows."""
        until, state = self.spec.budget.until, self.state
        if until is None or state.waited < until.patience:
            return
        if state.phase == 2:
            state.settled = True
        elif state.step < state.schedule.phase_1_steps:
            self._reschedule(end_phase_1(state.schedule, done=state.step))
            if self.spec.budget.hours is not None and state.pace is not None:
                self._replan_phase_2(state.pace.phase_2, self.spec.budget.hours)
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
        self.watch.check()
        self.saver.wait()  # no second copy beside the one that is being written
        self.saver.save(self.state.step, self._saved())
        self._sync(always=True)
        self.saved_step, self.saved_at = self.state.step, time.monotonic()

    def _saved(self) -> dict[str, Any]:
        """All that decides what the next step computes, as it is now."""
        live = {
            "state": asdict(self.state),
            "model": self.model.state_dict(),
            "training": self.training_step.state_dict(),
            "windows": self.windows.state_dict(),
            "random": checkpoint.random_states(self.device),
            "curves": self.curves.state_dict(),
        }
        return {**on_host(live), "bests": dict(self.best)}

    def _replan(self) -> None:
        """Hours only: moves the ends of the phases as the machine turns out faster or slower, fifty times a run."""
        hours, state = self.spec.budget.hours, self.state
        steps, seconds = state.step - self.planned[0], state.seconds - self.planned[1]
        if hours is None or state.pace is None or seconds < 3600 * hours / _REPLANS:
            return
        now, done = seconds / steps, state.step
        if state.schedule.phase(done) == 1:
            state.pace = state.pace.scaled(now)
            self._reschedule(
                plan_schedule(self.spec.budget, pace=state.pace, override=self.spec.override, done=done, seconds=state.seconds)
            )
            if state.schedule.phase_1_steps == done and state.validated_step != done:
                self._validate()
        else:
            self._replan_phase_2(now, hours)
        self.planned = (done, state.seconds)

    def _replan_phase_2(self, pace: float, hours: float) -> None:
        state = self.state
        state.schedule = continue_schedule(
            state.schedule, pace_phase_2=pace, done=state.step, seconds=state.seconds, hours=hours
        )

    def _sync(self, *, always: bool = False) -> None:
        schedule = self.state.schedule
        self.curves.sync(steps=schedule.steps, phase_1_steps=schedule.phase_1_steps, window=self.window, always=always)

    def _finish(self, *, complete: bool) -> None:
        """Leaves what a model is published from: the best weights of its phase, and beside them those of phase 1, which are
        measured too. The run itself cannot go on after this.

        Where it was cut is validated too, for it may be the best, or the first of phase 2; the run that goes on from the
        checkpoint knows nothing of that, as one that was never cut.
        """
        if self.state.validated_step != self.state.step:
            self._validate(drawn=complete)
        self._sync(always=True)
        leave(self.store, self.spec, self.model, self.state, self.best, self.train_segments, complete=complete)
