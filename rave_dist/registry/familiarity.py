"""What the training audio of a model is like, for its exported file: the reference for the familiarity of other sounds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rave_dist.audio.metrics.familiarity import Features, features, reference
from rave_dist.audio.types import Audio
from rave_dist.dataset.read import Segment
from rave_dist.options import DEFAULT_LATENT_NOISE
from rave_dist.rave.exportable_noise import place
from rave_dist.records import FamiliarityReference

_MOST_SECONDS = 120
_PIECE_SECONDS = 5
_STEPS = 4  # per half second
_SEED = 0


def spread(segments: Sequence[Segment], sample_rate: int) -> list[Segment]:
    """Pieces from all over some segments, of about two minutes together; all of them where they are shorter."""
    pieces = [piece for segment in segments for piece in _cut(segment, _PIECE_SECONDS * sample_rate)]
    total = sum(piece.pcm.shape[1] for piece in pieces)
    return pieces[:: max(1, -(-total // (_MOST_SECONDS * sample_rate)))]


def measure_familiarity(
    file: Path, training: Sequence[Segment], held_out: Sequence[Segment], *, hop: int, sample_rate: int
) -> FamiliarityReference:
    """The mean and covariance of the features of training audio, and the distances of held-out audio.

    Args:
        file: the offline export.
        training: audio at the model's rate and with its channels, at least one sample.
        held_out: the same that the model was not trained on.
        hop: samples per latent frame.
        sample_rate: in Hz.
    """
    model = torch.jit.load(str(file), map_location="cpu").eval()  # type: ignore[no-untyped-call]
    found: list[list[Features]] = []
    for segments in (training, held_out):
        pieces = (piece for segment in segments for piece in _cut(segment, _PIECE_SECONDS * sample_rate))
        found.append([each for piece in pieces for each in _features(model, piece, hop, sample_rate)])
    seconds = [sum(segment.pcm.shape[1] for segment in segments) / sample_rate for segments in (training, held_out)]
    return reference(*found, seconds=seconds[0], held_out_seconds=seconds[1])


def _cut(segment: Segment, length: int) -> Iterator[Segment]:
    for start in range(0, segment.pcm.shape[1], length):
        yield replace(segment, start=segment.start + start, pcm=segment.pcm[:, start : start + length])


def _features(model: Any, piece: Segment, hop: int, sample_rate: int) -> Iterator[Features]:
    """Those of overlapping half seconds, or of all where it is shorter."""
    sound: Audio = np.asarray(piece.pcm, np.float32) / np.float32(32768)
    x = torch.from_numpy(np.pad(sound, ((0, 0), (0, -sound.shape[1] % hop))))[None]
    with torch.inference_mode():
        latents = model.encode_at(x, *place(0, _SEED), DEFAULT_LATENT_NOISE)[0].numpy()
    half = sample_rate // 2
    for start in range(0, max(1, sound.shape[1] - half + 1), max(1, half // _STEPS)):
        stop = min(start + half, sound.shape[1])
        yield features(sound[:, start:stop], latents[:, start // hop : -(-stop // hop)], sample_rate)
