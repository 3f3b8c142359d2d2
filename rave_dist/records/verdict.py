"""A verdict on a published model, from its distances to held-out audio.

The bounds are stated here once, in the units of `rave_dist.records.Metrics`. They say what a listener would notice; no figure
replaces listening.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final, Literal

from rave_dist.records.base import Record

if TYPE_CHECKING:
    from rave_dist.records.model import Metrics

VerdictWord = Literal["playable", "sketch", "no better than noise", "silent"]

SILENT_PEAK_DBFS: Final = -72.0
"""A peak of 8 steps of 16 bits; below it an output is inaudible at any usual volume."""

PLAYABLE_SHARE: Final = 0.5
"""Of the spectral distance of noise or silence, whichever is nearer to the original."""

PLAYABLE_LOUDNESS_LU: Final = 6.0
"""Half or twice the amplitude; beyond it, soft and loud strokes are confused."""

SKETCH_LOUDNESS_LU: Final = 24.0
"""A sixteenth of the amplitude; beyond it strokes and pauses differ by little, as in a faint steady noise."""

PLAYABLE_CENTS: Final = 100.0
"""A semitone; applies where the held-out audio is voiced and the model keeps its voiced frames."""

PLAYABLE_KEPT: Final = 0.5
"""Share of the voiced frames that must remain voiced."""

_REFERENCES = ("noise", "silence")


class Verdict(Record):
    """How good a model is, in one word, and what prevents a better one.

    Args:
        word: ``silent``, ``no better than noise``, ``sketch`` or ``playable``.
        reasons: measured values with their bounds; empty if it is playable.
    """

    word: VerdictWord
    reasons: tuple[str, ...] = ()

    @property
    def is_usable(self) -> bool:
        """Whether the model's output follows its input at all."""
        return self.word in ("playable", "sketch")

    def __str__(self) -> str:
        return f"{self.word}: {'; '.join(self.reasons)}" if self.reasons else self.word


def verdict_of(metrics: Mapping[str, Metrics]) -> Verdict | None:
    """The verdict on a model; None if it was not measured.

    Args:
        metrics: by the names of `rave_dist.records.ModelCard`; the references must be among them.
    """
    model = metrics.get("model")
    references = [metrics[name] for name in _REFERENCES if name in metrics]
    if model is None or not references:
        return None
    if model.peak_dbfs < SILENT_PEAK_DBFS:
        level = "digital silence" if model.peak_dbfs <= -120 else f"a peak of {model.peak_dbfs:.0f} dBFS"
        return Verdict(word="silent", reasons=(f"it answers all held-out audio with {level}",))
    nearest = min(reference.spectral_db for reference in references)
    nearest_mel = min(reference.mel_db for reference in references)
    if model.spectral_db >= nearest or model.mel_db >= nearest_mel:
        reason = f"{model.spectral_db:.1f} dB from the originals in spectrum, where noise or silence has {nearest:.1f} dB"
        return Verdict(word="no better than noise", reasons=(reason,))
    if model.loudness_lu > SKETCH_LOUDNESS_LU:
        reason = f"{model.loudness_lu:.1f} LU from the originals' loudness (sketch: {SKETCH_LOUDNESS_LU:.0f})"
        return Verdict(word="no better than noise", reasons=(reason,))
    reasons = tuple(_shortcomings(model, nearest))
    return Verdict(word="sketch" if reasons else "playable", reasons=reasons)


def _shortcomings(model: Metrics, nearest: float) -> Iterator[str]:
    """What separates a model from a playable one."""
    most = PLAYABLE_SHARE * nearest
    if model.spectral_db > most:
        yield f"{model.spectral_db:.1f} dB from the originals in spectrum (playable: {most:.1f})"
    if model.loudness_lu > PLAYABLE_LOUDNESS_LU:
        yield f"{model.loudness_lu:.1f} LU from their loudness (playable: {PLAYABLE_LOUDNESS_LU:.0f})"
    if model.pitch_kept is not None and model.pitch_kept < PLAYABLE_KEPT:
        yield f"{100 * model.pitch_kept:.0f} % of the pitched frames are kept (playable: {100 * PLAYABLE_KEPT:.0f})"
    if model.pitch_cents is not None and model.pitch_cents > PLAYABLE_CENTS:
        yield f"{model.pitch_cents:.0f} cents from their pitch (playable: {PLAYABLE_CENTS:.0f})"
