"""Models of every kind that RAVE has, small, untrained, built in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from rave_dist import upstream

SMALL = {"CAPACITY": 4, "LATENT_SIZE": 8}
CODES = {"NOISE_AUGMENTATION": 4, "NUM_QUANTIZERS": 3, "CODEBOOK_SIZE": 32}
AUDIBLE_NOISE = {"blocks.NoiseGeneratorV2.noise_bands": 5}

CONFIGURATIONS: dict[str, tuple[tuple[str, ...], dict[str, Any], int]] = {
    "v1": (("v1",), {}, 1),
    "v2_small": (("v2_small",), AUDIBLE_NOISE, 1),
    "v2": (("v2",), {}, 1),
    "causal": (("v2", "causal"), {}, 1),
    "noise": (("v2", "noise"), {}, 1),
    "stereo": (("v2_small",), AUDIBLE_NOISE, 2),
    "v1_stereo": (("v1",), {}, 2),
    "wasserstein": (("v2", "wasserstein"), {"NOISE_AUGMENTATION": 4}, 1),
    "discrete": (("discrete",), CODES, 1),
    "unquantised": (("discrete",), CODES, 1),
    "spherical": (("v2", "spherical"), {}, 1),
    "raw": (("v2_nopqmf",), {}, 1),
    "v3": (("v3",), {}, 1),
}


@contextmanager
def _own_configuration() -> Iterator[None]:
    """Lends the process's one RAVE configuration to this block: what others hold is in force again afterwards."""
    held = list(upstream._active)
    with upstream._empty_gin():
        upstream._active.clear()
        try:
            yield
        finally:
            upstream._active[:] = held
            upstream.streaming(False)


@pytest.fixture
def build() -> Iterator[Callable[..., Any]]:
    """``build(name, streaming=False)``: a ``rave.RAVE`` in evaluation mode; equal weights for equal names."""
    torch.set_num_threads(1)
    with _own_configuration():

        def make(name: str, *, streaming: bool = False) -> Any:
            config, override, channels = CONFIGURATIONS[name]
            upstream.streaming(streaming)
            text = upstream.configure(config, {**SMALL, **override}, sample_rate=44100, channels=channels)
            torch.manual_seed(1)
            model = upstream.build_model(text, channels=channels).eval()
            model.decoder.set_warmed_up(True)  # v1 plays its noise from phase 2 on
            if name == "discrete":
                model.encoder.enabled = torch.tensor(1)
                for layer in model.encoder.rvq.layers:
                    layer._codebook.embed.normal_().mul_(0.05)
                    layer._codebook.inited.fill_(1)
            return model

        yield make
