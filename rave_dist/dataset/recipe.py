"""What ingest does to a recording: the parameters that decide a dataset's content."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from rave_dist.identity import content_id


@dataclass(frozen=True)
class Recipe:
    """Parameters of ingest.

    Attributes:
        sample_rate: of the dataset, in Hz.
        channels: of the dataset.
        silence_dbfs: nothing is heard where half the swing of a frame, peak to peak, stays below this.
        silence_seconds: shorter pauses are music.
        frame_seconds: the grain in which silence is looked for.
        keep_after_seconds: how much of a silence is kept after a sound, for its decay.
        keep_before_seconds: how much is kept before the next one, for its attack.
        version: raised when the code gives other samples for the same recording.
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
        """Audio of a frame."""
        return max(1, round(self.frame_seconds * self.sample_rate))
