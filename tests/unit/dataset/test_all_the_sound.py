"""All the sound of a recording is used: above full scale, of damaged files, of channels that cancel; the rest is named."""

from __future__ import annotations

import os

import numpy as np
import pytest

from rave_dist.dataset.read import read_segments
from rave_dist.dataset.recipe import Recipe
from rave_dist.pipeline import Ingested

RATE = 44_100


def tone(seconds: float = 2.0, frequency: float = 300.0) -> np.ndarray:
    time = np.arange(round(seconds * RATE)) / RATE
    return 0.4 * np.sin(2 * np.pi * frequency * time + 8 * np.sin(6 * np.pi * time))


def pcm_of(store, manifest) -> np.ndarray:
    (segment,) = read_segments(store, manifest)
    return segment.pcm


@pytest.mark.parametrize("scale", [6.0, 2.51, 32_768.0, 2.0**23, 8e38])
@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
def test_floats_above_full_scale_are_scaled_by_one_stated_gain(local_store, write, ingest_here, scale, subtype):
    sound = (tone() * scale).astype(np.float32)
    manifest = ingest_here(local_store, [write("loud.wav", sound, subtype=subtype)])
    (record,) = manifest.sources
    peak = np.abs(sound).max()
    assert record.gain == np.float32(1) / peak
    assert record.peak == pytest.approx(1, abs=2**-14)
    expected = np.clip(np.rint(sound * np.float32(record.gain) * 32768), -32768, 32767)
    np.testing.assert_array_equal(pcm_of(local_store, manifest)[0], expected)
    assert not any("clipped" in warning for warning in record.warnings)
    (warning,) = record.warnings
    assert warning.startswith(f"over full scale: its peak is {20 * np.log10(peak):+.3g} dBFS; scaled by ")
    assert f"{record.gain:.6g}" in warning
    assert manifest.warnings == ((record.source, warning),)


def test_recordings_within_full_scale_are_untouched(local_store, write, ingest_here):
    """The ids are those of datasets that were made before there was a gain."""
    whole = np.rint(tone() * 32768).astype(np.int16)
    for name, sound, subtype in (("a.wav", whole / np.float32(32768), "FLOAT"), ("b.wav", whole, "PCM_16")):
        manifest = ingest_here(local_store, [write(name, sound, subtype=subtype)])
        (record,) = manifest.sources
        assert record.gain == 1
        assert record.warnings == ()
        np.testing.assert_array_equal(pcm_of(local_store, manifest)[0], whole)
    edge = np.array([1.0, -1.0, 0.5] * 20_000, np.float32)
    assert ingest_here(local_store, [write("edge.wav", edge, subtype="FLOAT")]).sources[0].gain == 1


def test_a_float_recording_that_was_clipped_before_is_still_called_clipped(local_store, write, ingest_here):
    sound = np.clip(tone() * 40, -3.0, 3.0)
    (record,) = ingest_here(local_store, [write("flat.wav", sound, subtype="FLOAT")]).sources
    assert record.clipped_samples == np.count_nonzero(np.abs(sound) == 3)
    assert any(warning.startswith("clipped") for warning in record.warnings)


def test_a_lossy_decoders_slight_excess_is_no_reason_for_a_gain(local_store, write, ingest_here):
    square = np.sign(tone()) * 0.98
    (record,) = ingest_here(local_store, [write("square.ogg", square)]).sources
    assert record.gain == 1
    assert record.clipped_samples > 0, "the decoder does exceed full scale"


@pytest.mark.parametrize("suffix", ["wav", "aiff", "flac"])
def test_a_truncated_recording_is_used_as_far_as_it_goes(local_store, write, noise, ingest_here, suffix):
    sound = noise(20.0, seed=5)
    path = write(f"cut.{suffix}", sound)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 5])
    manifest = ingest_here(local_store, [path])
    (record,) = manifest.sources
    pcm = pcm_of(local_store, manifest)
    np.testing.assert_array_equal(pcm[0], sound[: pcm.shape[1], 0])
    assert pcm.shape[1] == pytest.approx(0.6 * len(sound), rel=0.05)
    assert record.seconds == pytest.approx(20.0, abs=1e-3)
    assert record.used_seconds == pytest.approx(pcm.shape[1] / RATE)
    (rejection,) = manifest.rejected
    assert rejection.unreadable
    assert rejection.seconds == pytest.approx(20.0 - pcm.shape[1] / RATE, abs=1e-3)
    assert manifest.seconds == record.seconds
    assert not Ingested("drum", manifest).complete, "exit code 3"


def test_a_file_that_lacks_its_last_bytes_loses_only_these(local_store, write, noise, ingest_here):
    path = write("cut.wav", noise(8.0))
    path.write_bytes(path.read_bytes()[:-10])
    manifest = ingest_here(local_store, [path])
    assert pcm_of(local_store, manifest).shape[1] == 8 * RATE - 5
    (rejection,) = manifest.rejected
    assert rejection.seconds == pytest.approx(5 / RATE)
    assert rejection.reason == "truncated: the last 5 of 352800 samples are missing"


def test_a_truncated_recording_is_resampled_to_its_last_sample(local_store, write, ingest_here):
    path = write("cut.wav", tone(4.0), 48_000)
    path.write_bytes(path.read_bytes()[: 44 + 2 * 96_000])
    manifest = ingest_here(local_store, [path])
    assert pcm_of(local_store, manifest).shape[1] == 2 * RATE
    assert manifest.seconds == pytest.approx(4 * RATE / 48_000)
    assert manifest.used_seconds == pytest.approx(2.0)


def test_a_truncated_loud_recording_is_scaled_and_used(local_store, write, ingest_here):
    path = write("cut.wav", tone() * 8, subtype="FLOAT")
    path.write_bytes(path.read_bytes()[:-40_000])
    manifest = ingest_here(local_store, [path])
    (record,) = manifest.sources
    assert record.gain < 0.4
    assert record.used_seconds == pytest.approx(2.0 - 10_000 / RATE)
    assert [r.unreadable for r in manifest.rejected] == [True]


def test_channels_that_cancel_are_named_as_that(local_store, write, ingest_here):
    path = write("antiphase.wav", np.stack([tone(), -tone()], axis=1))
    manifest = ingest_here(local_store, [path])
    (rejection,) = manifest.rejected
    assert rejection.reason == "the channels cancel each other in the mix: set channels: 2"
    assert rejection.seconds == pytest.approx(2.0)
    stereo = ingest_here(local_store, [path], Recipe(sample_rate=RATE, channels=2))
    assert stereo.rejected == ()
    assert stereo.used_seconds == pytest.approx(2.0)


def test_channels_that_cancel_for_a_while_are_named_for_that_while(local_store, write, ingest_here):
    sound = tone(9.0)
    other = np.where((np.arange(9 * RATE) >= 2 * RATE) & (np.arange(9 * RATE) < 6 * RATE), -sound, sound)
    silent = np.zeros(5 * RATE)
    left, right = (np.concatenate([x, silent, tone(1.0)]) for x in (sound, other))
    manifest = ingest_here(local_store, [write("takes.wav", np.stack([left, right], axis=1))])
    cancelled, silence = (r.reason for r in manifest.rejected)
    assert cancelled.startswith("from 0:02.500 to 0:05.750, the channels cancel each other")
    assert silence.startswith("silence from 0:09.500 to 0:13.750")


def test_silence_late_in_a_recording_is_not_taken_for_the_sound_before_it(local_store, write, ingest_here):
    """220.5 samples are no whole frame: after minutes, frames that are counted instead of timed would be a second off."""
    rate = 11_025
    sound = 0.4 * np.sin(2 * np.pi * 300 * np.arange(400 * rate) / rate)
    sound[390 * rate : 398 * rate] = 0
    (rejection,) = ingest_here(local_store, [write("long.wav", np.stack([sound, sound], axis=1), rate)]).rejected
    assert rejection.reason == "silence from 6:30.520 to 6:37.730: nothing above -66 dBFS"


def test_channels_that_nearly_cancel_are_a_warning(local_store, write, ingest_here):
    sound = tone()
    (record,) = ingest_here(local_store, [write("out.wav", np.stack([sound, -0.9 * sound], axis=1))]).sources
    assert record.warnings == ("its channels largely cancel in the mix, which is 26 dB quieter: set channels: 2",)


@pytest.mark.parametrize("channels", [2, 8, 24])
def test_channels_of_which_one_sounds_do_not_cancel(local_store, write, ingest_here, channels):
    sound = np.zeros((2 * RATE, channels))
    sound[:, 1] = tone() * 0.01
    manifest = ingest_here(local_store, [write("one.wav", sound, subtype="FLOAT")])
    assert all(record.warnings == () for record in manifest.sources)
    assert not any("cancel" in rejection.reason for rejection in manifest.rejected)


def test_a_dataset_knows_what_was_passed_over_and_says_so(local_store, recordings, write, noise, ingest_here):
    write("a.wav", noise(1.0))
    (recordings / "cover.jpg").touch()
    manifest = ingest_here(local_store, [recordings])
    (entry,) = manifest.passed_over
    assert (entry.extension, entry.count) == (".jpg", 1)
    outcome = Ingested("drum", manifest)
    assert outcome.complete
    assert outcome.to_json()["passed_over"] == [entry.to_json()]
    os.symlink("nowhere", recordings / "b.wav")
    lost = Ingested("drum", ingest_here(local_store, [recordings]))
    assert not lost.complete
    assert lost.manifest.id == manifest.id


def test_records_of_an_earlier_reader_are_read_again(local_store, recordings, write, noise, ingest_here):
    write("a.wav", noise(1.0))
    first = ingest_here(local_store, [recordings])
    old = first.model_copy(update={"sources": tuple(s.model_copy(update={"reader": 0}) for s in first.sources)})
    old.save(local_store, old.folder.manifest)
    shards = [entry.key for entry in local_store.list("datasets/drum/shards")]
    read: list[str] = []
    again = ingest_here(local_store, [recordings], read=read)
    assert read == ["a.wav"]
    assert again.id == first.id
    assert [entry.key for entry in local_store.list("datasets/drum/shards")] == shards, "the same rows are not stored twice"
