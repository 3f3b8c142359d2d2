"""A model like that of a run, trained on noise for some steps and discarded."""

from __future__ import annotations

import torch

from rave_dist.rave.models import build_model
from rave_dist.rave.step_config import StepConfig
from rave_dist.rave.window import check_window
from rave_dist.training.evaluation.receptive_field import set_receptive_field
from rave_dist.training.step.training_step import TrainingStep

_LEVEL = 0.1


class ThrowawayRun:
    """A new model and its training step; step 0 is phase 1, all later ones phase 2.

    Args:
        config: the step.
        device: of the model.

    Raises:
        ConfigurationError: an invalid configuration or window, or an option that the device does not support.
        RuntimeError: the device's memory does not suffice.
    """

    def __init__(self, config: StepConfig, *, device: torch.device) -> None:
        self._shape, self.device = (config.batch, config.channels, config.window), device
        self.model = build_model(config.config_text, channels=config.channels).to(device)
        set_receptive_field(self.model)
        check_window(self.model, config.window)
        self.training_step = TrainingStep(
            self.model,
            phase_1_steps=1,
            warmup_steps=1,
            device=device,
            compute=config.compute,
            accumulation_steps=config.accumulation_steps,
            losses=config.losses,
            freeze_encoder=config.freeze_encoder,
        )
        self.cycle = int(self.model.update_discriminator_every)
        """Number of steps of phase 2 that train both networks."""

    def step(self, number: int) -> None:
        """Runs a step."""
        self.training_step(_LEVEL * torch.randn(self._shape, device=self.device), number)
