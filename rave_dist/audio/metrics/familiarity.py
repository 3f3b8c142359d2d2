"""How familiar a sound is to a model: its half seconds, compared with those of the model's training set.

A half second has features of two kinds: of each latent its mean and the logarithm of its spread, and of each of 12 mel bands
the mean and the spread of its level in dB. Latents alone do not suffice: the encoder of a small or young model ignores most of
a sound, and its latents then say nothing about the rest. The spreads tell noise, which is steady, from notes.

The distance d of a half second is the root of the mean square of its features, less the mean of the training set and whitened
by its covariance (P. C. Mahalanobis, 1936). The familiarity is ``1 / (1 + (d / reach)²)``, between 0 and 1, where the reach is
the distance of the 95th percentile of held-out audio: above 0.5 is what is as near as that, and 0.1 is three times as far away.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from rave_dist.audio.metrics.spectral import decibels, magnitudes, mel_bands
from rave_dist.audio.types import Audio
from rave_dist.records import OUT_OF_DEPTH, FamiliarityReference

MOST_LATENTS = 16
"""Latents that have features; those of a variational model are sorted, the most varied first."""

_BANDS, _WINDOW, _HOP = 12, 2048, 512
_REACH = 0.95
# Differences without meaning, however alike the training audio is: of a latent, relative to its deviation; of the logarithm
# of its spread; of a level in dB.
_LATENT_TOLERANCE, _SPREAD_TOLERANCE, _LEVEL_TOLERANCE = 0.1, 0.1, 1.0
_SHRINKAGE = 0.03  # of the correlations, which little audio overestimates
_LEAST_SPREAD = 0.01

Features = NDArray[np.float64]


def features(sound: Audio, latents: Audio, sample_rate: int) -> Features:
    """The features of a stretch, usually of half a second.

    Args:
        sound: [channels, samples] at the model's rate; several channels are averaged.
        latents: [latents, frames] of the same stretch.
        sample_rate: in Hz.
    """
    return np.concatenate([_of_latents(latents), _of_sound(sound, sample_rate)])


def reference(training: Sequence[Features], held_out: Sequence[Features], **seconds: float) -> FamiliarityReference:
    """The record of a model's training material.

    Args:
        training: features of half seconds of training audio.
        held_out: of audio that the model was not trained on.
        seconds: ``seconds`` and ``held_out_seconds`` of the record.
    """
    mean, covariance = np.mean(training, axis=0), np.cov(np.transpose(training), bias=True)
    rows = tuple(tuple(_rounded(row[: index + 1])) for index, row in enumerate(covariance))
    measured = FamiliarityReference(mean=tuple(_rounded(mean)), covariance=rows, reach=1, **seconds)
    reach = float(np.quantile(np.sqrt(_Distance(measured).squares(np.array(held_out))), _REACH))
    return measured.model_copy(update={"reach": float(f"{max(reach, 1e-3):.5g}")})


class Familiarity:
    """The familiarity of the consecutive half seconds of a stream, which does not depend on its blocks.

    Half second k begins at k / 2 seconds. One that the stream ends in is judged with the sound before it. In addition to the
    scores, a byte each, only what is not scored yet is held: samples of half a second, and features.

    Args:
        known: of the model's training material.
        sample_rate: of the model, in Hz.
        hop: samples per latent frame.
        width: channels of the model; each row of latents is of as many channels of the sound.

    Attributes:
        percent: the familiarities so far, 0 to 100.
    """

    def __init__(self, known: FamiliarityReference, *, sample_rate: int, hop: int, width: int) -> None:
        self.percent = bytearray()
        self._distance, self._reach = _Distance(known), known.reach
        self._rate, self._width = sample_rate, width
        self._sound, self._latents = _HalfSeconds(sample_rate), _HalfSeconds(sample_rate, hop)
        self._of_sound, self._of_latents = deque[Features](), deque[Features]()  # each half second [rows, features]
        self._samples = 0

    def of(self, blocks: Iterable[Audio]) -> Iterator[Audio]:
        """The blocks of the sound at the model's rate, [channels, n], each added before it is given."""
        for block in blocks:
            self._samples += block.shape[1]
            self._add_sound(self._sound.add(block))
            yield block

    def add_latents(self, latents: Audio) -> None:
        """Adds the latents of sound that was added before, [rows, latents, frames]."""
        self._add_rows(self._latents.add(latents))

    def finish(self) -> None:
        """Scores the half second that the stream ends in."""
        half_seconds = -(-2 * self._samples // self._rate)
        self._add_sound(self._sound.rest(half_seconds))
        self._add_rows(self._latents.rest(half_seconds))

    @property
    def facts(self) -> dict[str, object]:
        """The fields of a journal's entry."""
        low = sum(percent < 100 * OUT_OF_DEPTH for percent in self.percent)
        return {
            "familiarity": round(sum(self.percent) / 100 / max(1, len(self.percent)), 4),
            "out_of_depth_seconds": low / 2,
            "scores": "".join(f"{min(percent, 99):02d}" for percent in self.percent),
        }

    def _add_sound(self, half_seconds: Iterable[Audio]) -> None:
        for sound in half_seconds:
            rows = [sound[start : start + self._width] for start in range(0, len(sound), self._width)]
            self._of_sound.append(np.array([_of_sound(row, self._rate) for row in rows]))

    def _add_rows(self, half_seconds: Iterable[Audio]) -> None:
        self._of_latents.extend(np.array([_of_latents(row) for row in rows]) for rows in half_seconds)
        while self._of_latents and self._of_sound:
            found = np.concatenate([self._of_latents.popleft(), self._of_sound.popleft()], axis=1)
            square = float(self._distance.squares(found).mean()) / self._reach**2
            self.percent.append(round(100 / (1 + square)))


class _HalfSeconds:
    """Cuts a stream into half seconds, of samples or of frames; a frame belongs to every half second that it overlaps."""

    def __init__(self, rate: int, hop: int = 1) -> None:
        self._rate, self._hop = rate, hop
        self._held = np.zeros(0, np.float32)
        self._first = self._next = 0  # the first frame that is held, and the number of the next half second

    def add(self, block: Audio) -> Iterator[Audio]:
        """The half seconds that end in the next block, [..., n]."""
        held = np.concatenate([self._held, block], axis=-1) if self._held.size else block
        end = self._first + held.shape[-1]
        while (stop := self._frames(self._next + 1)) <= end:
            start = self._next * self._rate // 2 // self._hop
            yield np.ascontiguousarray(held[..., start - self._first : stop - self._first])
            self._next += 1
        past = max(self._first, min(self._next * self._rate // 2 // self._hop, end - self._frames(1)))
        self._held, self._first = held[..., past - self._first :], past

    def rest(self, number: int) -> Iterator[Audio]:
        """The last half second of the stream, if there are to be more of them than were given."""
        if self._next < number:
            yield np.ascontiguousarray(self._held[..., -self._frames(1) :])

    def _frames(self, number: int) -> int:
        """The number of frames that begin before the end of a number of half seconds."""
        return -(-(number * self._rate // 2) // self._hop)


class _Distance:
    """Squared distances from the training set, per feature."""

    def __init__(self, known: FamiliarityReference) -> None:
        size = len(known.mean)
        self._mean = np.array(known.mean)
        lower = np.zeros((size, size))
        lower[np.tril_indices(size)] = np.concatenate(known.covariance)
        variance = np.diag(lower).copy()
        covariance = (1 - _SHRINKAGE) * (lower + np.tril(lower, -1).T) + _SHRINKAGE * np.diag(variance)
        latents = size // 2 - _BANDS
        tolerance = np.repeat([_SPREAD_TOLERANCE, _LEVEL_TOLERANCE], [2 * latents, 2 * _BANDS])
        tolerance[:latents] = 1e-3 + _LATENT_TOLERANCE * np.sqrt(variance[:latents])
        self._inverse = np.linalg.inv(covariance + np.diag(np.square(tolerance)))

    def squares(self, found: Features) -> Features:
        """Input: [n, features]. Output: [n]."""
        off = found - self._mean
        return np.asarray(np.einsum("ni,ij,nj->n", off, self._inverse, off) / len(self._mean))


def _of_latents(latents: Audio) -> Features:
    values = latents[:MOST_LATENTS].astype(np.float64)
    return np.concatenate([values.mean(axis=-1), np.log(values.std(axis=-1) + _LEAST_SPREAD)])


def _of_sound(sound: Audio, sample_rate: int) -> Features:
    bands = mel_bands(sample_rate, _BANDS).T
    levels = [decibels(np.sqrt(np.square(magnitudes(channel, _WINDOW, _HOP)) @ bands)) for channel in sound]
    level = np.mean(levels, axis=0, dtype=np.float64)
    return np.concatenate([level.mean(axis=0), level.std(axis=0)])


def _rounded(values: Features) -> Iterator[float]:
    return (float(f"{value:.5g}") for value in values)
