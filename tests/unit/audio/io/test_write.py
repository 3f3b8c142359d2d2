"""Writing: whole files or none, every sample within half a step, and a full disk named as such."""

import resource
import struct
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from decoding import command
from wavinfo import WavInfoReader

from rave_dist.audio.io import write as write_module
from rave_dist.audio.io.write import AudioWriter, Subtype, flac_refusal, output_format, subtype_for
from rave_dist.audio.metadata.record import Bext, Cue, Metadata
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


DESCRIBED = Metadata(
    tags=(("TITLE", "Größe 鳥"), ("COMMENT", "von Müller")),
    bext=Bext(date="2024-05-03", time="21:17:30", time_reference=2**33 + 1),
)


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("odd", [0, 1])
@pytest.mark.parametrize(("subtype", "channels", "samples"), [("PCM_16", 1, 101), ("PCM_24", 1, 101), ("PCM_24", 3, 7)])
def test_metadata_stand_in_front_of_the_samples_of_wav_and_rf64(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: bool, odd: int, subtype: Subtype, channels: int, samples: int
) -> None:
    """RF64 begins above 4 GiB, here above nothing; sizes are right with odd numbers of bytes, too."""
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, (channels, samples)).astype(np.float32)
    plain, path = tmp_path / "plain.wav", tmp_path / "a.wav"
    text = "x" * (1000 + odd)
    described = replace(
        DESCRIBED,
        tags=(*DESCRIBED.tags, ("PERFORMER", text)),
        guano=(("Note", text),),
        ixml=f"<BWFXML>{text}</BWFXML>",
        wamd=((1, text.encode()),),
        cues=(Cue(1, 5, label=text),),
    )
    for target, metadata in ((plain, None), (path, described)):
        if large and metadata is not None:
            monkeypatch.setattr(write_module, "_WAV_MAX_BYTES", 0)
        with AudioWriter(
            target,
            sample_rate=48000,
            channels=channels,
            subtype=subtype,
            file_format="wav",
            metadata=metadata,
            expected_samples=samples,
        ) as writer:
            for place in range(0, samples, 13):
                writer.write(sound[:, place : place + 13])
    assert soundfile.info(path).format == ("RF64" if large else "WAV")
    np.testing.assert_array_equal(soundfile.read(path)[0], soundfile.read(plain)[0])
    data = path.read_bytes()
    name, size = struct.unpack_from("<4sI", data)
    if name == b"RF64":
        assert size == 2**32 - 1
        size, sound_bytes, frames = struct.unpack_from("<QQQ", data, 20)
        assert (sound_bytes, frames) == (channels * samples * int(subtype[-2:]) // 8, samples)
    assert size == len(data) - 8
    found = WavInfoReader(str(path), info_encoding="utf-8")
    assert found.bext is not None
    assert found.bext.time_reference == 2**33 + 1
    assert found.info is not None
    assert (found.info.title, found.info.comment) == ("Größe 鳥", "von Müller")
    assert found.data is not None
    assert found.data.frame_count == samples
    assert data.index(b"bext") < data.index(b"data"), "programs that stop reading at the sound find it"


@pytest.mark.parametrize("channels", [1, 2, 8])
def test_a_flac_file_has_one_block_of_comments_and_whole_audio(tmp_path: Path, channels: int) -> None:
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, (channels, 20_000)).astype(np.float32)
    cues = (Cue(1, 5), Cue(2, 19_000, label="Ruf"))
    metadata = Metadata(tags=(*DESCRIBED.tags, ("DESCRIPTION", "x" * 300_000)), cues=cues)
    for name, given in (("plain.flac", None), ("a.flac", metadata)):
        with AudioWriter(
            tmp_path / name, sample_rate=44100, channels=channels, metadata=given, expected_samples=20_000
        ) as writer:
            for place in range(0, 20_000, 777):
                writer.write(sound[:, place : place + 777])
    np.testing.assert_array_equal(soundfile.read(tmp_path / "a.flac")[0], soundfile.read(tmp_path / "plain.flac")[0])
    shown = subprocess.run([command("metaflac"), "--list", tmp_path / "a.flac"], check=True, capture_output=True, text=True)
    kinds = [line.split()[2] for line in shown.stdout.splitlines() if line.startswith("  type:")]
    assert kinds == ["(STREAMINFO)", "(VORBIS_COMMENT)", "(CUESHEET)", "(PADDING)", "(PADDING)"]
    assert "vendor string: reference libFLAC" in shown.stdout
    assert "comments: 5" in shown.stdout
    subprocess.run([command("flac"), "-t", "-s", tmp_path / "a.flac"], check=True)


@pytest.mark.parametrize("file_format", ["flac", "wav"])
def test_a_full_disk_is_named_with_metadata_too(tmp_path: Path, file_format: str) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
        with (
            pytest.raises(StoreError, match="too large"),
            AudioWriter(
                tmp_path / "a",
                sample_rate=8000,
                channels=1,
                file_format=file_format,  # type: ignore[arg-type]
                metadata=Metadata(tags=(("COMMENT", "x" * 100_000),)),
            ) as writer,
        ):
            writer.write(np.zeros((1, 10), np.float32))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())


def test_a_wav_counts_its_metadata(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is within 4 GiB only without its metadata is RF64, or refused where its length was not known."""
    metadata = Metadata(tags=(("COMMENT", "x" * 2000),))
    monkeypatch.setattr(write_module, "_WAV_MAX_BYTES", 6000)
    options = {"sample_rate": 8000, "channels": 1, "file_format": "wav", "subtype": "PCM_16", "metadata": metadata}
    with AudioWriter(tmp_path / "a.wav", expected_samples=2000, **options) as writer:  # type: ignore[arg-type]
        writer.write(np.zeros((1, 2000), np.float32))
    assert soundfile.info(tmp_path / "a.wav").format == "RF64"
    with (
        pytest.raises(AudioError, match="longer than a WAV file"),
        AudioWriter(tmp_path / "b.wav", **options) as writer,  # type: ignore[arg-type]
    ):
        writer.write(np.zeros((1, 2000), np.float32))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        *(
            (name, "wav")
            for name in ("a.wav", "A.WAV", "x/y.z/take.1.Wave", "a.bwf", "a.rf64", "a.w64", "WAV", "WAVEX", "RF64", "W64")
        ),
        *(
            (name, "flac")
            for name in ("a.flac", "a.mp3", "a.ogg", "a.opus", "a.m4a", "a.aiff", "a.caf", "a", "FLAC", "MP3", "mov")
        ),
    ],
)
def test_the_container_is_kept_where_it_can_be_written(source: str, expected: str) -> None:
    assert output_format(source) == expected


@pytest.mark.parametrize("name", ["PCM_16", "PCM_U8", "ULAW", "VORBIS", "OPUS", "MPEG_LAYER_III", "aac", "pcm_s16le"])
def test_sixteen_bits_are_enough_for(name: str) -> None:
    assert subtype_for(name) == "PCM_16"


@pytest.mark.parametrize("name", ["PCM_24", "PCM_32", "FLOAT", "DOUBLE", "alac", "pcm_s24be", "wavpack"])
def test_more_bits_are_kept_for(name: str) -> None:
    assert subtype_for(name) == "PCM_24"
