"""Models of every kind that RAVE has, small, untrained, built in this process."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from rave_dist.rave.config import configure
from rave_dist.rave.exportable import OfflineRave, ScriptedRave
from rave_dist.rave.models import build_model, use_streaming
from rave_dist.registry.build import receptive_field

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
    "mel": (("hybrid",), {}, 1),
}


def _build(name: str, *, streaming: bool = False) -> Any:
    config, override, channels = CONFIGURATIONS[name]
    use_streaming(streaming)
    text = configure(config, {**SMALL, **override}, sample_rate=44100, channels=channels)
    torch.manual_seed(1)
    model = build_model(text, channels=channels).eval()
    model.decoder.set_warmed_up(True)  # v1 plays its noise from phase 2 on
    if name == "discrete":
        model.encoder.enabled = torch.tensor(1)
        for layer in model.encoder.rvq.layers:
            layer._codebook.embed.normal_().mul_(0.05)
            layer._codebook.inited.fill_(1)
    return model


@pytest.fixture
def build() -> Iterator[Callable[..., Any]]:
    """``build(name, streaming=False)``: a ``rave.RAVE`` in evaluation mode; equal weights for equal names."""
    torch.set_num_threads(1)
    yield _build
    use_streaming(False)


@dataclass(frozen=True)
class Exports:
    """Both exports of a kind of model, as a player gets them, and what RAVE's own forward pass made of ``sound``."""

    kind: str
    channels: int
    latent_size: int
    hop: int
    receptive_field: tuple[int, int]
    offline: Any
    streaming_file: bytes
    sound: Tensor
    stock: Tensor

    def stream(self) -> Any:
        """A streaming player that has heard nothing yet."""
        return torch.jit.load(io.BytesIO(self.streaming_file))


@pytest.fixture(scope="session")
def exports() -> Callable[[str], Exports]:
    """``exports(name)``; each kind is made once."""

    @functools.cache
    def make(kind: str) -> Exports:
        torch.set_num_threads(1)
        model = _build(kind)
        sound = drums(model.n_channels, 1 << 15)
        if kind == "spherical":
            sound = sound + 1e-3 * torch.cos(torch.arange(1 << 15) * 0.3)  # RAVE divides by zero in silence
        stock = _stock_forward(model, sound)
        module = OfflineRave(model)
        field = receptive_field(module)
        streaming = _compiled(ScriptedRave(_build(kind, streaming=True), streaming=True))
        use_streaming(False)
        offline = torch.jit.load(io.BytesIO(_compiled(module)))
        return Exports(kind, model.n_channels, model.latent_size, module.hop, field, offline, streaming, sound, stock)

    return make


@pytest.fixture(autouse=True)
def _run_as_loaded() -> Iterator[None]:
    """Small models run once or twice here: optimising them takes longer than running them."""
    with torch.jit.optimized_execution(False):
        yield


def _compiled(module: ScriptedRave) -> bytes:
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(module.eval()), file)
    return file.getvalue()


def drums(channels: int, samples: int, *, rows: int = 1) -> Tensor:
    """Tones and noise that strike and decay, with silence between."""
    generator = torch.Generator().manual_seed(3)
    time = torch.arange(samples) / 44100
    strikes = torch.exp(-20 * (time * 5 % 1)) * (time * 5 % 1 < 0.7)
    tone = torch.sin(2 * torch.pi * 220 * time) + 0.3 * torch.randn(rows, channels, samples, generator=generator)
    return 0.5 * strikes * tone


def _stock_forward(model: Any, x: Tensor) -> Tensor:
    """RAVE's own forward pass, where every random number that it draws is the middle of its distribution."""
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(torch, "randn_like", torch.zeros_like)
        patch.setattr(torch, "randn", lambda *shape: torch.zeros(*shape))
        patch.setattr(torch, "rand_like", lambda like: torch.full_like(like, 0.5))
        y: Tensor = model(x)
    return y[..., : x.shape[-1]]


@pytest.fixture(name="drums")
def drums_fixture() -> Callable[..., Tensor]:
    """``drums(channels, samples, rows=1)``."""
    return drums
