"""A model as a run has it, trained on noise for some steps and thrown away."""

from __future__ import annotations

from collections.abc import Collection

import torch

from rave_dist.options import ComputeOption
from rave_dist.rave.models import build_model
from rave_dist.rave.window import check_window
from rave_dist.training.evaluation.receptive_field import set_receptive_field
from rave_dist.training.step.training_step import TrainingStep

_LEVEL = 0.1


class ThrowawayRun:
    """A new model and its training step; step 0 is phase 1, all later ones phase 2.

    Args:
        config_text: from `configure`.
        channels: audio channels.
        window: samples of a window.
        batch: windows of a step.
        device: where to compute.
        compute: ways to compute faster.
        accumulation_steps: number of equal parts of the batch whose gradients are added up in a step.

    Raises:
        ConfigurationError: no such model, a window that is too short for it, or an option that the device does not have.
        RuntimeError: the device's memory does not suffice.
    """

    def __init__(
        self,
        config_text: str,
        *,
        channels: int,
        window: int,
        batch: int,
        device: torch.device,
        compute: Collection[ComputeOption] = (),
        accumulation_steps: int = 1,
    ) -> None:
        self._shape, self.device = (batch, channels, window), device
        self.model = build_model(config_text, channels=channels).to(device)
        set_receptive_field(self.model)
        check_window(self.model, window)
        self.training_step = TrainingStep(
            self.model, phase_1_steps=1, warmup_steps=1, device=device, compute=compute, accumulation_steps=accumulation_steps
        )
        self.cycle = int(self.model.update_discriminator_every)
        """After so many steps of phase 2 both networks have had theirs."""

    def step(self, number: int) -> None:
        """Does a step."""
        self.training_step(_LEVEL * torch.randn(self._shape, device=self.device), number)
