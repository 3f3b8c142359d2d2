"""A tone stays a tone in every format, and a file that is not what it claims is named, after what could be read of it."""

from __future__ import annotations

import struct
from contextlib import suppress
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from rave_dist.audio.io.open import open_audio, probe
from rave_dist.errors import AudioError, StoreError

LOSSLESS = [
    ("WAV", "PCM_U8", "wav", 2**-7),
    ("WAV", "PCM_16", "wav", 2**-15),
    ("WAV", "PCM_24", "wav", 2**-23),
    ("WAV", "PCM_32", "wav", 2**-23),
    ("WAV", "FLOAT", "wav", 0),
    ("WAV", "DOUBLE", "wav", 0),
    ("WAVEX", "PCM_16", "wav", 2**-15),
    ("RF64", "PCM_24", "wav", 2**-23),
    ("W64", "PCM_16", "w64", 2**-15),
    ("CAF", "PCM_16", "caf", 2**-15),
    ("AIFF", "PCM_24", "aiff", 2**-23),
    ("AU", "PCM_16", "au", 2**-15),
    ("FLAC", "PCM_16", "flac", 2**-15),
    ("FLAC", "PCM_24", "flac", 2**-23),
]
LOSSY = [("OGG", "VORBIS", "ogg", 44100), ("OGG", "OPUS", "opus", 48000), ("MP3", "MPEG_LAYER_III", "mp3", 44100)]


def decode(path: Path, seconds: float = 10) -> np.ndarray:
    with open_audio(path) as decoder:
        return np.concatenate(list(decoder.blocks(seconds)), axis=1)


def decode_what_can_be_read(path: Path) -> tuple[int, str]:
    """Samples before the error, and the error."""
    lengths: list[int] = []
    with pytest.raises(AudioError) as caught, open_audio(path) as decoder:
        lengths.extend(block.shape[1] for block in decoder.blocks(0.25))
    samples = sum(lengths)
    assert caught.value.where == str(path)
    assert caught.value.fix
    return samples, caught.value.what


def level_at(sound: np.ndarray, frequency: float, sample_rate: int) -> float:
    """Amplitude of one partial of float32 [samples]."""
    phase = np.exp(-2j * np.pi * frequency * np.arange(len(sound)) / sample_rate)
    return float(2 * np.abs(np.mean(sound * phase)))


@pytest.mark.parametrize(("kind", "subtype", "extension", "step"), LOSSLESS)
def test_lossless_formats_give_back_what_was_written(tmp_path, tone, kind, subtype, extension, step):
    sound = tone(1.1, channels=2)
    path = tmp_path / f"tone.{extension}"
    soundfile.write(path, sound, 44100, format=kind, subtype=subtype)
    decoded = decode(path)
    assert decoded.dtype == np.float32
    assert decoded.shape == (2, len(sound))
    assert np.abs(decoded - sound.T).max() <= step
    info = probe(path)
    assert (info.sample_rate, info.channels, info.samples) == (44100, 2, len(sound))


@pytest.mark.parametrize(("kind", "subtype", "extension", "rate"), LOSSY)
def test_lossy_formats_keep_length_and_tone(tmp_path, tone, kind, subtype, extension, rate):
    sound = tone(2.0, rate)
    path = tmp_path / f"tone.{extension}"
    soundfile.write(path, sound, rate, format=kind, subtype=subtype)
    decoded = decode(path)
    assert decoded.shape == (1, len(sound))
    assert level_at(decoded[0], 440, rate) == pytest.approx(0.3, rel=0.15)


@pytest.mark.parametrize(
    ("name", "codec", "rate", "video"),
    [
        ("tone.m4a", "aac", 44100, False),
        ("lossless.m4a", "alac", 44100, False),
        ("tone.aac", "aac", 44100, False),
        ("tone.wma", "wmav2", 44100, False),
        ("film.mp4", "aac", 48000, True),
        ("film.mkv", "flac", 48000, True),
        ("tone.webm", "libopus", 48000, False),
    ],
)
def test_what_libsndfile_cannot_read_comes_through_ffmpeg(write_av, tone, name, codec, rate, video):
    path = write_av(name, codec, tone(2.0, rate, channels=2), rate, video=video)
    decoded = decode(path, seconds=0.5)
    assert decoded.shape[0] == 2
    assert decoded.shape[1] == pytest.approx(2 * rate, abs=4096)
    assert level_at(decoded[0, rate // 2 : rate], 440, rate) == pytest.approx(0.3, rel=0.05)
    assert level_at(decoded[1, rate // 2 : rate], 440, rate) == pytest.approx(0.15, rel=0.05)


def test_tags_in_another_encoding_do_not_matter(write_av, tone):
    path = write_av("tone.m4a", "aac", tone(1.0))
    plain = decode(path)
    with av.open(str(path)) as source, av.open(str(path.with_name("tagged.mka")), "w") as tagged:
        tagged.metadata["title"] = "Fl XX te"
        stream = tagged.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(source.streams.audio[0]):
            if packet.dts is not None:
                packet.stream = stream
                tagged.mux(packet)
    data = path.with_name("tagged.mka").read_bytes()
    assert data.count(b"Fl XX te") == 1
    path.with_name("tagged.mka").write_bytes(data.replace(b"Fl XX te", b"Fl \xf6\xe9 te"))  # Latin-1
    assert len(decode(path.with_name("tagged.mka"))[0]) == pytest.approx(len(plain[0]), abs=4096)


def test_an_mp4_is_as_long_as_it_says(write_av, tone):
    assert decode(write_av("tone.m4a", "aac", tone(3.0))).shape == (1, 3 * 44100)


@pytest.mark.parametrize("seconds", [0.01, 0.3, 7.0])
def test_blocks_do_not_change_the_sound(tmp_path, write_av, tone, seconds):
    soundfile.write(tmp_path / "tone.flac", tone(2.0), 44100)
    for path in (tmp_path / "tone.flac", write_av("tone.m4a", "aac", tone(2.0))):
        with open_audio(path) as decoder:
            blocks = list(decoder.blocks(seconds))
        assert {block.shape[1] for block in blocks[:-1]} <= {round(seconds * 44100)}
        np.testing.assert_array_equal(np.concatenate(blocks, axis=1), decode(path))


@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (11025, 1), (96000, 6), (192000, 2), (384000, 1)])
def test_rates_and_channels(tmp_path, tone, rate, channels):
    path = tmp_path / "tone.wav"
    soundfile.write(path, tone(0.2, rate, channels=channels), rate)
    info = probe(path)
    assert (info.sample_rate, info.channels, info.samples) == (rate, channels, rate // 5)


def test_neither_name_nor_extension_matters(tmp_path, tone):
    for name in ("a tabla.bin", "glocke – ñandú 鈴.raw", b"latin-1 \xe9.wav"):
        path = tmp_path / name if isinstance(name, str) else Path(str(tmp_path)) / name.decode("utf-8", "surrogateescape")
        soundfile.write(tmp_path / "x.ogg", tone(0.5), 44100)
        (tmp_path / "x.ogg").rename(path)
        assert decode(path).shape == (1, 22050)


@pytest.mark.parametrize(
    ("kind", "subtype", "extension"),
    [(k, s, e) for k, s, e, _ in LOSSLESS if k != "FLAC"] + [("WAV", "IMA_ADPCM", "wav")],
)
def test_a_truncated_file_says_how_much_is_there(tmp_path, tone, kind, subtype, extension):
    path = tmp_path / f"tone.{extension}"
    soundfile.write(path, tone(3.0), 44100, format=kind, subtype=subtype)
    whole = probe(path).samples
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 3])
    assert probe(path).samples == pytest.approx(whole, rel=0.003)
    samples, what = decode_what_can_be_read(path)
    assert samples == pytest.approx(44100, rel=0.05)
    assert "truncated: only" in what
    assert "of 3.0" in what


@pytest.mark.parametrize("missing", [1, 2, 1000])
def test_even_one_missing_sample_of_a_wav_is_noticed(tmp_path, tone, missing):
    path = tmp_path / "tone.wav"
    soundfile.write(path, tone(1.0), 44100)
    path.write_bytes(path.read_bytes()[: -2 * missing])
    samples, what = decode_what_can_be_read(path)
    assert samples == 44100 - missing
    assert "truncated" in what


def test_a_recorder_that_never_closed_its_wav_is_forgiven(tmp_path, tone):
    path = tmp_path / "tone.wav"
    soundfile.write(path, tone(1.0), 44100)
    data = bytearray(path.read_bytes())
    place = data.index(b"data") + 4
    data[place : place + 4] = struct.pack("<I", 2**32 - 1)
    path.write_bytes(data)
    assert decode(path).shape == (1, 44100)


@pytest.mark.parametrize(("kind", "subtype", "extension", "rate"), [*LOSSY, ("FLAC", "PCM_16", "flac", 44100)])
@pytest.mark.parametrize("part", [0.3, 0.7])
def test_truncated_compressed_files_are_refused(tmp_path, tone, kind, subtype, extension, rate, part):
    path = tmp_path / f"tone.{extension}"
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (3 * rate, 1))
    soundfile.write(path, noise, rate, format=kind, subtype=subtype)
    data = path.read_bytes()
    path.write_bytes(data[: round(part * len(data))])
    samples, what = decode_what_can_be_read(path)
    assert samples <= part * 3 * rate
    assert "truncated" in what or "damaged" in what


@pytest.mark.parametrize(("name", "options"), [("a.m4a", {}), ("b.m4a", {"movflags": "faststart"}), ("c.mkv", {})])
def test_truncated_films_and_m4a_are_refused(write_av, tone, name, options):
    path = write_av(name, "aac", tone(3.0), **options)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    samples, what = decode_what_can_be_read(path)
    assert samples < 2.5 * 44100
    assert "truncated" in what or "damaged" in what


def test_a_rotten_flac_gives_what_lies_before_the_damage(tmp_path, tone):
    path = tmp_path / "tone.flac"
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (3 * 44100, 1))
    soundfile.write(path, noise, 44100)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 400] = bytes(value ^ 0x5A for value in data[middle : middle + 400])
    path.write_bytes(data)
    samples, what = decode_what_can_be_read(path)
    assert 44100 < samples < 1.5 * 44100
    assert "damaged after" in what


def test_an_mp3_without_a_length_header_is_read_to_its_end(tmp_path):
    path = tmp_path / "noise.mp3"
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (3 * 44100, 1))
    soundfile.write(path, noise, 44100, format="MP3")
    data = path.read_bytes()
    second_frame = data.index(data[:2], 200)
    path.write_bytes(data[second_frame:])
    assert decode(path).shape[1] == pytest.approx(3 * 44100, abs=4096)


def test_samples_that_are_not_numbers_are_told_at_the_end(tmp_path, tone):
    path = tmp_path / "tone.wav"
    sound = tone(2.0)
    sound[44100] = np.nan
    sound[50000] = np.inf
    soundfile.write(path, sound, 44100, subtype="FLOAT")
    samples, what = decode_what_can_be_read(path)
    assert samples == 2 * 44100
    assert what.startswith("2 NaN or infinite samples")
    assert "1.000 s" in what


def test_what_is_no_sound(tmp_path, tone):
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("these are my notes about the recordings\n" * 50)
    (tmp_path / "list.m3u8").write_text(f"#EXTM3U\n#EXTINF:1,\n{tmp_path}/tone.wav\n")
    (tmp_path / "random.mp3").write_bytes(np.random.default_rng(0).bytes(20_000))
    soundfile.write(tmp_path / "tone.wav", tone(1.0), 44100)
    whats = {"empty.wav": "the file is empty", "random.mp3": "not a readable audio file"}
    for name in ("empty.wav", "text.wav", "list.m3u8", "random.mp3"):
        samples, what = decode_what_can_be_read(tmp_path / name)
        assert samples == 0
        assert what == whats.get(name, "not a recording but a text")
    with pytest.raises(StoreError):
        probe(tmp_path / "nowhere.wav")


def test_a_file_of_no_samples_opens_and_gives_none(tmp_path):
    soundfile.write(tmp_path / "none.wav", np.zeros((0, 1), np.float32), 44100)
    with open_audio(tmp_path / "none.wav") as decoder:
        assert list(decoder.blocks()) == []


@pytest.mark.parametrize(("kind", "subtype", "extension"), [(k, s, e) for k, s, e, _ in [*LOSSLESS, *LOSSY]])
def test_no_damage_raises_anything_but_our_own_errors(tmp_path, tone, kind, subtype, extension):
    path = tmp_path / f"tone.{extension}"
    soundfile.write(path, tone(0.3, 48000), 48000, format=kind, subtype=subtype)
    whole = path.read_bytes()
    random = np.random.default_rng(0)
    for _ in range(12):
        data = bytearray(whole)
        for place in random.integers(0, min(200, len(data)), 20):
            data[place] = random.integers(256)
        path.write_bytes(data[: random.integers(len(data) // 2, len(data))])
        with suppress(AudioError), open_audio(path) as decoder:
            assert all(np.isfinite(block).all() for block in decoder.blocks())


def test_a_header_before_nothing_but_zeros_is_soon_given_up(tmp_path):
    path = tmp_path / "zeros.wav"
    with open(path, "wb") as file:
        file.write(b"RIFF\xff\xff\xff\x7fWAVE")
        file.truncate(1 << 30)
    assert decode_what_can_be_read(path)[0] == 0
