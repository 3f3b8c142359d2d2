"""Records of datasets: recordings, the keys of their PCM, and the use of every second."""

from __future__ import annotations

from pydantic import Field

from rave_dist.records.base import Record
from rave_dist.records.folders import DatasetFolder
from rave_dist.records.passed_over import PassedOver


class Rejection(Record):
    """Unused seconds of a source, with the reason; ``unreadable`` if the file is damaged or not audio."""

    source: str
    seconds: float
    reason: str
    unreadable: bool = False


class SourceRecord(Record):
    """One ingested recording; levels are those of the mapped, resampled PCM, full scale 1.

    ``used_seconds`` plus the seconds of its rejections is ``seconds``, which includes what is missing of a truncated file.
    ``gain`` is the factor that its samples were multiplied by, 1 unless it exceeds full scale. ``reader`` is the version of the
    code that read it. ``spans`` are the used intervals [start, stop) in
    samples at the dataset's rate; the PCM rows of a span are contiguous.
    """

    source: str
    source_id: str
    fingerprint: str
    reader: int = 0
    seconds: float
    used_seconds: float
    sample_rate: int
    channels: int
    format: str
    gain: float = 1.0
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
    """A dataset: its recordings, the keys of their PCM, and the use of every second.

    ``sources`` are the recordings that are used, at least in part; ``unused`` those that could be opened but are rejected
    completely (kept so that they are not read again); ``rejected`` lists all unused seconds of both. ``passed_over`` counts the
    files and folders that are no sources; ``notes`` are remarks about the patterns. ``recipe`` is the id of the parameters.
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
    passed_over: tuple[PassedOver, ...] = ()
    notes: tuple[str, ...] = ()
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
    def warnings(self) -> tuple[tuple[str, str], ...]:
        """Recordings that are used, with the warnings about them."""
        return tuple((record.source, warning) for record in self.sources for warning in record.warnings)

    @property
    def seconds(self) -> float:
        """Total seconds of the sources, used and rejected."""
        return self.used_seconds + sum(r.seconds for r in self.rejected)


class DatasetPointer(Record):
    """The current dataset of an instrument in a library, and the last one of each recipe, by recipe id."""

    id: str
    recipes: dict[str, str] = Field(default_factory=dict)
