"""One run, from its first step to the files that a model is published from. No Ray.

What a run leaves in the store below its own key: ``spec.json`` and ``config.gin`` at once; ``checkpoints/``, ``events/`` and
``curves.json`` as it goes; ``weights.pt`` and last ``result.json`` when it ends.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from rave_dist import upstream
from rave_dist.errors import TrainingError
from rave_dist.records import TrainingSpec
from rave_dist.storage import Store
from rave_dist.training import checkpoint
from rave_dist.training.batches import PcmSegment, Windows
from rave_dist.training.curves import Curves
from rave_dist.training.memory import device_name, is_out_of_memory
from rave_dist.training.pace import measure_pace
from rave_dist.training.progress import Speed
from rave_dist.training.result import State, write_result
from rave_dist.training.saver import Saver, on_host
from rave_dist.training.schedule import continue_schedule, plan_schedule
from rave_dist.training.step import TrainingStep, check_window
from rave_dist.training.validation import excerpt, fit_latent, set_receptive_field, validate
from rave_dist.training.variants import window_and_batch

LOG_EVERY = 50
"""Steps between two looks at the losses on long runs, as in stock RAVE: each look waits for the device."""

RESIDENT_BYTES = 8 * 2**30
"""Up to so much PCM is kept on the device; more stays in host memory and windows travel."""

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
        tell: called after every step and validation with the state and the steps per second.
        stop: asked before every step; when true, the run saves itself and returns.

    Raises:
        TrainingError: a loss is not finite, the memory does not suffice, or all checkpoints are damaged.
        ConfigurationError: the configuration does not make a model, or the window is too short for it.
        DatasetError: too little audio.
        StoreError: the store cannot be used.
    """
    device = torch.device(device)
    try:
        with tempfile.TemporaryDirectory(prefix="rave-dist-run-") as folder:
            return _Run(store, spec, train_segments, validation_segments, device, Path(folder)).go(tell, stop)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, TrainingError) or not is_out_of_memory(error):
            raise
        batch = window_and_batch(spec)[1]
        fix = f"set batch: {batch // 2}" if batch > 1 else "take a smaller configuration, or a machine with more memory"
        raise TrainingError(
            f"a training step does not fit the memory of {device_name(device)}", where=spec.instrument, fix=fix
        ) from error


class _Run:
    def __init__(
        self,
        store: Store,
        spec: TrainingSpec,
        train_segments: Sequence[PcmSegment],
        validation_segments: Sequence[PcmSegment],
        device: torch.device,
        folder: Path,
    ) -> None:
        self.store, self.spec, self.device = store, spec, device
        self.train_segments, self.validation_segments = train_segments, validation_segments
        self.window, batch = window_and_batch(spec)
        config_text = upstream.configure(spec.config, spec.override, sample_rate=spec.sample_rate, channels=spec.channels)
        store.write_json(f"{spec.run_key}/spec.json", spec.to_json())
        store.write_bytes(f"{spec.run_key}/config.gin", config_text.encode())
        loaded = checkpoint.load_checkpoint(store, self.checkpoints)
        if loaded is None:
            self.state = self._first_state(config_text, batch)
        else:
            self.state = State.from_saved(loaded[1]["state"])

        checkpoint.seed_everything(spec.seed)
        self.model = upstream.build_model(config_text, channels=spec.channels).to(device)
        self.best: dict[str, torch.Tensor] | None = loaded[1].get("best") if loaded else None
        if loaded is None:
            set_receptive_field(self.model)
            check_window(self.model, self.window)
        else:
            checkpoint.load_weights(self.model, loaded[1]["model"], where=store.address(self.checkpoints))
        self.windows = Windows(
            train_segments,
            window=self.window,
            batch=batch,
            seed=spec.seed,
            device=device,
            sample_rate=spec.sample_rate,
            resident=sum(segment.pcm.nbytes for segment in train_segments) <= RESIDENT_BYTES,
        )
        schedule = self.state.schedule
        self.training_step = TrainingStep(
            self.model, phase_1_steps=schedule.phase_1_steps, warmup_steps=schedule.warmup_steps, device=device
        )
        curves = None
        if loaded is not None:
            saved = loaded[1]
            self.training_step.load_state_dict(saved["training"])
            self.windows.load_state_dict(saved["windows"])
            checkpoint.restore_random_states(saved["random"], device)
            curves = saved["curves"]
        self.curves = Curves(store, spec.run_key, folder, state=curves, step=self.state.step)
        self.heard = excerpt(train_segments, like=validation_segments, window=self.window)
        self.losses = _Losses(device)
        self.saver = Saver(store, self.checkpoints, keep=spec.checkpoint.keep)
        self.saved_step = self.state.step if loaded is not None else -1
        self.saved_at = time.monotonic()
        self.planned = (self.state.step, self.state.seconds)

    @property
    def checkpoints(self) -> str:
        return f"{self.spec.run_key}/checkpoints"

    def _first_state(self, config_text: str, batch: int) -> State:
        """Budgets in hours, and all runs on a GPU, begin with real steps of both phases: what does not fit fails now."""
        spec, pace = self.spec, None
        if spec.budget.hours is not None or self.device.type == "cuda":
            pace = measure_pace(config_text, channels=spec.channels, window=self.window, batch=batch, device=self.device)
        return State(plan_schedule(spec.budget, pace=pace, override=spec.override), pace=pace)

    def go(self, tell: Tell, stop: Callable[[], bool]) -> Outcome:
        state = self.state
        speed = Speed()
        with self.curves, self.saver:
            if state.first is None:
                self._validate()
            tell(state, None)
            while not self._spent():
                if stop():
                    self._save()
                    self.saver.wait()  # before anything else: whoever asks may not wait for long
                    self._finish(complete=False)
                    return Outcome(False, state.step, state.phase)
                began = time.monotonic()
                self._step()
                if self._validation_due():
                    self._validate()
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
        """Hours end by the clock, but never before phase 2 has begun; steps by count."""
        hours, state = self.spec.budget.hours, self.state
        if hours is None:
            return state.step >= state.schedule.steps
        return state.phase == 2 and state.seconds >= 3600 * hours

    def _step(self) -> None:
        state, schedule = self.state, self.state.schedule
        self.losses.see(state.step, self.training_step(self.windows.next_batch(), state.step))
        state.step += 1
        every = min(LOG_EVERY, max(1, schedule.steps // 500))
        if state.step % every == 0 or self._validation_due() or self._checkpoint_due():
            values = self.losses.take(self.spec.instrument)
            state.train_distance = values.get("fullband_spectral_distance", state.train_distance)
            self.curves.train(state.step, state.phase, values, steps=schedule.steps)

    def _validation_due(self) -> bool:
        step, schedule = self.state.step, self.state.schedule
        return step % schedule.validate_every == 0 or step in (schedule.phase_1_steps, schedule.steps)

    def _validate(self) -> None:
        values = validate(self.model, self.validation_segments, window=self.window, device=self.device)
        if not math.isfinite(values["validation"]):
            raise _not_finite("the held-out distance", self.spec.instrument, self.state.step)
        heard = validate(self.model, self.heard, window=self.window, device=self.device)
        values["validation/training"] = heard["validation"]
        if self.state.note(values["validation"]):
            self.best = on_host(self.model.state_dict())
        self.curves.validation(self.state.step, self.state.phase, values)
        self._sync()

    def _checkpoint_due(self) -> bool:
        policy = self.spec.checkpoint
        if policy.steps is not None:
            return self.state.step % policy.steps == 0
        return policy.every_seconds is not None and time.monotonic() - self.saved_at >= policy.every_seconds

    def _save(self) -> None:
        """Begins to write a checkpoint, unless this very step has one."""
        if self.saved_step == self.state.step:
            return
        _check_finite(self.model, self.spec.instrument, self.state.step)
        self.saver.wait()  # no second copy beside the one that is being written
        saved = {
            "state": asdict(self.state),
            "model": self.model.state_dict(),
            "training": self.training_step.state_dict(),
            "windows": self.windows.state_dict(),
            "random": checkpoint.random_states(self.device),
            "curves": self.curves.state_dict(),
        }
        self.saver.save(self.state.step, {**on_host(saved), "best": self.best})
        self._sync(always=True)
        self.saved_step, self.saved_at = self.state.step, time.monotonic()

    def _replan(self) -> None:
        """Hours only: moves the ends of the phases as the machine turns out faster or slower, fifty times a run."""
        hours, state = self.spec.budget.hours, self.state
        steps, seconds = state.step - self.planned[0], state.seconds - self.planned[1]
        if hours is None or state.pace is None or seconds < 3600 * hours / _REPLANS:
            return
        now, done = seconds / steps, state.step
        if state.schedule.phase(done) == 1:
            state.pace = state.pace.scaled(now)
            state.schedule = plan_schedule(
                self.spec.budget, pace=state.pace, override=self.spec.override, done=done, seconds=state.seconds
            )
            self.training_step.reschedule(phase_1_steps=state.schedule.phase_1_steps, warmup_steps=state.schedule.warmup_steps)
            if state.schedule.phase_1_steps == done and state.validated_step != done:
                self._validate()
        else:
            state.schedule = continue_schedule(state.schedule, pace_phase_2=now, done=done, seconds=state.seconds, hours=hours)
        self.planned = (done, state.seconds)

    def _sync(self, *, always: bool = False) -> None:
        schedule = self.state.schedule
        self.curves.sync(steps=schedule.steps, phase_1_steps=schedule.phase_1_steps, window=self.window, always=always)

    def _finish(self, *, complete: bool) -> None:
        """Leaves what a model is published from: the best weights of its phase. The run itself cannot go on after this."""
        if self.state.validated_step != self.state.step:
            self._validate()
        if self.best is not None:
            self.model.load_state_dict(self.best)
        fit_latent(self.model, self.train_segments, window=self.window, device=self.device)
        self._sync(always=True)
        write_result(self.store, self.spec, self.model, self.state, complete=complete)


class _Losses:
    """The latest value of every loss, and the first step at which one was not finite, both kept on the device: reading
    them makes the host wait, so it is done now and then only."""

    def __init__(self, device: torch.device) -> None:
        self._latest: dict[str, torch.Tensor] = {}
        self._bad = torch.full((), -1, dtype=torch.long, device=device)

    def see(self, step: int, losses: Mapping[str, torch.Tensor]) -> None:
        """Takes the losses of a step."""
        self._latest.update(losses)
        total = torch.stack([value.detach().float().to(self._bad.device) for value in losses.values()]).sum()
        self._bad = torch.where((self._bad < 0) & ~torch.isfinite(total), step, self._bad)

    def take(self, instrument: str) -> dict[str, float]:
        """The losses since they were last taken.

        Raises:
            TrainingError: one was not finite.
        """
        bad = int(self._bad)
        if bad >= 0:
            raise _not_finite("a loss", instrument, bad)
        values = {name: float(value) for name, value in self._latest.items()}
        self._latest.clear()
        return values


def _check_finite(model: torch.nn.Module, instrument: str, step: int) -> None:
    if not bool(torch.stack([torch.isfinite(p).all() for p in model.parameters()]).all()):
        raise _not_finite("a weight", instrument, step)


def _not_finite(what: str, instrument: str, step: int) -> TrainingError:
    return TrainingError(
        f"{what} is not a finite number at step {step}",
        where=instrument,
        fix="give this instrument another seed; if it happens again, remove recordings that are damaged or digitally silent",
    )
