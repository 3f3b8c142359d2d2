"""Every second of every source is used, or stands in the manifest with a reason."""

from __future__ import annotations

import os
import resource
import tempfile
import tracemalloc

import numpy as np
import pytest
import soundfile

from rave_dist.audio.io.sources import list_sources
from rave_dist.dataset import prepare, shards
from rave_dist.dataset.read import read_segments
from rave_dist.dataset.recipe import Recipe
from rave_dist.errors import DatasetError, StoreError
from rave_dist.storage.store import Store


def reasons(manifest) -> dict[str, tuple[float, str]]:
    return {os.path.basename(r.source): (round(r.seconds, 3), r.reason) for r in manifest.rejected}


def test_samples_come_back_as_they_were_recorded(any_store, recordings, write, noise, ingest_here):
    sounds = {f"{i}.wav": noise(seconds, seed=i) for i, seconds in enumerate([0.0001, 0.3, 1.0, 25.0])}
    for name, sound in sounds.items():
        write(name, sound)
    manifest = ingest_here(any_store, [recordings])
    segments = read_segments(any_store, manifest)
    names = {record.source_id: os.path.basename(record.source) for record in manifest.sources}
    assert {names[s.source_id] for s in segments} == set(sounds)
    for segment in segments:
        np.testing.assert_array_equal(segment.pcm, sounds[names[segment.source_id]].T)
    assert manifest.rejected == ()
    assert manifest.used_seconds == pytest.approx(26.3001, abs=1e-4)


def test_rates_and_channels_are_the_datasets(local_store, recordings, write, noise, ingest_here):
    time = np.arange(48_000) / 48_000
    tone = 0.5 * np.sin(2 * np.pi * 1000 * time)
    write("tone.wav", np.stack([tone, tone / 2], axis=1), 48_000)
    (segment,) = read_segments(local_store, ingest_here(local_store, [recordings], Recipe(sample_rate=16_000, channels=2)))
    assert segment.pcm.shape == (2, 16_000)
    heard = segment.pcm[:, 1000:15_000] / 2**15
    expected = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(1000, 15_000) / 16_000)
    assert np.abs(heard - np.stack([expected, expected / 2])).max() < 1e-3


def test_every_kind_of_bad_file_is_named_and_the_others_are_used(local_store, recordings, write, noise, ingest_here):
    write("good.wav", noise(2.0, seed=1))
    write("same.flac", noise(2.0, seed=1))
    write("cut.wav", noise(3.0, seed=2))
    (recordings / "cut.wav").write_bytes((recordings / "cut.wav").read_bytes()[:88_244])
    write("silent.wav", np.zeros((88_200, 1), np.int16))
    write("none.wav", np.zeros((0, 1), np.int16))
    write("nan.wav", np.where(np.arange(44_100) == 5, np.nan, 0.1), subtype="FLOAT")
    (recordings / "empty.wav").touch()
    (recordings / "text.wav").write_text("notes")
    gap = np.concatenate([noise(1.0, seed=3), np.zeros((44_100 * 5, 1), np.int16), noise(1.0, seed=4)])
    write("gap.wav", gap)

    manifest = ingest_here(local_store, [recordings])
    found = reasons(manifest)
    assert found == {
        "same.flac": (2.0, f"the same recording as {recordings}/good.wav"),
        "cut.wav": (2.0, "truncated: only 1.000 s of 3.000 s can be read"),
        "silent.wav": (2.0, "silent throughout: nothing above -66 dBFS"),
        "none.wav": (0.0, "contains no samples"),
        "nan.wav": (0.0, "1 NaN or infinite samples, the first at 0.000 s"),
        "empty.wav": (0.0, "the file is empty"),
        "text.wav": (0.0, "not a recording but a text"),
        "gap.wav": (4.25, "silence from 0:01.500 to 0:05.750: nothing above -66 dBFS"),
    }
    unreadable = {os.path.basename(r.source) for r in manifest.rejected if r.unreadable}
    assert unreadable == {"cut.wav", "none.wav", "nan.wav", "empty.wav", "text.wav"}
    assert sorted(os.path.basename(s.source) for s in manifest.sources) == ["cut.wav", "gap.wav", "good.wav", "nan.wav"]
    assert manifest.seconds == pytest.approx(2 + 2 + 3 + 2 + 1 + 7, abs=1e-6)
    used = sum(segment.pcm.shape[1] for segment in read_segments(local_store, manifest)) / 44_100
    assert manifest.used_seconds == pytest.approx(used, abs=1e-3)


def test_a_recording_that_changes_after_it_was_listed_is_named_and_read_again(
    local_store, recordings, write, noise, ingest_here
):
    write("take.wav", noise(2.0, seed=1))
    write("other.wav", noise(1.0, seed=2))
    recipe = Recipe(sample_rate=44100, channels=1)
    sources = list_sources([str(recordings)])
    write("take.wav", noise(3.0, seed=3))
    other, take = prepare.prepare(sources, store=local_store, instrument="drum", recipe=recipe, known=())[0]
    assert other.record is not None
    assert other.record.seconds == 1.0
    assert take.record is None
    assert take.rejection is not None
    assert take.rejection.reason == "the file changed while it was read"
    manifest = ingest_here(local_store, [recordings])
    assert manifest.rejected == ()
    assert manifest.used_seconds == pytest.approx(4.0)


def test_levels_and_warnings(local_store, recordings, write, ingest_here):
    time = np.arange(44_100) / 44_100
    sine = np.sin(2 * np.pi * 100 * time)
    write("sine.wav", 0.5 * sine)
    write("clipped.wav", np.clip(2 * sine, -1, 1 - 2**-15))
    write("offset.wav", 0.3 * sine + 0.1)
    write("old.wav", 0.4 * sine[: 44_100 // 2], 8000)
    records = {os.path.basename(r.source): r for r in ingest_here(local_store, [recordings]).sources}
    assert records["sine.wav"].peak == pytest.approx(0.5, abs=1e-3)
    assert records["sine.wav"].rms == pytest.approx(0.5 / np.sqrt(2), abs=1e-3)
    assert records["sine.wav"].warnings == ()
    assert records["clipped.wav"].clipped_samples == pytest.approx(2 / 3 * 44_100, rel=0.01)
    assert "clipped" in records["clipped.wav"].warnings[0]
    assert records["offset.wav"].dc == pytest.approx(0.1, abs=1e-3)
    assert "DC offset" in records["offset.wav"].warnings[0]
    assert records["old.wav"].warnings == ("recorded at 8000 Hz: contains nothing above 4000 Hz",)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_24"])
def test_full_scale_depends_on_the_bits(local_store, recordings, write, ingest_here, subtype):
    sine = 2 * np.sin(2 * np.pi * 100 * np.arange(44_100) / 44_100)
    write("clipped.wav", np.clip(sine, -1, 1), subtype=subtype)
    (record,) = ingest_here(local_store, [recordings]).sources
    assert record.clipped_samples == pytest.approx(2 / 3 * 44_100, rel=0.02)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_recording(local_store, recordings, ingest_here, monkeypatch):
    monkeypatch.setattr(prepare, "_SPOOL_BYTES", 1 << 20)
    monkeypatch.setattr(shards, "_SHARD_BYTES", 8 << 20)
    peaks = []
    for minutes in (2, 6):
        random = np.random.default_rng(minutes)
        with soundfile.SoundFile(recordings / f"{minutes}.flac", "w", 44_100, 1) as file:
            for _ in range(minutes):
                file.write(random.uniform(-0.1, 0.1, 60 * 44_100))
        tracemalloc.start()
        manifest = ingest_here(local_store, [recordings / f"{minutes}.flac"])
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]
    assert len(manifest.shards) > 1
    assert all(shard.bytes < 24 << 20 for shard in manifest.shards)
    (segment,) = read_segments(local_store, manifest)
    assert segment.pcm.shape[1] == 6 * 60 * 44_100


@pytest.mark.parametrize("spool", [1, 64 << 20])
def test_a_full_disk_stops_the_ingest_and_leaves_nothing_behind(
    local_store, recordings, write, noise, ingest_here, monkeypatch, tmp_path, spool
):
    write("a.wav", noise(10.0))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setattr(prepare, "_SPOOL_BYTES", spool)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(StoreError, match="too large"):
            ingest_here(local_store, [recordings])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(local_store.list())
    assert not list((tmp_path / "temporary").iterdir())
    assert len(ingest_here(local_store, [recordings]).sources) == 1


def test_a_recording_that_vanishes_is_named_and_looked_for_again(local_store, recordings, write, noise):
    recipe = Recipe(sample_rate=44_100, channels=1)
    write("a.wav", noise(1.0))
    write("b.wav", noise(1.0, seed=1))
    sources = list_sources([str(recordings)])
    (recordings / "a.wav").unlink()
    (gone, there), shards = prepare.prepare(sources, store=local_store, instrument="drum", recipe=recipe, known=())
    assert gone.record is None
    assert gone.rejection.source == str(recordings / "a.wav")
    assert gone.rejection.unreadable
    assert [shard.source_ids for shard in shards] == [(there.record.source_id,)]


def test_a_missing_or_damaged_part_is_noticed_and_ingest_mends_it(local_store, recordings, write, noise, ingest_here):
    write("a.wav", noise(1.0))
    manifest = ingest_here(local_store, [recordings])
    (shard,) = manifest.shards
    data = local_store.read_bytes(shard.key)
    for damage in (data[: len(data) // 2], b"PAR1"):
        local_store.write_bytes(shard.key, damage)
        with pytest.raises(DatasetError, match="damaged"):
            read_segments(local_store, manifest)
    local_store.delete(shard.key)
    with pytest.raises(DatasetError, match="missing"):
        read_segments(local_store, manifest)
    mended = ingest_here(local_store, [recordings])
    assert mended.id == manifest.id
    assert read_segments(local_store, mended)[0].pcm.shape == (1, 44_100)


def test_a_store_that_cannot_be_written_is_an_error(tmp_path, recordings, write, noise, ingest_here):
    write("a.wav", noise(1.0))
    (tmp_path / "file").touch()
    with pytest.raises(StoreError):
        ingest_here(Store(str(tmp_path / "file")), [recordings])
