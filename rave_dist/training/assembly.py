"""Assembles a run: new, from initial weights, or from its last checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from rave_dist.errors import TrainingError
from rave_dist.rave.models import build_model
from rave_dist.rave.step_config import StepConfig
from rave_dist.rave.window import check_window
from rave_dist.records import Rollback, RunFolder, TrainingSpec
from rave_dist.storage.store import Store
from rave_dist.training.data.loader import PcmSegment, Windows
from rave_dist.training.evaluation.receptive_field import set_receptive_field
from rave_dist.training.preflight.step_time import measure_step_times
from rave_dist.training.preflight.throwaway_run import ThrowawayRun
from rave_dist.training.schedule import StepTimes, extended_schedule, first_schedule
from rave_dist.training.state import checkpoint
from rave_dist.training.state.async_checkpoint import on_host
from rave_dist.training.state.initialization import InitialWeights, load_initial_weights
from rave_dist.training.state.run_state import RunState
from rave_dist.training.step.division import SharedDivision
from rave_dist.training.step.training_step import TrainingStep
from rave_dist.training.worker_group import WorkerGroup

logger = logging.getLogger(__name__)


@dataclass
class RunParts:
    """The live objects of a run, whose state a checkpoint saves.

    Attributes:
        config: the step, with the accumulation steps that the run uses.
        state: its progress.
        model: a ``rave.RAVE`` on the device.
        best: the best weights of each phase so far, on the CPU.
        windows: the sampler.
        training_step: model, optimizers and learning rates.
        metrics: saved state of the metrics log of a resumed run.
        resumed: whether the state is from a checkpoint of the run itself.
    """

    config: StepConfig
    state: RunState
    model: Any
    best: dict[int, dict[str, torch.Tensor]]
    windows: Windows
    training_step: TrainingStep
    metrics: dict[str, Any] | None
    resumed: bool

    def to_saved(self, device: torch.device, metrics: dict[str, Any]) -> dict[str, Any]:
        """The complete state on the CPU, for a checkpoint.

        Args:
            device: where the run computes.
            metrics: the state of the metrics log.
        """
        return {**self.to_shared(device), "metrics_log": on_host(metrics), "bests": dict(self.best)}

    def to_shared(self, device: torch.device) -> dict[str, Any]:
        """What determines the next steps, on the CPU: for the other workers of a run."""
        live = {
            "state": self.state.to_saved(),
            "model": self.model.state_dict(),
            "training": self.training_step.state_dict(),
            "windows": self.windows.state_dict(),
            "random": checkpoint.random_states(device),
        }
        state: dict[str, Any] = on_host(live)
        return state


def assemble(
    store: Store,
    spec: TrainingSpec,
    segments: Sequence[PcmSegment],
    *,
    device: torch.device,
    accumulation_steps: int,
    rollbacks: Sequence[Rollback] = (),
    group: WorkerGroup | None = None,
) -> RunParts:
    """Creates or restores the state of a run, and sets the global random generators.

    Args:
        store: where its checkpoints and initial weights are.
        spec: the run.
        segments: PCM of the training audio.
        device: ``cpu`` or ``cuda``.
        accumulation_steps: parts of the batch; a resumed run keeps its own number unless this is larger.
        rollbacks: all so far; those after the last checkpoint lower its learning rate.
        group: the workers of a run with several.

    Raises:
        TrainingError: all checkpoints are damaged, or the initial weights are missing.
        ConfigurationError: the configuration or the window is invalid, or the weights have another architecture.
        DatasetError: there is no audio.
    """
    config = StepConfig.of(spec, accumulation_steps=accumulation_steps)
    text = config.config_text
    loaded = checkpoint.load_checkpoint(store, spec.folder.checkpoints)
    continues = loaded is None and spec.continues is not None
    if continues:
        loaded = _load_earlier(store, spec)
    saved = None if loaded is None else loaded[1]
    initial = load_initial_weights(store, spec.base) if saved is None and spec.base is not None else None
    if saved is None:
        state = _first_state(spec, config, device, initial)
    else:
        state = RunState.from_saved(saved["state"])
        phase_1_steps = state.schedule.phase_1_steps
        if continues:
            _extend(state, spec, config, device)
    _adapt_accumulation_steps(state, spec, config)
    config = replace(config, accumulation_steps=state.accumulation_steps)

    checkpoint.seed_everything(spec.seed)
    model = build_model(text, channels=config.channels).to(device)
    if saved is None:
        set_receptive_field(model)
        check_window(model, config.window)
        if initial is not None:
            initial.put_into(model)
    else:
        checkpoint.load_weights(model, saved["model"], where=store.address(spec.folder.checkpoints))
    windows, training_step = _sampler_and_step(spec, config, state, model, segments, device=device, group=group)
    if initial is not None:
        initial.restore(training_step)
    if saved is not None:
        training_step.load_state_dict(saved["training"])
        windows.load_state_dict(saved["windows"])
        checkpoint.restore_random_states(saved["random"], device)
        if state.schedule.phase_1_steps != phase_1_steps:
            training_step.reschedule(phase_1_steps=state.schedule.phase_1_steps, warmup_steps=state.schedule.warmup_steps)
    for rollback in rollbacks[len(state.rollbacks) :]:
        training_step.scale_learning_rate(rollback.rate)
        state.rollbacks.append(rollback)
    return RunParts(
        config=config,
        state=state,
        model=model,
        best=saved["bests"] if saved else {},
        windows=windows,
        training_step=training_step,
        metrics=saved["metrics_log"] if saved else None,
        resumed=saved is not None and not continues,
    )


def assemble_further(
    spec: TrainingSpec, segments: Sequence[PcmSegment], shared: dict[str, Any], *, group: WorkerGroup
) -> RunParts:
    """The run in a further worker of its group.

    Args:
        spec: the run.
        segments: PCM of the training audio.
        shared: from `RunParts.to_shared` of the first worker.
        group: the workers.
    """
    state = RunState.from_saved(shared["state"])
    config = StepConfig.of(spec, accumulation_steps=state.accumulation_steps)
    model = build_model(config.config_text, channels=config.channels).to(group.device)
    model.load_state_dict(shared["model"])
    windows, training_step = _sampler_and_step(spec, config, state, model, segments, device=group.device, group=group)
    training_step.load_state_dict(shared["training"])
    windows.load_state_dict(shared["windows"])
    checkpoint.restore_random_states(shared["random"], group.device)
    return RunParts(config, state, model, {}, windows, training_step, metrics=None, resumed=True)


def _sampler_and_step(
    spec: TrainingSpec,
    config: StepConfig,
    state: RunState,
    model: Any,
    segments: Sequence[PcmSegment],
    *,
    device: torch.device,
    group: WorkerGroup | None,
) -> tuple[Windows, TrainingStep]:
    division = None if group is None else SharedDivision(group, config.batch, config.accumulation_steps)
    windows = Windows(
        segments,
        window=config.window,
        batch=config.batch,
        seed=spec.seed,
        device=device,
        sample_rate=config.sample_rate,
        augment=spec.augment,
        rows=None if division is None else division.rows,
    )
    training_step = TrainingStep(
        model,
        phase_1_steps=state.schedule.phase_1_steps,
        warmup_steps=state.schedule.warmup_steps,
        device=device,
        compute=config.compute,
        accumulation_steps=config.accumulation_steps,
        losses=config.losses,
        freeze_encoder=config.freeze_encoder,
        division=division,
    )
    return windows, training_step


def _first_state(spec: TrainingSpec, config: StepConfig, device: torch.device, initial: InitialWeights | None) -> RunState:
    """The state before the first step; budgets in hours need measured step times for their number of steps."""
    step_times = None if spec.budget.hours is None else _measure(config, device)
    resume_point = None if initial is None else initial.resume_point
    schedule = first_schedule(spec.budget, step_times=step_times, override=spec.override, resume_point=resume_point)
    step = 0 if resume_point is None else resume_point.step
    return RunState(schedule, step=step, step_times=step_times, accumulation_steps=config.accumulation_steps)


def _load_earlier(store: Store, spec: TrainingSpec) -> tuple[int, dict[str, Any]]:
    """The checkpoint that a run starts from, of the run that it continues.

    Raises:
        TrainingError: it is not there any more.
    """
    assert spec.continues is not None
    folder = RunFolder.of(spec.library, spec.instrument, spec.continues.run_id).checkpoints
    loaded = checkpoint.load_checkpoint(store, folder)
    if loaded is None or loaded[0] != spec.continues.step:
        raise TrainingError(
            f"the checkpoint after {spec.continues.step} steps, which this run continues, is not there any more",
            where=store.address(folder),
            fix="run the same command again, which plans the run again",
        )
    return loaded


def _extend(state: RunState, spec: TrainingSpec, config: StepConfig, device: torch.device) -> None:
    """Gives the state of an earlier run the budget of the run that continues it."""
    until = spec.budget.until
    if spec.budget.hours is not None and state.step_times is None:
        state.step_times = _measure(config, device)
    state.schedule = extended_schedule(
        state.schedule,
        spec.budget,
        step_times=state.step_times,
        override=spec.override,
        done=state.step,
        seconds=state.seconds,
    )
    state.ended_early = state.ended_early and until is not None and state.validations_without_improvement >= until.patience


def _measure(config: StepConfig, device: torch.device) -> StepTimes:
    throwaway = ThrowawayRun(config.of_one_worker(), device=device)
    return measure_step_times(throwaway)  # its memory is free afterwards, before the run needs it


def _adapt_accumulation_steps(state: RunState, spec: TrainingSpec, config: StepConfig) -> None:
    """The accumulation steps: as before, or more if there is less memory now, and at most one per window of a worker."""
    if config.accumulation_steps > state.accumulation_steps:
        logger.warning(
            "%s: less memory than before: from step %d on, a step of %d windows is computed in %d parts instead of %d",
            *(spec.instrument, state.step, config.batch, config.accumulation_steps, state.accumulation_steps),
        )
        state.accumulation_steps = config.accumulation_steps
    state.accumulation_steps = min(state.accumulation_steps, config.batch // config.workers)
