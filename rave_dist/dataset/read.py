"""Reading datasets: the manifest, and segments of PCM."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from rave_dist.audio.types import Pcm16
from rave_dist.errors import DamagedObjectError, DatasetError, MissingKeyError
from rave_dist.identity import content_id
from rave_dist.records import DatasetFolder, DatasetManifest, DatasetPointer
from rave_dist.storage.store import Store

if TYPE_CHECKING:
    from rave_dist.dataset.local_pcm import Put, StoredPcm


@dataclass(frozen=True)
class Segment:
    """A contiguous interval of one source.

    Attributes:
        source_id: id of the source in the manifest.
        start: position of its first sample in the source, at the dataset's rate.
        pcm: int16 [channels, samples], in memory or in a file.
    """

    source_id: str
    start: int
    pcm: Pcm16 | StoredPcm


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


def outline(manifest: DatasetManifest) -> list[Segment]:
    """The segments of a dataset, one per used interval, with silence that takes no memory in place of their audio.

    The order depends only on the content.
    """
    records = {record.source_id: record for record in manifest.sources}
    silence = np.int16(0)
    return [
        Segment(record.source_id, start, np.broadcast_to(silence, (manifest.channels, stop - start)))
        for record in sorted(records.values(), key=lambda record: record.pcm_sha256)
        for start, stop in record.spans
    ]


def read_segments(store: Store, manifest: DatasetManifest, segments: Sequence[Segment] | None = None) -> list[Segment]:
    """Audio of a dataset in memory.

    Args:
        store: of the dataset.
        manifest: the dataset.
        segments: parts of its `outline`; None for all of it.

    Raises:
        DatasetError: a shard is missing or damaged.
    """
    chosen = outline(manifest) if segments is None else segments
    audio = [np.empty(segment.pcm.shape, np.int16) for segment in chosen]

    def put(index: int, place: int, pcm: Pcm16) -> None:
        audio[index][:, place : place + pcm.shape[1]] = pcm

    _read(store, manifest, chosen, put)
    return [replace(segment, pcm=pcm) for segment, pcm in zip(chosen, audio, strict=True)]


def open_segments(store: Store, manifest: DatasetManifest, *, stop: Callable[[], bool] = lambda: False) -> list[Segment]:
    """All audio of a dataset, copied once to this machine's disk, where parts of it are read when they are needed.

    The segments and their samples are those of `read_segments`, the memory does not depend on their length.

    Args:
        store: of the dataset.
        manifest: the dataset.
        stop: called again and again during the copy.

    Raises:
        DatasetError: a shard is missing or damaged.
        StoreError: this machine's disk is full, or its cache cannot be written.
        isolated.Stopped: ``stop`` returned True.
    """
    from rave_dist.dataset.local_pcm import open_pcm  # imported here: manifests need no cache

    segments = outline(manifest)
    contents = {record.source_id: record.pcm_sha256 for record in manifest.sources}
    places = [[contents[segment.source_id], segment.start, segment.pcm.shape[1]] for segment in segments]
    pcm_id = content_id({"channels": manifest.channels, "segments": places})
    shapes = [segment.pcm.shape for segment in segments]
    pcm = open_pcm(pcm_id, shapes, lambda put: _read(store, manifest, segments, put), stop=stop)
    return [replace(segment, pcm=part) for segment, part in zip(segments, pcm, strict=True)]


def _read(store: Store, manifest: DatasetManifest, segments: Sequence[Segment], put: Put) -> None:
    """Reads the shards with audio of the segments once, in their order.

    Args:
        store: of the dataset.
        manifest: the dataset.
        segments: parts of its `outline`, in the order of their starts; those of a source do not overlap.
        put: takes the audio.

    Raises:
        DatasetError: a shard is missing or damaged.
    """
    from rave_dist.dataset.shards import ROW_SECONDS, read_rows  # imported here: manifests do not need Arrow

    of_sources: dict[str, list[int]] = defaultdict(list)
    for index, segment in enumerate(segments):
        of_sources[segment.source_id].append(index)
    starts = {source_id: [segments[index].start for index in indices] for source_id, indices in of_sources.items()}

    def overlapping(source_id: str, start: int, stop: int) -> Iterator[tuple[int, Segment]]:
        places = starts.get(source_id, [])
        for number in range(max(0, bisect_right(places, start) - 1), bisect_left(places, stop)):
            index = of_sources[source_id][number]
            if segments[index].start + segments[index].pcm.shape[1] > start:
                yield index, segments[index]

    def wanted(source_id: str, start: int) -> bool:
        return any(overlapping(source_id, start, start + ROW_SECONDS * manifest.sample_rate))

    missing = [segment.pcm.shape[1] for segment in segments]
    seen: set[tuple[str, int]] = set()
    for shard in manifest.shards:
        if not of_sources.keys() & set(shard.source_ids):
            continue
        for source_id, start, pcm in read_rows(store, shard, channels=manifest.channels, wanted=wanted):
            if (source_id, start) in seen:
                continue
            seen.add((source_id, start))
            stop = start + pcm.shape[1]
            for index, segment in overlapping(source_id, start, stop):
                first, last = max(start, segment.start), min(stop, segment.start + segment.pcm.shape[1])
                put(index, first - segment.start, pcm[:, first - start : last - start])
                missing[index] -= last - first
    incomplete = next((segment for segment, samples in zip(segments, missing, strict=True) if samples), None)
    if incomplete is not None:
        source = next(record.source for record in manifest.sources if record.source_id == incomplete.source_id)
        raise DatasetError(f"audio of {source} is missing", where=store.address(manifest.key), fix="run rave-dist ingest again")
