"""The journal as a Parquet table: every source a row, read by pyarrow and by pandas, in constant memory."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

from rave_dist.audio.io.sources import AudioSource
from rave_dist.conversion import table as table_module
from rave_dist.conversion.corpus import Plan, Task, plan_conversion
from rave_dist.conversion.table import COLUMNS, GROUP_ROWS, read_table, write_table
from rave_dist.errors import MissingKeyError
from rave_dist.identity import hash_file
from rave_dist.records import ConversionItem, ConversionParameters, ConversionRecord
from rave_dist.storage.store import Store
from tests.sample_records import model_card

Convert = Callable[..., ConversionRecord]
DOCUMENT = Path(__file__).parents[3] / "docs" / "conversion.md"


@pytest.fixture
def converted(tmp_path: Path, local_store: Store, convert: Convert) -> tuple[Plan, ConversionRecord]:
    """Four recordings: too loud for the model, at a rate that FLAC cannot hold, with a name to escape, broken."""
    folder = tmp_path / "in"
    folder.mkdir()
    for name, level, rate in (("a.wav", 0.25, 16000), ("odd.wav", 0.01, 96001), ('ü "x", y.wav', 0.01, 16000)):
        soundfile.write(folder / name, np.full(1600, level), rate)
    (folder / "z.wav").write_text("not a sound")
    record = convert(folder, tmp_path / "out", kind="broken")
    card = model_card(name="broken", version="1")
    return plan_conversion(card, [str(folder)], str(tmp_path / "out"), ConversionParameters(format="flac")), record


def test_every_source_is_a_row_with_what_the_journal_says(
    converted: tuple[Plan, ConversionRecord], local_store: Store, tmp_path: Path
) -> None:
    plan, record = converted
    assert plan.id == record.id
    address = write_table(local_store, plan)
    assert address == f"{local_store.uri}/conversions/{record.id}/journal.parquet"
    rows = pq.read_table(address).to_pylist()
    assert [Path(row["source"]).name for row in rows] == ["a.wav", "odd.wav", "z.wav", 'ü "x", y.wav']
    loud, odd, broken, named = rows
    assert {row["model"] for row in rows} == {"broken@1"}
    assert [row["state"] for row in rows] == ["converted", "converted", "failed", "converted"]
    assert broken["output_sha256"] is None
    assert "not" in broken["reason"]
    assert broken["fix"]
    assert "over full scale" in loud["clipped"]
    assert "quieter" in loud["clipped_fix"]
    assert (loud["clipped_samples"], loud["clipped_seconds"], named["clipped"]) == (1600, 0.1, None)
    assert "65535" in odd["other_format"]
    for row in (loud, odd, named):
        assert row["source_sha256"] == hash_file(row["source"])
        assert row["output_sha256"] == hash_file(row["output"])
        assert row["seconds"] == soundfile.info(row["output"]).frames / soundfile.info(row["source"]).samplerate


def test_pandas_reads_it_as_a_frame(converted: tuple[Plan, ConversionRecord], local_store: Store) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_parquet(write_table(local_store, converted[0]))
    assert list(frame.columns) == [column.name for column in COLUMNS]
    assert frame.state.value_counts().to_dict() == {"converted": 3, "failed": 1}
    assert frame.seconds.sum() == pytest.approx(0.1 + 1600 / 96001 + 0.1)
    assert frame[frame.state == "failed"].output_sha256.isna().all()


def test_the_file_says_what_it_is_and_what_its_columns_mean(
    converted: tuple[Plan, ConversionRecord], local_store: Store
) -> None:
    schema = pq.read_schema(write_table(local_store, converted[0]))
    about = json.loads(schema.metadata[b"rave-dist"])
    assert (about["conversion"], about["model"]) == (converted[1].id, "broken@1")
    assert ConversionParameters.model_validate(about["parameters"]) == converted[1].parameters
    for field, column in zip(schema, COLUMNS, strict=True):
        assert field.metadata[b"description"].decode() == column.meaning


def test_the_document_has_every_column_with_its_meaning() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    rows = [f"| `{c.name}` | {str(c.kind).partition('<')[0]} | {c.meaning} |" for c in COLUMNS]
    assert "\n".join(rows) in text


def test_items_come_back_as_they_went_in(converted: tuple[Plan, ConversionRecord], local_store: Store) -> None:
    plan, _ = converted
    write_table(local_store, plan)
    again = list(read_table(local_store, plan.id))
    journal = [ConversionItem.load(local_store, plan.journal_key(task)) for task in plan.tasks]
    assert again == [item.model_copy(update={"source_fingerprint": "", "output_tag": ""}) for item in journal]


def test_each_way_of_converting_ends_with_the_table(
    converted: tuple[Plan, ConversionRecord], local_store: Store, tmp_path: Path
) -> None:
    assert [Path(item.source).name for item in read_table(local_store, converted[1].id)] == sorted(
        path.name for path in (tmp_path / "in").iterdir()
    )


def test_a_conversion_without_a_table_says_so(local_store: Store) -> None:
    with pytest.raises(MissingKeyError, match="nothing is stored there"):
        list(read_table(local_store, "0" * 12))


def _peak(path: Path, count: int) -> int:
    def items() -> object:
        for index in range(count):
            yield ConversionItem(
                source=f"/archive/{index:08}.wav",
                source_sha256=f"{index:064x}",
                output=f"/out/{index}.flac",
                state="converted",
            )

    tracemalloc.start()
    try:
        table_module._write(path, items(), model="m@1", about={})  # type: ignore[arg-type]
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_archive(tmp_path: Path) -> None:
    small, large = _peak(tmp_path / "small.parquet", 2 * GROUP_ROWS), _peak(tmp_path / "large.parquet", 8 * GROUP_ROWS)
    assert large < 1.2 * small
    file = pq.ParquetFile(tmp_path / "large.parquet")
    assert (file.num_row_groups, file.metadata.num_rows) == (8, 8 * GROUP_ROWS)


def test_rows_keep_the_order_of_the_sources_over_several_groups(
    local_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_module, "GROUP_ROWS", 7)
    tasks = tuple(Task(AudioSource(f"/in/{i}.wav", 1, "1-1", f"{i}.wav"), f"{i}.flac") for i in range(30))
    card = model_card()
    plan = Plan(
        id="0" * 12, card=card, parameters=ConversionParameters(format="flac"), output=Store(str(tmp_path / "out")), tasks=tasks
    )
    for task in tasks:
        if task.output != "11.flac":  # an entry that is missing is no row
            item = ConversionItem(source=task.source.name, source_sha256="", output=task.output, state="failed", reason="x")
            item.save(local_store, plan.journal_key(task))
    file = pq.ParquetFile(write_table(local_store, plan))
    assert file.read().column("output").to_pylist() == [f"{i}.flac" for i in range(30) if i != 11]
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [7, 7, 7, 7, 1]
