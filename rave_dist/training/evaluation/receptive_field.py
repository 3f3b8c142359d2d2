"""The receptive field of a model's output samples, as RAVE measures it."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import torch

from rave_dist.rave.imports import rave_module
from rave_dist.training.evaluation.validation import SEED


def set_receptive_field(model: Any) -> tuple[int, int]:
    """Measures the receptive field of an output sample as RAVE does, and stores it in the model.

    RAVE crops its multiband distance by it from its first (sanity) validation on, so it must precede the first step. Mode,
    gradients and the global random state are restored. For two channels RAVE's measure mixes the sides; this is kept,
    because the crop depends on it.

    Returns:
        Samples to the left and to the right.
    """
    training = model.training
    gradients = [(parameter, parameter.grad) for parameter in model.parameters()]
    dtype = torch.get_default_dtype()
    devices = {parameter.device for parameter in model.parameters() if parameter.device.type == "cuda"}
    try:
        for parameter, _ in gradients:
            parameter.grad = None
        torch.set_default_dtype(next(model.parameters()).dtype)  # RAVE creates its probe in the default precision
        with torch.random.fork_rng(devices=list(devices)), contextlib.redirect_stdout(io.StringIO()):
            torch.manual_seed(SEED)
            left, right = rave_module("core").get_rave_receptive_field(model, n_channels=model.n_channels)
    finally:
        torch.set_default_dtype(dtype)
        model.train(training)
        for parameter, gradient in gradients:
            parameter.grad = gradient
    model.receptive_field.copy_(torch.tensor([left, right]))
    return left, right
