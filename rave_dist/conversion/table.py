"""The journal of a conversion as one table, ``journal.parquet``: a row per source, for spreadsheets, notebooks and databases.

The journal itself is one small object per output, so that any number of workers may write it and a rerun resumes. The table is
written from it at the end of a conversion, in groups of rows, so that its memory does not depend on the number of files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rave_dist.conversion.corpus import Plan, read_entry
from rave_dist.identity import canonical_json
from rave_dist.records import ConversionFolder, ConversionItem, Problem
from rave_dist.storage.store import Store
from rave_dist.temporary import temporary_folder

GROUP_ROWS = 1_000
_READERS = 16  # entries read at once: from S3, each waits for an answer
_METADATA = b"rave-dist"


@dataclass(frozen=True)
class Column:
    """A column of the table: its name, its type and its meaning, which the file has as the field's metadata."""

    name: str
    kind: Any
    meaning: str

    @property
    def field(self) -> Any:
        """The column as a field of an Arrow schema; values may be null."""
        return pa.field(self.name, self.kind, metadata={"description": self.meaning})


COLUMNS: tuple[Column, ...] = (
    Column("source", pa.string(), "path or address of the recording"),
    Column("source_sha256", pa.string(), "hash of its bytes; null if it could not be read"),
    Column("output", pa.string(), "path or address of the result; for a failed source, where it would be"),
    Column("output_sha256", pa.string(), "hash of the result's bytes; null if there is none"),
    Column("state", pa.string(), "converted, salvaged (the readable part of a damaged recording) or failed"),
    Column("reason", pa.string(), "why it failed, or the damage of a salvaged recording; else null"),
    Column("fix", pa.string(), "what to do about it; else null"),
    Column("seconds", pa.float64(), "length of the result"),
    Column("clipped", pa.string(), "set if the result is clipped and the recording is not: what was measured; else null"),
    Column("clipped_fix", pa.string(), "what to do about it; else null"),
    Column("clipped_samples", pa.int64(), "samples of all channels that were limited to full scale"),
    Column("clipped_seconds", pa.float64(), "time at which any channel was"),
    Column("over_db", pa.float64(), "by how much the loudest of them was over full scale"),
    Column("silent", pa.string(), "set if the result is silent and the recording is not: what was measured; else null"),
    Column("silent_fix", pa.string(), "what to do about it; else null"),
    Column(
        "familiarity",
        pa.float64(),
        "how familiar the recording is to the model: mean over half seconds, 0 to 1; null if unknown",
    ),
    Column("out_of_depth_seconds", pa.float64(), "time with a familiarity below 0.5"),
    Column("scores", pa.string(), "familiarity of each half second in percent, two digits each; null if unknown"),
    Column("other_format", pa.string(), "why the result is a WAV file in the place of FLAC; else null"),
    Column("pitch_cents", pa.float64(), "median deviation of the pitch in cents; null without a pitch in both"),
    Column(
        "pitch_kept", pa.float64(), "share of the recording's frames with a pitch that have one in the result; null without any"
    ),
    Column("onset_f_measure", pa.float64(), "F-measure of the onsets, within 50 ms; null if the recording has none"),
    Column("notes", pa.list_(pa.string()), "remarks about an intact recording: a wrong header, further tracks"),
    Column("carried", pa.list_(pa.string()), "metadata that the result has: kinds of chunks, and names of tags"),
    Column("not_carried", pa.list_(pa.string()), "metadata of the recording that the result does not have, and why"),
    Column("model", pa.string(), "NAME@VERSION of the model, the same in every row"),
)
"""The columns, in order."""

SCHEMA = pa.schema([column.field for column in COLUMNS])


def journal(store: Store, plan: Plan) -> Iterator[ConversionItem]:
    """The entries of a plan's tasks, in their order; tasks without one are left out.

    Raises:
        StoreError: the store cannot be read.
    """
    tasks = iter(plan.tasks)
    with ThreadPoolExecutor(_READERS) as pool:
        while batch := list(islice(tasks, GROUP_ROWS)):
            yield from (entry for entry in pool.map(partial(read_entry, store, plan), batch) if entry is not None)


def write_table(store: Store, plan: Plan) -> str:
    """Writes the journal's table from the entries of a plan's tasks.

    Returns:
        Its address.

    Raises:
        StoreError: the store cannot be read or written.
        OSError: this machine's temporary folder cannot be.
    """
    key = plan.folder.table
    about = {
        "conversion": plan.id,
        "model": plan.card.reference,
        "parameters": plan.parameters.to_json(),
        "output": plan.output.uri,
    }
    with temporary_folder("table") as folder:
        path = Path(folder) / "journal.parquet"
        _write(path, journal(store, plan), model=plan.card.reference, about=about)
        store.upload(path, key)
    return store.address(key)


def read_table(store: Store, conversion_id: str) -> Iterator[ConversionItem]:
    """The items of a conversion's table, in constant memory; without the fingerprints that a rerun compares.

    Raises:
        MissingKeyError: the conversion has no table.
        StoreError: the store cannot be read.
    """
    with store.open(ConversionFolder.of(conversion_id).table) as file:
        for batch in pq.ParquetFile(file).iter_batches(batch_size=GROUP_ROWS):
            yield from map(_item, batch.to_pylist())


def _write(path: Path, items: Iterable[ConversionItem], *, model: str, about: dict[str, Any]) -> None:
    rows = (_row(item, model) for item in items)
    schema = SCHEMA.with_metadata({_METADATA: canonical_json(about)})
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        while group := list(islice(rows, GROUP_ROWS)):
            writer.write_table(_arrow(group, schema), row_group_size=GROUP_ROWS)


def _arrow(rows: Sequence[dict[str, Any]], schema: Any) -> Any:
    return pa.Table.from_pylist(rows, schema=schema)


def _row(item: ConversionItem, model: str) -> dict[str, Any]:
    shared = {name: getattr(item, name) for name in SCHEMA.names if name in ConversionItem.model_fields}
    lists = {name: list(getattr(item, name)) for name in ("notes", "carried", "not_carried")}
    row: dict[str, Any] = {**shared, **lists, "model": model}
    for name in ("clipped", "silent"):
        problem: Problem | None = getattr(item, name)
        row |= {name: problem and problem.what, f"{name}_fix": problem and problem.fix}
    return {name: None if value == "" else value for name, value in row.items()}


def _item(row: dict[str, Any]) -> ConversionItem:
    problems = {
        name: None if row[name] is None else Problem(what=row[name], fix=row[f"{name}_fix"] or "")
        for name in ("clipped", "silent")
    }
    empty = {name: "" for name in ("source_sha256", "fix", "scores") if row[name] is None}
    return ConversionItem.model_validate({**row, **problems, **empty})
