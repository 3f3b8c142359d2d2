"""Latents that follow something a listener knows."""

from __future__ import annotations

from pydantic import Field

from rave_dist.records.base import Record


class NamedLatent(Record):
    """A latent that follows loudness, pitch, brightness, noisiness or attack, measured on held-out audio.

    Attributes:
        latent: its number, from 1.
        correlation: with what it follows, -1 to 1; the sign is the latent's direction.
        deviation: its standard deviation, which is the unit of the effects.
        loudness_db: change of the output's power by one deviation, in the direction in which the name increases.
        centroid_octaves: likewise, of the centroid of the spectrum; None where no frame is audible.
        pitch_cents: likewise, the median over frames that have a pitch with and without the change; None if there are none.
    """

    latent: int = Field(ge=1)
    correlation: float = Field(ge=-1, le=1)
    deviation: float = Field(gt=0)
    loudness_db: float
    centroid_octaves: float | None = None
    pitch_cents: float | None = None

    @property
    def effect(self) -> str:
        """What one standard deviation does to the output, in words."""
        parts = [f"{self.loudness_db:+.1f} dB"]
        if self.centroid_octaves is not None:
            parts.append(f"{self.centroid_octaves:+.2f} octaves of brightness")
        if self.pitch_cents is not None:
            parts.append(f"{self.pitch_cents:+.0f} cents")
        return ", ".join(parts)
