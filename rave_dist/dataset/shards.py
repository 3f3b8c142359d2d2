"""PCM rows in Parquet, the storage of a dataset's audio.

A row is a contiguous part of one source: ``source_id``, ``start`` (in samples at the dataset's rate) and ``pcm``, int16
little-endian, planar [channels, samples]. A row group is a few rows; a part is a file of at most about 128 MiB, named after
its own bytes, so that the same rows are never stored twice and a part never changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rave_dist.audio.types import Pcm16
from rave_dist.errors import DatasetError, MissingKeyError, StoreError
from rave_dist.identity import ID_LENGTH, hash_file
from rave_dist.records import DatasetFolder, Shard
from rave_dist.storage.store import Store
from rave_dist.temporary import temporary_folder

ROW_SECONDS = 10
_SHARD_BYTES = 128 << 20
_GROUP_BYTES = 8 << 20
_SCHEMA = pa.schema([("source_id", pa.string()), ("start", pa.int64()), ("pcm", pa.binary())])


class ShardWriter:
    """Writes rows to shards in the store, with a few row groups in memory; a context manager.

    Args:
        store: of the shards.
        instrument: name of the instrument.
        sample_rate: of the rows, in Hz.

    Raises:
        StoreError: the store cannot be written.
        OSError: this machine's temporary folder cannot be.
    """

    def __init__(self, store: Store, instrument: str, sample_rate: int) -> None:
        self._store = store
        self._folder = DatasetFolder.shards(instrument)
        self._sample_rate = sample_rate
        self._temporary = ExitStack()
        self._path = Path(self._temporary.enter_context(temporary_folder("shard"))) / "shard.parquet"
        self._writer: Any = None
        self._rows: list[tuple[str, int, bytes]] = []
        self._held = self._written = self._samples = 0
        self._ids: dict[str, None] = {}
        self.shards: list[Shard] = []

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            if kind is None:
                self._close_shard()
            elif self._writer is not None:
                with suppress(OSError):  # a file that could not be written before cannot be written now
                    self._writer.close()
        finally:
            self._temporary.close()

    def write(self, source_id: str, start: int, pcm: Pcm16) -> None:
        """Adds a row, int16 [channels, samples]."""
        self._rows.append((source_id, start, np.ascontiguousarray(pcm, dtype="<i2").tobytes()))
        self._held += pcm.nbytes
        self._samples += pcm.shape[1]
        self._ids[source_id] = None
        if self._held >= _GROUP_BYTES:
            self._flush()
        if self._written >= _SHARD_BYTES:
            self._close_shard()

    def _flush(self) -> None:
        if not self._rows:
            return
        columns = zip(*self._rows, strict=True)
        table = pa.table([pa.array(c, f.type) for c, f in zip(columns, _SCHEMA, strict=True)], schema=_SCHEMA)
        if self._writer is None:
            # PCM does not compress, and its minimum and maximum mean nothing.
            self._writer = pq.ParquetWriter(
                self._path, _SCHEMA, compression="none", use_dictionary=False, write_statistics=["source_id", "start"]
            )
        self._writer.write_table(table)
        self._written += self._held
        self._rows, self._held = [], 0

    def _close_shard(self) -> None:
        self._flush()
        if self._writer is None:
            return
        self._writer.close()
        key = f"{self._folder}/shard-{hash_file(self._path)[:ID_LENGTH]}.parquet"
        self._store.upload(self._path, key)
        seconds = self._samples / self._sample_rate
        size = self._path.stat().st_size
        self.shards.append(Shard(key=key, source_ids=tuple(self._ids), bytes=size, seconds=seconds))
        self._path.unlink()
        self._writer = None
        self._written = self._samples = 0
        self._ids = {}


def read_rows(
    store: Store, shard: Shard, *, channels: int, wanted: Callable[[str, int], bool]
) -> Iterator[tuple[str, int, Pcm16]]:
    """Rows of a shard, read in row groups: source_id, start, int16 [channels, samples] (a view of the file's bytes).

    Args:
        store: of the shard.
        shard: the shard.
        channels: of the dataset.
        wanted: whether a row is needed, by its source_id and start.

    Raises:
        DatasetError: the shard is missing or damaged.
    """
    fix = "run ingest again, which writes missing shards"
    try:
        with store.open(shard.key) as opened, pq.ParquetFile(opened) as file:
            for group in range(file.num_row_groups):
                places = file.read_row_group(group, columns=["source_id", "start"]).to_pydict()
                rows = list(zip(places["source_id"], places["start"], strict=True))
                if not any(wanted(*row) for row in rows):
                    continue
                pcm = file.read_row_group(group, columns=["pcm"]).column(0)
                for index, row in enumerate(rows):
                    if wanted(*row):
                        yield *row, np.frombuffer(pcm[index].as_buffer(), dtype="<i2").reshape(channels, -1)
    except MissingKeyError as error:
        raise DatasetError("a shard of the dataset is missing", where=store.address(shard.key), fix=fix) from error
    except (pa.ArrowException, ValueError, OSError) as error:
        if isinstance(error, StoreError):
            raise
        raise DatasetError(f"a shard of the dataset is damaged ({error})", where=store.address(shard.key), fix=fix) from error
