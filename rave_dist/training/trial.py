"""A model as a run has it, trained on noise for some steps and thrown away."""

from __future__ import annotations

from collections.abc import Collection

import torch

from rave_dist import upstream
from rave_dist.settings import ComputeOption
from rave_dist.training.step import TrainingStep
from rave_dist.training.validation import set_receptive_field
from rave_dist.training.window import check_window

_LEVEL = 0.1


class Trial:
    """A new model and its training step; step 0 is phase 1, all later ones phase 2.

    Args:
        config_text: from `upstream.configure`.
        channels: audio channels.
        window: samples of a window.
        batch: windows of a step.
        device: where to compute.
        compute: ways to compute faster.
        parts: in how many parts a step is computed.

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
        parts: int = 1,
    ) -> None:
        self._shape, self.device = (batch, channels, window), device
        self.model = upstream.build_model(config_text, channels=channels).to(device)
        set_receptive_field(self.model)
        check_window(self.model, window)
        self.training_step = TrainingStep(
            self.model, phase_1_steps=1, warmup_steps=1, device=device, compute=compute, parts=parts
        )
        self.cycle = int(self.model.update_discriminator_every)
        """After so many steps of phase 2 both networks have had theirs."""

    def step(self, number: int) -> None:
        """Does a step."""
        self.training_step(_LEVEL * torch.randn(self._shape, device=self.device), number)
