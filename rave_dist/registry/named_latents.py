"""Names of latents: what each follows in held-out audio, and how far one standard deviation of it moves the output.

A latent is named where the absolute value of its correlation with a feature is at least `LEAST_CORRELATION`; a name has one
latent and a latent one name, the highest correlations first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rave_dist.audio.metrics.features import features
from rave_dist.audio.types import Audio
from rave_dist.dataset.read import Segment
from rave_dist.rave.exportable_noise import place
from rave_dist.records import NamedLatent

LEAST_CORRELATION = 0.5
"""Of a latent with a feature, so that the latent is named by it."""

LEAST_FRAMES = 100
"""With fewer frames a high correlation may be chance."""

_PIECE_SECONDS, _MOST_PIECES = 10, 6
_SEED = 0


def name_latents(file: Path, segments: Sequence[Segment], *, sample_rate: int, hop: int) -> dict[str, NamedLatent]:
    """The named latents of an offline export.

    Args:
        file: the export.
        segments: held-out audio at the model's rate and with its channels, of which at most a minute is used.
        sample_rate: in Hz.
        hop: samples per latent frame.
    """
    length = max(1, _PIECE_SECONDS * sample_rate // hop) * hop
    sounds = [np.asarray(segment.pcm) for segment in segments]
    pieces = [sound[:, i : i + length] for sound in sounds for i in range(0, sound.shape[1], length)]
    whole = [piece[:, : piece.shape[1] // hop * hop] for piece in pieces if piece.shape[1] >= hop]
    used = [np.asarray(piece, np.float32) / np.float32(32768) for piece in whole[:: max(1, -(-len(whole) // _MOST_PIECES))]]
    if not used:
        return {}
    model = torch.jit.load(str(file), map_location="cpu").eval()  # type: ignore[no-untyped-call]
    with torch.inference_mode():
        encoded = [model.encode_at(torch.from_numpy(piece)[None], *place(0, _SEED), 0.0) for piece in used]
        latents = torch.cat(encoded, -1)[0].double().numpy()
        named = followed(latents, _features(used, sample_rate, hop))
        if not named:
            return {}
        plain = [_play(model, z) for z in encoded]
        found = {}
        for name, (number, correlation) in named.items():
            deviation = float(latents[number].std())
            moved = [_moved(z, number, np.copysign(deviation, correlation)) for z in encoded]
            effect = _effect(plain, [_play(model, z) for z in moved], sample_rate, hop)
            found[name] = NamedLatent(latent=number + 1, correlation=correlation, deviation=deviation, **effect)
    return found


def followed(latents: NDArray[np.float64], measured: Mapping[str, NDArray[np.float64]]) -> dict[str, tuple[int, float]]:
    """The latent that follows each feature, counted from 0, and its correlation; a feature that none follows is left out.

    Input: latents [L, F], and features [F] each, NaN where a frame has none.
    """
    pairs = []
    for name, feature in measured.items():
        defined = np.isfinite(feature)
        if defined.sum() < LEAST_FRAMES or not feature[defined].std() > 0:
            continue
        for number, latent in enumerate(latents[:, defined]):
            if latent.std() > 0:
                pairs.append((float(np.clip(np.corrcoef(latent, feature[defined])[0, 1], -1, 1)), name, number))
    found: dict[str, tuple[int, float]] = {}
    for correlation, name, number in sorted(pairs, key=lambda pair: -abs(pair[0])):
        taken = {latent for latent, _ in found.values()}
        if abs(correlation) >= LEAST_CORRELATION and name not in found and number not in taken:
            found[name] = (number, correlation)
    return found


def _moved(z: torch.Tensor, number: int, by: float) -> torch.Tensor:
    moved = z.clone()
    moved[:, number] += by
    return moved


def _play(model: Any, z: torch.Tensor) -> Audio:
    """Without latent noise, and with the same noise for every change."""
    return np.asarray(model.decode_at(z, *place(0, _SEED), 1.0, 0.0)[0].numpy(), dtype=np.float32)


def _features(sounds: Sequence[Audio], sample_rate: int, hop: int) -> dict[str, NDArray[np.float64]]:
    each = [features(sound, sample_rate, hop) for sound in sounds]
    return {name: np.concatenate([one[name] for one in each]) for name in each[0]}


def _effect(plain: Sequence[Audio], moved: Sequence[Audio], sample_rate: int, hop: int) -> dict[str, Any]:
    """The fields of `NamedLatent` that say what a change does."""
    power = [sum(float(np.square(sound, dtype=np.float64).sum()) for sound in sounds) for sounds in (plain, moved)]
    before, after = (_features(sounds, sample_rate, hop) for sounds in (plain, moved))
    octaves = {name: after[name] - before[name] for name in ("brightness", "pitch")}
    both = {name: change[np.isfinite(change)] for name, change in octaves.items()}
    return {
        "loudness_db": float(10 * np.log10((power[1] + 1e-12) / (power[0] + 1e-12))),
        "centroid_octaves": float(both["brightness"].mean()) if len(both["brightness"]) else None,
        "pitch_cents": 1200 * float(np.median(both["pitch"])) if len(both["pitch"]) else None,
    }
