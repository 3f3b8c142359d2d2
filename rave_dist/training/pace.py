"""How long a step of each phase takes here: real steps of a model that is thrown away afterwards."""

from __future__ import annotations

import time
from collections.abc import Collection

import torch

from rave_dist.settings import ComputeOption
from rave_dist.training.schedule import Pace
from rave_dist.training.trial import Trial


def measure_pace(
    config_text: str,
    *,
    channels: int,
    window: int,
    batch: int,
    device: torch.device,
    compute: Collection[ComputeOption] = (),
    parts: int = 1,
) -> Pace:
    """Runs steps of both phases on noise; what does not fit the memory or the window fails here, in the first minute.

    Args:
        config_text: from `upstream.configure`.
        channels: audio channels.
        window: samples of a window.
        batch: windows of a step.
        device: where to compute.
        compute: ways to compute faster.
        parts: in how many parts a step is computed.

    Raises:
        ConfigurationError: the window is too short for the model.
        RuntimeError: the device's memory does not suffice.
    """
    trial = Trial(config_text, channels=channels, window=window, batch=batch, device=device, compute=compute, parts=parts)

    def seconds(steps: range) -> float:
        began = time.perf_counter()
        for step in steps:
            trial.step(step)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return (time.perf_counter() - began) / len(steps)

    # The first steps of a phase also pay for memory and for choosing algorithms.
    seconds(range(1))
    phase_1 = min(seconds(range(1)), seconds(range(1)))
    seconds(range(1, 1 + trial.cycle))
    return Pace(phase_1, seconds(range(1, 1 + trial.cycle)))
