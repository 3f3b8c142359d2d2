"""Records of datasets: which recordings, where their PCM is stored, and every second accounted for."""

from __future__ import annotations

from pydantic import Field

from rave_dist.records.base import Record
from rave_dist.records.folders import DatasetFolder


class Rejection(Record):
    """Seconds of a source that are not used, and why; ``unreadable`` when the file itself is damaged or no audio."""

    source: str
    seconds: float
    reason: str
    unreadable: bool = False


class SourceRecord(Record):
    """One recording as it was ingested. Levels are of the mapped, resampled PCM, full scale = 1.

    ``used_seconds`` plus the seconds of its rejections is ``seconds``. ``spans`` are the used stretches as
    [start, stop) in samples at the dataset's rate; the PCM rows of a span are contiguous.
    """

    source: str
    source_id: str
    fingerprint: str
    seconds: float
    used_seconds: float
    sample_rate: int
    channels: int
    format: str
    samples: int
    spans: tuple[tuple[int, int], ...]
    pcm_sha256: str
    peak: float
    rms: float
    dc: float
    clipped_samples: int
    warnings: tuple[str, ...] = ()
    rejections: tuple[Rejection, ...] = ()


class Shard(Record):
    """One Parquet file of PCM segments; its key is relative to the store."""

    key: str
    source_ids: tuple[str, ...]
    bytes: int
    seconds: float


class DatasetManifest(Record):
    """A dataset: which recordings, where their PCM lies, and every second accounted for.

    ``sources`` are the recordings of which something is used, ``unused`` those that could be opened and are rejected whole
    (kept so that they need not be read again), ``rejected`` every second that is not used, of both. ``recipe`` is the id of
    the parameters that made it.
    """

    id: str
    instrument: str
    sample_rate: int
    channels: int
    sources: tuple[SourceRecord, ...]
    rejected: tuple[Rejection, ...]
    shards: tuple[Shard, ...]
    used_seconds: float
    credit: dict[str, str] = Field(default_factory=dict)
    recipe: str = ""
    unused: tuple[SourceRecord, ...] = ()
    created_at: str

    @property
    def folder(self) -> DatasetFolder:
        """The dataset's folder in the store."""
        return DatasetFolder.of(self.instrument, self.id)

    @property
    def key(self) -> str:
        """The key of the dataset's folder."""
        return str(self.folder.root)

    @property
    def seconds(self) -> float:
        """All source seconds, used and rejected."""
        return self.used_seconds + sum(r.seconds for r in self.rejected)


class DatasetPointer(Record):
    """The dataset that a library uses of an instrument, and the last one of each recipe, by recipe id."""

    id: str
    recipes: dict[str, str] = Field(default_factory=dict)
