"""Measures the duration of a step of each phase with a model that is discarded."""

from __future__ import annotations

import time

import torch

from rave_dist.training.preflight.throwaway_run import ThrowawayRun
from rave_dist.training.schedule import StepTimes


def measure_step_times(throwaway: ThrowawayRun) -> StepTimes:
    """Runs steps of both phases on noise; insufficient memory is detected here, in the first minute.

    Args:
        throwaway: with a new model, in the shapes of the run.

    Raises:
        RuntimeError: the device's memory does not suffice.
    """

    def seconds(steps: range) -> float:
        began = time.perf_counter()
        for step in steps:
            throwaway.step(step)
        if throwaway.device.type == "cuda":
            torch.cuda.synchronize(throwaway.device)
        return (time.perf_counter() - began) / len(steps)

    # The first steps of a phase also allocate memory and choose algorithms.
    seconds(range(1))
    phase_1 = min(seconds(range(1)), seconds(range(1)))
    seconds(range(1, 1 + throwaway.cycle))
    return StepTimes(phase_1, seconds(range(1, 1 + throwaway.cycle)))
