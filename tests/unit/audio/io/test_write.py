"""Writing: whole files or none, every sample within half a step, and a full disk named as such."""

import resource
from pathlib import Path

import numpy as np
import pytest
import soundfile

from rave_dist.audio.io.write import AudioWriter, flac_refusal, subtype_for
from rave_dist.audio.metadata.record import Metadata
from rave_dist.errors import AudioError, StoreError


@pytest.mark.parametrize("file_format", ["flac", "wav"])
@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24"])
@pytest.mark.parametrize(("rate", "channels"), [(7999, 1), (44100, 2), (192000, 8)])
def test_what_is_written_is_read(tmp_path: Path, file_format: str, subtype: str, rate: int, channels: int) -> None:
    sound = np.random.default_rng(0).standard_normal((channels, 5000)).astype(np.float32) * 0.4
    path = tmp_path / "new" / f"Ende März.{file_format}"
    with AudioWriter(
        path,
        sample_rate=rate,
        channels=channels,
        file_format=file_format,
        subtype=subtype,
        metadata=Metadata(tags=(("COMMENT", "von Müller"),)),
    ) as writer:
        for start in range(0, 5000, 701):
            writer.write(sound[:, start : start + 701])
        assert not path.exists(), "nothing has its name before it is whole"
    with soundfile.SoundFile(path) as file:
        result = file.read(dtype="float64", always_2d=True).T
        assert (file.samplerate, file.subtype, file.comment) == (rate, subtype, "von Müller")
    step = 2.0 ** (1 - int(subtype[-2:]))
    assert np.abs(result - np.clip(sound, -1, 1 - step)).max() <= step / 2
    assert list(path.parent.iterdir()) == [path]


def write(path: Path, *blocks: np.ndarray, file_format: str = "flac") -> None:
    with AudioWriter(path, sample_rate=8000, channels=1, file_format=file_format) as writer:  # type: ignore[arg-type]
        for block in blocks:
            writer.write(block)


def test_after_an_exception_nothing_is_left_and_what_was_there_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    path.write_bytes(b"an earlier result")
    with pytest.raises(ValueError, match="2 channels"):
        write(path, np.zeros((1, 10), np.float32), np.zeros((2, 10), np.float32))
    assert path.read_bytes() == b"an earlier result"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("file_format", ["flac", "wav"])
def test_a_system_that_refuses_to_write_is_heard(tmp_path: Path, file_format: str) -> None:
    """libsndfile says nothing of it; here a limit on file sizes stands for a full disk."""
    sound = np.random.default_rng(0).standard_normal((1, 100_000)).astype(np.float32) * 0.1
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
        with pytest.raises(StoreError, match="too large"):
            write(tmp_path / "a", sound, sound, file_format=file_format)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())


def test_what_a_format_cannot_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="8 channels"):
        AudioWriter(tmp_path / "a", sample_rate=8000, channels=9)
    for rate in (700_000, 655_360):
        with pytest.raises(AudioError, match="655350 Hz"):
            AudioWriter(tmp_path / "a", sample_rate=rate, channels=1)
    with pytest.raises(AudioError, match="no samples"):
        write(tmp_path / "a")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("rate", [65_534, 65_535, 65_536, 65_537, 65_540, 96_001, 192_000, 312_507, 384_000, 384_001, 655_350])
def test_flac_s_rates_are_known_without_trying(tmp_path: Path, rate: int) -> None:
    """What libFLAC itself takes, and nothing else, is said to be possible."""
    refusal = flac_refusal(sample_rate=rate, channels=1)
    try:
        soundfile.write(tmp_path / "tried.flac", np.zeros(100), rate)
    except soundfile.LibsndfileError:
        assert refusal is not None
        with pytest.raises(AudioError, match="in steps of 10 Hz"):
            AudioWriter(tmp_path / "a", sample_rate=rate, channels=1)
        with AudioWriter(tmp_path / "a.wav", sample_rate=rate, channels=1, file_format="wav") as writer:
            writer.write(np.zeros((1, 100), np.float32))
        assert soundfile.info(tmp_path / "a.wav").samplerate == rate
    else:
        assert refusal is None


def test_a_long_wav_is_rf64(tmp_path: Path) -> None:
    with AudioWriter(tmp_path / "a.wav", sample_rate=48000, channels=2, file_format="wav", expected_samples=2**30) as writer:
        writer.write(np.zeros((2, 100), np.float32))
    assert soundfile.info(tmp_path / "a.wav").format == "RF64"


@pytest.mark.parametrize("name", ["PCM_16", "PCM_U8", "ULAW", "VORBIS", "OPUS", "MPEG_LAYER_III", "aac", "pcm_s16le"])
def test_sixteen_bits_are_enough_for(name: str) -> None:
    assert subtype_for(name) == "PCM_16"


@pytest.mark.parametrize("name", ["PCM_24", "PCM_32", "FLOAT", "DOUBLE", "alac", "pcm_s24be", "wavpack"])
def test_more_bits_are_kept_for(name: str) -> None:
    assert subtype_for(name) == "PCM_24"
