"""The parameters of ingest, which determine a dataset's content."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from rave_dist.identity import content_id


@dataclass(frozen=True)
class Recipe:
    """Parameters of ingest.

    Attributes:
        sample_rate: of the dataset, in Hz.
        channels: of the dataset.
        silence_dbfs: a frame is silent if half its peak-to-peak amplitude stays below this.
        silence_seconds: shorter pauses are kept.
        frame_seconds: the resolution of silence detection.
        keep_after_seconds: how much of a silence is kept after a sound, for its decay.
        keep_before_seconds: how much is kept before the next one, for its attack.
        version: incremented when the code gives different samples for the same recording.
    """

    sample_rate: int
    channels: int
    silence_dbfs: float = -66.0
    silence_seconds: float = 2.0
    frame_seconds: float = 0.02
    keep_after_seconds: float = 0.5
    keep_before_seconds: float = 0.25
    version: int = 1

    @property
    def id(self) -> str:
        """Short hash of all parameters."""
        return content_id(asdict(self))

    @property
    def frame(self) -> int:
        """Samples per frame."""
        return max(1, round(self.frame_seconds * self.sample_rate))
