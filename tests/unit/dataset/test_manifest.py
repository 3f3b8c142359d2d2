"""Nothing changed, nothing read; one added, one read; the id is the content's."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest

from rave_dist.dataset.read import latest_manifest, load_manifest, read_segments
from rave_dist.dataset.recipe import Recipe
from rave_dist.errors import DatasetError


@pytest.fixture
def three(recordings, write, noise):
    for seed, name in enumerate("abc"):
        write(f"{name}.wav", noise(1.0 + seed, seed))
    return recordings


@pytest.fixture
def reingest(three, ingest_here):
    """Ingests the recordings again; returns the manifest and the names of those that were opened."""

    def run(store):
        read: list[str] = []
        return ingest_here(store, [three], read=read), read

    return run


def sound_of(store, manifest) -> list[bytes]:
    return [segment.pcm.tobytes() for segment in read_segments(store, manifest)]


def test_nothing_changed_nothing_read(any_store, three, write, ingest_here, reingest):
    write("silent.wav", np.zeros(44_100))
    (three / "text.wav").write_text("notes")
    first = ingest_here(any_store, [three])
    before = {entry.key: entry.tag for entry in any_store.list()}
    assert reingest(any_store) == (first, [])
    assert {entry.key: entry.tag for entry in any_store.list()} == before
    assert latest_manifest(any_store, "drum", "library") == first


def test_one_added_one_read_one_removed_none(any_store, three, write, noise, ingest_here, reingest):
    first = ingest_here(any_store, [three])
    write("d.wav", noise(0.5, 9))
    second, read = reingest(any_store)
    assert read == ["d.wav"]
    assert len(second.sources) == 4
    assert second.id != first.id
    assert {s.key for s in first.shards} < {s.key for s in second.shards}
    (three / "d.wav").unlink()
    third, read = reingest(any_store)
    assert read == []
    assert third.id == first.id
    assert sound_of(any_store, third) == sound_of(any_store, first)
    assert len(sound_of(any_store, load_manifest(any_store, "drum", second.id))) == 4


def test_a_changed_recording_is_read_again(local_store, three, write, noise, ingest_here, reingest):
    first = ingest_here(local_store, [three])
    write("b.wav", noise(2.0, 77))
    second, read = reingest(local_store)
    assert read == ["b.wav"]
    assert second.id != first.id
    np.testing.assert_array_equal(
        next(s.pcm for s in read_segments(local_store, second) if s.pcm.shape[1] == 88_200)[0], noise(2.0, 77)[:, 0]
    )


def test_names_and_folders_are_not_content(local_store, three, tmp_path, ingest_here):
    first = ingest_here(local_store, [three])
    parts = len(list(local_store.list("datasets/drum/shards")))
    shutil.move(three, tmp_path / "moved")
    (tmp_path / "moved" / "a.wav").rename(tmp_path / "moved" / "z.wav")
    os.utime(tmp_path / "moved" / "b.wav", (1, 1))
    second = ingest_here(local_store, [tmp_path / "moved"])
    assert second.id == first.id
    assert sound_of(local_store, second) == sound_of(local_store, first)
    assert len(list(local_store.list("datasets/drum/shards"))) == parts
    assert {os.path.basename(s.source) for s in second.sources} == {"z.wav", "b.wav", "c.wav"}


def test_the_order_of_segments_is_the_contents(tmp_path, local_store, three, noise, write, ingest_here):
    from rave_dist.storage.store import Store

    first = sound_of(local_store, ingest_here(local_store, [three]))
    for name, other in (("a", "y"), ("b", "x"), ("c", "w")):
        (three / f"{name}.wav").rename(three / f"{other}.wav")
    other_store = Store(str(tmp_path / "other"))
    assert sound_of(other_store, ingest_here(other_store, [three])) == first


def test_other_parameters_are_another_dataset_and_both_are_remembered(local_store, three, ingest_here, reingest):
    mono = ingest_here(local_store, [three])
    stereo = ingest_here(local_store, [three], Recipe(sample_rate=44_100, channels=2))
    assert stereo.id != mono.id
    assert read_segments(local_store, stereo)[0].pcm.shape[0] == 2
    assert latest_manifest(local_store, "drum", "library").id == stereo.id
    assert reingest(local_store) == (mono, [])
    assert latest_manifest(local_store, "drum", "library").id == mono.id


def test_a_duplicate_takes_the_place_of_a_removed_original(local_store, three, ingest_here, reingest):
    shutil.copy(three / "a.wav", three / "z.wav")
    first = ingest_here(local_store, [three])
    assert [r.reason for r in first.rejected] == [f"the same recording as {three}/a.wav"]
    assert first.seconds == pytest.approx(7.0)
    (three / "a.wav").unlink()
    second, read = reingest(local_store)
    assert read == []
    assert second.rejected == ()
    assert second.id == first.id
    assert sound_of(local_store, second) == sound_of(local_store, first)


def test_what_a_killed_ingest_left_is_not_trusted(local_store, three, ingest_here, reingest):
    first = ingest_here(local_store, [three])
    for entry in list(local_store.list("datasets/drum")):
        if "/shards/" not in entry.key:
            local_store.delete(entry.key)
    local_store.write_bytes("datasets/drum/shards/shard-0123456789ab.parquet", b"half a part")
    second, read = reingest(local_store)
    assert second.id == first.id
    assert len(read) == 3


def test_a_dataset_that_is_not_there(local_store):
    with pytest.raises(DatasetError, match="not ingested"):
        latest_manifest(local_store, "drum", "library")
    with pytest.raises(DatasetError, match="no dataset"):
        load_manifest(local_store, "drum", "0123456789ab")
    local_store.write_json("datasets/drum/0123456789ab/manifest.json", {"id": 1})
    with pytest.raises(DatasetError, match="not a dataset's manifest"):
        load_manifest(local_store, "drum", "0123456789ab")
