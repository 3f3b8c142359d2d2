"""The configuration of a training step, made once from a run's spec."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from rave_dist.options import ComputeOption
from rave_dist.rave.presets import defaults
from rave_dist.records import TrainingSpec


@dataclass(frozen=True, kw_only=True)
class StepConfig:
    """The model, the shapes and the arithmetic of a training step.

    Attributes:
        config: names of configurations, in order.
        override: gin macros and bindings.
        sample_rate: in Hz.
        channels: of the audio.
        window: samples per window.
        batch: windows per step.
        compute: options of arithmetic and speed.
        accumulation_steps: equal parts of the batch whose gradients are added up in a step.
        losses: weights of further losses, by name (`rave_dist.extensions.LOSSES`).
        workers: processes that divide the batch.
        freeze_encoder: train only the decoder.
    """

    config: tuple[str, ...]
    override: Mapping[str, Any]
    sample_rate: int
    channels: int
    window: int
    batch: int
    compute: tuple[ComputeOption, ...] = ()
    accumulation_steps: int = 1
    losses: Mapping[str, float] = field(default_factory=dict)
    workers: int = 1
    freeze_encoder: bool = False

    @staticmethod
    def of(spec: TrainingSpec, *, accumulation_steps: int = 1) -> StepConfig:
        """The configuration of a run's step; values that the spec does not set are the configuration's defaults.

        Args:
            spec: the run; ``batch: auto`` is the default batch, whatever the number of accumulation steps.
            accumulation_steps: equal parts of the batch.
        """
        suited = defaults(spec.config)
        return StepConfig(
            config=spec.config,
            override=spec.override,
            sample_rate=spec.sample_rate,
            channels=spec.channels,
            window=spec.window or suited.window,
            batch=spec.batch if isinstance(spec.batch, int) else suited.batch,
            compute=spec.compute,
            accumulation_steps=accumulation_steps,
            losses=spec.losses,
            workers=spec.workers,
            freeze_encoder=spec.freeze_encoder,
        )

    def of_one_worker(self) -> StepConfig:
        """The part of the step that the busiest worker computes, as a step of its own."""
        return replace(self, batch=-(-self.batch // self.workers), workers=1)

    @cached_property
    def config_text(self) -> str:
        """The model's gin configuration, complete. Imports RAVE.

        Raises:
            ConfigurationError: an unknown configuration or override, or a value of another type than the one it replaces.
        """
        from rave_dist.rave.config import configure  # imported here: shapes are also read without RAVE

        return configure(self.config, self.override, sample_rate=self.sample_rate, channels=self.channels)
