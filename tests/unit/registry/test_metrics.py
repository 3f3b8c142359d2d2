from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rave_dist.dataset.read import Segment
from rave_dist.records import ExportRecord
from rave_dist.registry.metrics import measure, measure_export

pytestmark = pytest.mark.slow

RATE = 44100


def plucks(seconds: float, *, channels: int = 1) -> np.ndarray:
    time = np.arange(round(seconds * RATE)) / RATE
    wave = 0.5 * np.exp(-4 * (time * 2 % 1)) * np.sin(2 * np.pi * 330 * time)
    return np.repeat(wave[None], channels, axis=0).astype(np.float32)


class Echo(torch.nn.Module):
    """A model that is perfect, or a little quiet; it hears 700 samples back and 300 ahead, and needs whole frames."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.gain = gain

    @torch.jit.export
    def convert(self, x: Tensor, position: Tensor, seed: Tensor, noise: float, latent_noise: float) -> Tensor:
        assert x.shape[-1] % 512 == 0
        assert int(position[0]) % 512 == 0
        return self.gain * x

    def forward(self, x: Tensor) -> Tensor:
        return x


@dataclass(frozen=True)
class Exports:
    folder: Path

    def measured(self, gain: float, segments: list[Segment], *, phase_1: float | None = None) -> dict[str, Any]:
        torch.jit.script(Echo(gain)).save(str(self.folder / "echo.ts"))
        if phase_1 is not None:
            torch.jit.script(Echo(phase_1)).save(str(self.folder / "phase_1.ts"))
        told = {
            "offline": "echo.ts",
            "phase_1": None if phase_1 is None else "phase_1.ts",
            "streaming": "",
            "latents": 1,
            "latent_size": 1,
            "hop": 512,
            "receptive_field": (700, 300),
            "delay": 0,
        }
        exported = ExportRecord.model_validate(told)
        return measure_export(self.folder, exported, segments, sample_rate=RATE)


def segments(*seconds: float, channels: int = 1) -> list[Segment]:
    sounds = [plucks(length, channels=channels) for length in seconds]
    return [Segment(str(i), 0, (sound * 32767).astype(np.int16)) for i, sound in enumerate(sounds)]


@pytest.mark.parametrize("channels", [1, 2])
def test_a_perfect_model_is_at_no_distance_and_the_others_are_in_order(tmp_path: Path, channels: int) -> None:
    found = Exports(tmp_path).measured(1.0, segments(12.3, 0.7, channels=channels))
    assert set(found) == {"model", "mp3", "noise", "silence"}
    perfect = found["model"]
    assert (perfect.spectral_db, perfect.mel_db, perfect.loudness_lu) == pytest.approx((0, 0, 0), abs=1e-9)
    assert (perfect.pitch_cents, perfect.pitch_kept) == pytest.approx((0, 1))
    assert perfect.seconds == pytest.approx(13.0, abs=1e-4)
    for name in ("spectral_db", "mel_db", "loudness_lu"):
        assert 0 < getattr(found["mp3"], name) < getattr(found["noise"], name), name
        assert getattr(found["mp3"], name) < getattr(found["silence"], name), name
    assert found["mp3"].pitch_kept > 0.9
    assert found["mp3"].pitch_cents < 10
    assert found["noise"].pitch_kept == found["silence"].pitch_kept == 0
    assert found["silence"].loudness_lu > 20


def test_a_quiet_model_is_as_far_as_it_is_quiet(tmp_path: Path) -> None:
    quiet = Exports(tmp_path).measured(0.5, segments(3.0))["model"]
    assert quiet.loudness_lu == pytest.approx(6.02, abs=0.05)
    assert 3 < quiet.mel_db <= 6.03  # less where the floor is near
    assert quiet.pitch_cents == pytest.approx(0, abs=1e-6)


def test_both_phases_are_measured_alike(tmp_path: Path) -> None:
    sounds = segments(3.0, 0.7)
    both = Exports(tmp_path).measured(1.0, sounds, phase_1=0.5)
    assert set(both) == {"model", "phase_1", "mp3", "noise", "silence"}
    assert both["phase_1"] == Exports(tmp_path).measured(0.5, sounds)["model"]
    assert {name: both[name] for name in both if name != "phase_1"} == Exports(tmp_path).measured(1.0, sounds)


def test_a_sound_without_pitch_says_nothing_of_pitch() -> None:
    noise = 0.1 * np.random.default_rng(0).standard_normal((1, RATE)).astype(np.float32)
    found = measure(noise, noise, RATE)
    assert (found.pitch_cents, found.pitch_kept) == (None, None)
    assert found.spectral_db == 0
