"""Reading datasets: the manifest, and segments of PCM."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from rave_dist.audio.types import Pcm16
from rave_dist.errors import DamagedObjectError, DatasetError, MissingKeyError
from rave_dist.records import DatasetFolder, DatasetManifest, DatasetPointer
from rave_dist.storage.store import Store


@dataclass(frozen=True)
class Segment:
    """A contiguous interval of one source.

    Attributes:
        source_id: id of the source in the manifest.
        start: position of its first sample in the source, at the dataset's rate.
        pcm: int16 [channels, samples].
    """

    source_id: str
    start: int
    pcm: Pcm16


def load_manifest(store: Store, instrument: str, dataset_id: str) -> DatasetManifest:
    """A dataset's manifest.

    Raises:
        DatasetError: there is no such dataset, or it was not written by this program.
    """
    key = DatasetFolder.of(instrument, dataset_id).manifest
    try:
        return DatasetManifest.load(store, key)
    except MissingKeyError as error:
        raise DatasetError(
            f"{instrument} has no dataset {dataset_id}", where=store.address(key), fix="run rave-dist ingest"
        ) from error
    except DamagedObjectError as error:
        raise DatasetError("not a dataset's manifest", where=store.address(key), fix="run rave-dist ingest") from error


def latest_manifest(store: Store, instrument: str, library: str) -> DatasetManifest:
    """The dataset of a library's last ingest of an instrument.

    Raises:
        DatasetError: it was never ingested, or the pointer is damaged.
    """
    pointer = DatasetPointer.find(store, DatasetFolder.latest(instrument, library))
    if pointer is None:
        raise DatasetError(f"{instrument} is not ingested yet", where=library, fix="run rave-dist ingest")
    return load_manifest(store, instrument, pointer.id)


def read_segments(store: Store, manifest: DatasetManifest) -> list[Segment]:
    """All audio of a dataset in memory, one segment per used interval; the order depends only on the content.

    Raises:
        DatasetError: a shard is missing or damaged.
    """
    from rave_dist.dataset.shards import read_rows  # imported here: manifests do not need Arrow

    records = {record.source_id: record for record in manifest.sources}
    rows: dict[str, dict[int, Pcm16]] = defaultdict(dict)
    for shard in manifest.shards:
        wanted = [source_id for source_id in shard.source_ids if source_id in records]
        for source_id, start, pcm in read_rows(store, shard, channels=manifest.channels, only=set(wanted)):
            rows[source_id][start] = pcm
    segments: list[Segment] = []
    for source_id, record in sorted(records.items(), key=lambda item: item[1].pcm_sha256):
        found = rows.pop(source_id, {})
        for start, stop in record.spans:
            pieces = [found[place] for place in sorted(found) if start <= place < stop]
            if sum(piece.shape[1] for piece in pieces) != stop - start:
                raise DatasetError(
                    f"audio of {record.source} is missing", where=store.address(manifest.key), fix="run rave-dist ingest again"
                )
            segments.append(Segment(source_id, start, np.concatenate(pieces, axis=1)))
    return segments
