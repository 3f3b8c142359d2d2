"""DTS, AC-3 or Dolby E that is stored as samples is decoded or named, and music never is taken for it."""

from __future__ import annotations

import subprocess

import numpy as np
import pytest
import soundfile
from decoding import command, decode

from rave_dist.audio.io.bitstream import find_bitstream
from rave_dist.audio.io.open import open_audio

REFUSED = "the samples are a compressed stream ({}), which would sound as noise"


@pytest.fixture(scope="module")
def encode(tmp_path_factory: pytest.TempPathFactory):
    """Samples that are a stream of a codec, [frames, 2], int16: raw, or in bursts."""
    folder = tmp_path_factory.mktemp("streams")

    def run(codec: str, rate: int, form: str) -> np.ndarray:
        path = folder / f"{codec}.{form}"
        tone = ["-f", "lavfi", "-i", f"sine=440:d=3:r={rate}", "-ac", "2", "-c:a", codec, "-strict", "-2"]
        bit_rate = ["-b:a", "1411200" if codec == "dca" and form == "dts" else "384k"]
        subprocess.run([command("ffmpeg"), "-v", "error", "-y", *tone, *bit_rate, "-f", form, str(path)], check=True)
        data = path.read_bytes()
        return np.frombuffer(data[: len(data) // 4 * 4], "<i2").reshape(-1, 2)

    return run


@pytest.mark.parametrize(("container", "lead"), [("WAV", 0), ("WAV", 100_000), ("W64", 0)])
@pytest.mark.parametrize(
    ("codec", "rate", "form", "name"),
    [("dca", 44100, "dts", "DTS"), ("dca", 48000, "spdif", "DTS"), ("ac3", 48000, "spdif", "AC-3")],
)
def test_a_stream_in_a_wav_file_is_decoded(tmp_path, encode, codec, rate, form, name, container, lead):
    words = np.concatenate([np.zeros((lead, 2), np.int16), encode(codec, rate, form)])
    soundfile.write(tmp_path / "take.wav", words, rate, format=container, subtype="PCM_16")
    sound, damage, notes = decode(tmp_path / "take.wav")
    if lead and codec == "ac3":  # FFmpeg looks for bursts at the start only
        assert (sound.size, damage) == (0, REFUSED.format(name))
        return
    assert damage is None
    assert f"the samples are a compressed stream ({name}), decoded here" in notes
    middle = sound[0, rate : 2 * rate]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(rate)))
    assert np.argmax(spectrum) == 440
    assert np.sqrt(np.mean(middle**2)) < 0.2


@pytest.mark.parametrize(("kind", "subtype"), [("FLAC", "PCM_16"), ("AIFF", "PCM_16"), ("CAF", "PCM_16"), ("WAV", "PCM_24")])
@pytest.mark.parametrize(
    ("codec", "form", "name"), [("dca", "spdif", "DTS"), ("ac3", "spdif", "AC-3"), ("eac3", "spdif", "E-AC-3")]
)
def test_a_stream_in_other_files_is_named(tmp_path, encode, kind, subtype, codec, form, name):
    path = tmp_path / "take"
    soundfile.write(path, encode(codec, 48000, form), 48000, format=kind, subtype=subtype)
    sound, damage, _ = decode(path)
    assert (sound.size, damage) == (0, REFUSED.format(name))


@pytest.mark.parametrize(
    "marker", [(0x96F872, 0xA54E1F, 28 << 8), (0xF87200, 0x4E1F00, 28 << 8), (0x6F8720, 0x54E1F0, 28 << 4)]
)
def test_dolby_e_is_named(marker):
    words = np.random.default_rng(0).integers(-(2**23), 2**23, 1920 * 2 * 20, dtype=np.int32)
    for place in range(0, len(words), 1920 * 2):
        words[place : place + 3] = np.array(marker, np.int32)
    assert find_bitstream(words, 24) == "Dolby E"


@pytest.mark.parametrize("bits", [16, 24])
def test_music_noise_and_square_waves_are_samples(bits):
    random = np.random.default_rng(0)
    full = 2 ** (bits - 1)
    time = np.arange(1 << 17)
    square = np.where(time // 100 % 2, full - 2, -full + 1)
    stereo = np.stack([square, -square - 1], axis=1).reshape(-1)
    for words in (
        random.integers(-full, full, 1 << 20),
        square,
        stereo,
        (0.9 * full * np.sin(time * 0.01)).astype(int),
        time * 0,
    ):
        assert find_bitstream(words.astype(np.int32), bits) is None


def test_the_start_is_read_again(tmp_path):
    sound = np.random.default_rng(0).integers(-1000, 1000, (200_000, 2)).astype(np.int16)
    for kind in ("WAV", "FLAC", "AIFF"):
        soundfile.write(tmp_path / "take", sound, 44100, format=kind, subtype="PCM_16")
        with open_audio(tmp_path / "take") as decoder:
            read = np.concatenate(list(decoder.blocks()), axis=1)
        np.testing.assert_array_equal(read, sound.T / np.float32(2**15))
