"""Distance of an exported model's output from held-out audio, in familiar units, with reference values.

All held-out audio is converted by the exported file, and by the export of the best weights of phase 1 if the run continued
into phase 2. The references are silence and noise of the same loudness, which every model must beat, and MP3 at 64 kbit/s.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rave_dist.audio.metrics.loudness import loudness, loudness_deviation
from rave_dist.audio.metrics.pitch import pitch_deviation
from rave_dist.audio.metrics.spectral import mel_distance_db, peak_dbfs, spectral_distance_db
from rave_dist.audio.mp3_reference import through_mp3
from rave_dist.audio.types import Audio
from rave_dist.dataset.read import Segment
from rave_dist.extensions import METRICS
from rave_dist.options import DEFAULT_LATENT_NOISE
from rave_dist.rave.exportable_noise import place
from rave_dist.records import ExportRecord, Metrics

_CHUNK_SECONDS = 10.0
_SEED = 0


def measure_export(
    out: Path, exported: ExportRecord, segments: Sequence[Segment], *, sample_rate: int, further: Sequence[str] = ()
) -> dict[str, Metrics]:
    """The metrics of a model, of its best weights of phase 1, and of the references.

    Args:
        out: the export's folder.
        exported: its record.
        segments: held-out audio at the model's rate and with its channels; at least one.
        sample_rate: in Hz.
        further: names in `rave_dist.extensions.METRICS`.

    Returns:
        Metrics by the names of `rave_dist.records.ModelCard`.
    """
    sounds = [np.asarray(segment.pcm, np.float32) / np.float32(32768) for segment in segments]
    original = np.concatenate(sounds, axis=1)
    files = {"model": exported.offline, "phase_1": exported.phase_1}
    chunk = round(_CHUNK_SECONDS * sample_rate)
    answers = {name: _answer(out / file, sounds, exported, chunk=chunk) for name, file in files.items() if file is not None}
    noise = np.asarray(np.random.default_rng(_SEED).standard_normal(original.shape), np.float32)
    level = loudness(original, sample_rate) - loudness(noise, sample_rate)
    others = {
        **answers,
        "mp3": through_mp3(original, sample_rate),
        "noise": noise * np.float32(10 ** (level / 20)),
        "silence": np.zeros_like(original),
    }
    return {name: measure(original, other, sample_rate, further=further) for name, other in others.items()}


def measure(original: Audio, other: Audio, sample_rate: int, *, further: Sequence[str] = ()) -> Metrics:
    """Distance of two recordings, both [channels, samples]: spectra by channel, pitch of the channels' mean."""
    pairs = list(zip(original, other, strict=True))
    cents, kept = pitch_deviation(original.mean(0), other.mean(0), sample_rate)
    return Metrics(
        spectral_db=float(np.mean([spectral_distance_db(a, b) for a, b in pairs])),
        mel_db=float(np.mean([mel_distance_db(a, b, sample_rate) for a, b in pairs])),
        loudness_lu=loudness_deviation(original, other, sample_rate),
        peak_dbfs=peak_dbfs(np.rint(other * np.float32(32767)) / np.float32(32767)),
        pitch_cents=cents,
        pitch_kept=kept,
        seconds=original.shape[1] / sample_rate,
        further={METRICS[name].label: METRICS[name].measure(original, other, sample_rate) for name in further},
    )


def _answer(file: Path, sounds: Sequence[Audio], exported: ExportRecord, *, chunk: int) -> Audio:
    """All segments converted by one exported file, concatenated."""
    model = torch.jit.load(str(file), map_location="cpu").eval()  # type: ignore[no-untyped-call]
    return np.concatenate([_convert(model, sound, exported, chunk=chunk) for sound in sounds], axis=1)


def _convert(model: Any, sound: Audio, exported: ExportRecord, *, chunk: int) -> Audio:
    """Converts a segment in chunks with context; the samples are those of one piece."""
    hop = exported.hop
    left, right = (-(-samples // hop) * hop for samples in exported.receptive_field)
    whole = torch.from_numpy(np.pad(sound, ((0, 0), (0, -sound.shape[1] % hop))))[None]
    chunk = max(hop, chunk // hop * hop)
    parts = []
    with torch.no_grad():
        for start in range(0, whole.shape[-1], chunk):
            first, stop = max(0, start - left), min(start + chunk, whole.shape[-1])
            answer = model.convert(
                whole[..., first : min(stop + right, whole.shape[-1])], *place(first, _SEED), 1.0, DEFAULT_LATENT_NOISE
            )
            parts.append(answer[0, :, start - first : stop - first])
    return torch.cat(parts, -1)[:, : sound.shape[1]].numpy()
