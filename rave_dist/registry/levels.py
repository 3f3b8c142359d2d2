"""Levels of a model's two exports for the same material, as they are played by default, with noise and latent noise.

Conversion and the streaming file are one instrument: both draw the noise that RAVE draws. The two levels in the card show it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rave_dist.options import DEFAULT_LATENT_NOISE
from rave_dist.rave.exportable_noise import place
from rave_dist.records import PlayedLevels


def played_levels(offline: Any, streaming: Any, sound: Tensor, delay: int) -> PlayedLevels:
    """The levels of a sound, of its conversion and of the streaming output.

    Args:
        offline: an `OfflineRave`, not yet compiled.
        streaming: a `ScriptedRave` of the same weights with cached convolutions, not yet compiled; its state is cleared.
        sound: [1, C, T].
        delay: samples by which the streaming output lags behind.
    """
    length, hop = sound.shape[-1], offline.hop
    padded = torch.nn.functional.pad(sound, (0, delay + -(length + delay) % hop))
    with torch.no_grad():
        converted = offline.convert(padded, *place(0, 0), 1.0, DEFAULT_LATENT_NOISE)[..., :length]
        streaming.forget()
        streamed = streaming.forward(padded)[..., delay : delay + length]
        streaming.forget()
    return PlayedLevels(source_db=_level(sound), converted_db=_level(converted), streaming_db=_level(streamed))


def _level(sound: Tensor) -> float | None:
    power = float(sound.double().square().mean())
    return 10 * float(torch.log10(torch.tensor(power, dtype=torch.float64))) if power > 0 else None
