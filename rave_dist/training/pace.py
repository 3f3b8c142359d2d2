"""How long a step of each phase takes here: real steps of a model that is thrown away afterwards."""

from __future__ import annotations

import time
from collections.abc import Collection

import torch

from rave_dist import upstream
from rave_dist.settings import ComputeOption
from rave_dist.training.schedule import Pace
from rave_dist.training.step import TrainingStep, check_window
from rave_dist.training.validation import set_receptive_field

_LEVEL = 0.1


def measure_pace(
    config_text: str, *, channels: int, window: int, batch: int, device: torch.device, compute: Collection[ComputeOption] = ()
) -> Pace:
    """Runs steps of both phases on noise; what does not fit the memory or the window fails here, in the first minute.

    Args:
        config_text: from `upstream.configure`.
        channels: audio channels.
        window: samples of a window.
        batch: windows of a step.
        device: where to compute.
        compute: ways to compute faster.

    Raises:
        ConfigurationError: the window is too short for the model.
        RuntimeError: the device's memory does not suffice.
    """
    model = upstream.build_model(config_text, channels=channels).to(device)
    set_receptive_field(model)
    check_window(model, window)
    training_step = TrainingStep(model, phase_1_steps=1, warmup_steps=1, device=device, compute=compute)
    cycle = int(model.update_discriminator_every)  # after so many steps of phase 2 both networks have had theirs

    def seconds(steps: range) -> float:
        began = time.perf_counter()
        for step in steps:
            training_step(_LEVEL * torch.randn(batch, channels, window, device=device), step)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return (time.perf_counter() - began) / len(steps)

    # The first steps of a phase also pay for memory and for choosing algorithms. Step 0 of a schedule is phase 1.
    seconds(range(1))
    phase_1 = min(seconds(range(1)), seconds(range(1)))
    seconds(range(1, 1 + cycle))
    return Pace(phase_1, seconds(range(1, 1 + cycle)))
