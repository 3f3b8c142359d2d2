"""Every compressed kind at drawn rates, channels, lengths and damage: against what was encoded, and against FFmpeg and sox."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rave_dist.audio.types import Audio
from tests.decoding import by_ffmpeg, by_sox, decode
from tests.unit.audio.io.generated import KINDS, MP3_RATES, Kind, encoders, sound, write, write_kind

pytestmark = pytest.mark.slow

FEW = settings(max_examples=20, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
JOINABLE = ("vorbis", "opus", "ogg flac", "mp3")
SOX = ("vorbis", "wav ima", "wav ms", "wav alaw", "wav mulaw", "wav gsm")


@st.composite
def recordings(draw: st.DrawFn, names: tuple[str, ...]) -> tuple[Kind, int, Audio]:
    """A kind, a sample rate and a sound."""
    kind = KINDS[draw(st.sampled_from([name for name in names if KINDS[name].codec in encoders()]))]
    rate = draw(st.sampled_from(kind.rates))
    return kind, rate, sound(draw(st.integers(rate // 2, 2 * rate)), draw(st.sampled_from(kind.channels)), rate)


def encode(folder: str, drawn: tuple[Kind, int, Audio]) -> Path:
    kind, rate, audio = drawn
    return write_kind(Path(folder) / "drawn", audio, rate, kind)


@FEW
@given(recordings(tuple(KINDS)))
def test_all_that_was_encoded_is_decoded(drawn):
    kind, _, audio = drawn
    with tempfile.TemporaryDirectory() as folder:
        path = encode(folder, drawn)
        decoded, error, _ = decode(path)
        assert error is None
        assert len(decoded) == len(audio)
        if kind.exact:
            assert decoded.shape == audio.shape
        if kind.step is not None:
            assert np.abs(decoded - audio).max() <= kind.step
        if kind.codec not in ("libopus", "libspeex"):  # decoded by FFmpeg's command at 48 kHz, or at twice the length
            theirs = by_ffmpeg(path, len(audio))
            # FFmpeg's command returns the last packet of an MP4 whole, and older ones drop a part of short Vorbis blocks.
            assert abs(theirs.shape[1] - decoded.shape[1]) < 4096
            if theirs.shape[1] >= decoded.shape[1]:
                assert np.abs(decoded - theirs[:, : decoded.shape[1]]).max() < 0.01


@FEW
@given(recordings(tuple(KINDS)), st.sampled_from([0.01, 0.3, 1.0]))
def test_the_length_of_blocks_does_not_matter(drawn, seconds):
    with tempfile.TemporaryDirectory() as folder:
        path = encode(folder, drawn)
        np.testing.assert_array_equal(decode(path, seconds)[0], decode(path, 10)[0])


@pytest.mark.parametrize("rate", [8000, 12000, 16000, 24000, 48000])
def test_opus_of_a_lower_rate_ends_as_in_one_block(tmp_path, rate):
    path = write(tmp_path / "tone.opus", sound(2 * rate + 123, 1, rate), rate, "libopus", "-b:a", "16k")
    assert decode(path)[0].shape == (1, 2 * rate + 123)
    np.testing.assert_array_equal(decode(path)[0], decode(path, 10)[0])


@pytest.mark.parametrize("rate", MP3_RATES)
def test_all_rates_of_mp3_are_decoded_as_by_ffmpeg(tmp_path, rate):
    path = write_kind(tmp_path / "tone", sound(5 * rate + 777, 1, rate), rate, KINDS["mp3"])
    decoded, error, _ = decode(path)
    assert error is None
    assert np.abs(decoded - by_ffmpeg(path, 1)[:, : decoded.shape[1]]).max() < 1e-4


@FEW
@given(recordings(SOX))
def test_sox_decodes_the_same(drawn):
    kind, _, audio = drawn
    with tempfile.TemporaryDirectory() as folder:
        path = encode(folder, drawn)
        decoded, error, _ = decode(path)
        assert error is None
        theirs = by_sox(path, len(audio))
        # SoX plays all of the last block, whatever length the header gives, which newer FFmpeg writes.
        padding = 2048 if kind.codec in ("libgsm_ms", "adpcm_ima_wav", "adpcm_ms") else 1
        assert 0 <= theirs.shape[1] - decoded.shape[1] < padding
        assert decoded.shape[1] in (theirs.shape[1], audio.shape[1])
        assert np.abs(decoded - theirs[:, : decoded.shape[1]]).max() < 0.01


@FEW
@given(recordings(JOINABLE), st.integers(2, 4))
def test_joined_files_have_all_their_recordings(drawn, count):
    _, _, audio = drawn
    with tempfile.TemporaryDirectory() as folder:
        path = encode(folder, drawn)
        path.write_bytes(path.read_bytes() * count)
        decoded, error, _ = decode(path)
        assert error is None
        assert decoded.shape == (len(audio), count * audio.shape[1])


@FEW
@given(recordings(JOINABLE), st.floats(0.2, 0.9))
def test_a_truncated_recording_before_a_whole_one_is_named(drawn, part):
    _, _, audio = drawn
    with tempfile.TemporaryDirectory() as folder:
        path = encode(folder, drawn)
        data = path.read_bytes()
        path.write_bytes(data[: round(part * len(data))] + data)
        decoded, error, _ = decode(path)
        assert decoded.shape[1] >= audio.shape[1]
        assert error is not None or decoded.shape[1] == pytest.approx(2 * audio.shape[1], abs=4096)


@FEW
@given(recordings(tuple(KINDS)), st.floats(0.3, 0.95))
def test_a_truncated_file_is_named_or_nearly_whole(drawn, part):
    kind, _, audio = drawn
    with tempfile.TemporaryDirectory() as folder:
        path = encode(folder, drawn)
        data = path.read_bytes()
        path.write_bytes(data[: round(part * len(data))])
        decoded, error, _ = decode(path)
        counted = kind.suffix not in (".aac", ".ac3", ".eac3", ".mp2", ".mts", ".flv") and "-write_xing" not in kind.options
        if counted:
            assert error is not None or decoded.shape[1] >= audio.shape[1] - 4096
        assert decoded.shape[1] <= audio.shape[1] + 4096
