"""VOC files of several blocks: all blocks are one recording, silences and repeats included, and no header is played."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from decoding import by_ffmpeg, by_sox, decode
from hypothesis import given, settings
from hypothesis import strategies as st

from rave_dist.audio.io.open import open_audio

HEAD = b"Creative Voice File\x1a" + struct.pack("<HHH", 26, 0x010A, ~0x010A + 0x1234 & 0xFFFF)
SILENCE = {"u8": 0.0, "s16": 0.0}


def block(kind: int, content: bytes, size: int | None = None) -> bytes:
    return bytes([kind]) + struct.pack("<I", len(content) if size is None else size)[:3] + content


def new(pcm: bytes, rate: int, bits: int, channels: int, codec: int | None = None, size: int | None = None) -> bytes:
    codec = (4 if bits == 16 else 0) if codec is None else codec
    return block(9, struct.pack("<IBBHI", rate, bits, channels, codec, 0) + pcm, size)


def old(pcm: bytes, divisor: int, size: int | None = None) -> bytes:
    return block(1, bytes([256 - divisor, 0]) + pcm, size)


def put(folder: Path, data: bytes) -> Path:
    (folder / "take.voc").write_bytes(data)
    return folder / "take.voc"


def u8(samples: np.ndarray) -> np.ndarray:
    return (samples.reshape(1, -1).astype(np.float32) - 128) / 128


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("voc")


@settings(max_examples=60, deadline=None)
@given(
    data=st.data(),
    bits=st.sampled_from([8, 16]),
    channels=st.sampled_from([1, 2]),
    rate=st.integers(4000, 48_000),
    ended=st.booleans(),
)
def test_blocks_are_one_recording(folder, data, bits, channels, rate, ended):
    random = np.random.default_rng(data.draw(st.integers(0, 1000)))
    dtype = "<i2" if bits == 16 else "u1"
    file, parts = HEAD, []
    for number in range(data.draw(st.integers(1, 6))):
        kind = "sound" if not number else data.draw(st.sampled_from(["sound", "more", "silence", "marker", "text", "repeat"]))
        low = -(2**15) if bits == 16 else 0
        samples = random.integers(low, low + 2**bits, (data.draw(st.integers(1, 3000)), channels))
        pcm = samples.astype(dtype).tobytes()
        sound = ((samples - (0 if bits == 16 else 128)).T / 2 ** (bits - 1)).astype(np.float32)
        if kind == "sound":
            file, parts = file + new(pcm, rate, bits, channels), [*parts, sound]
        elif kind == "more":
            file, parts = file + block(2, pcm), [*parts, sound]
        elif kind == "silence":
            file += block(3, struct.pack("<HB", 999, 256 - 100))  # 1000 samples at 10 kHz
            parts.append(np.zeros((channels, round(0.1 * rate)), np.float32))
        elif kind == "repeat":
            file += block(6, struct.pack("<H", 2)) + new(pcm, rate, bits, channels) + block(7, b"")
            parts += [sound] * 3
        else:
            file += block(4, b"\1\0") if kind == "marker" else block(5, b"a text\0")
    path = put(folder, file + (b"\0" if ended else b""))
    with open_audio(path) as decoder:
        assert (decoder.sample_rate, decoder.channels, decoder.format) == (rate, channels, "VOC")
    sound, damage, notes = decode(path)
    assert (damage, notes) == (None, ())
    np.testing.assert_array_equal(sound, np.concatenate(parts, axis=1))


def test_blocks_of_the_first_version(folder):
    samples = np.random.default_rng(0).integers(0, 256, 4000)
    pcm = samples.astype("u1").tobytes()
    path = put(folder, HEAD + old(pcm[:1500], 100) + block(2, pcm[1500:2500]) + old(pcm[2500:], 100) + b"\0")
    with open_audio(path) as decoder:
        assert decoder.sample_rate == 10_000
    np.testing.assert_array_equal(decode(path)[0], u8(samples))
    np.testing.assert_allclose(by_sox(path, 1), u8(samples), atol=1e-6)
    stereo = block(8, struct.pack("<HBB", 65536 - 256_000_000 // (2 * 20_000), 0, 1)) + old(pcm, 25)
    path = put(folder, HEAD + stereo + b"\0")
    with open_audio(path) as decoder:
        assert (decoder.sample_rate, decoder.channels) == (20_000, 2)
    np.testing.assert_array_equal(decode(path)[0], u8(samples).reshape(-1, 2).T)


@pytest.mark.parametrize(("codec", "subtype"), [(6, "ALAW"), (7, "ULAW")])
def test_companded_blocks(folder, codec, subtype):
    pcm = np.random.default_rng(codec).bytes(3000)
    path = put(folder, HEAD + new(pcm[:1000], 8000, 8, 1, codec) + block(2, pcm[1000:]) + b"\0")
    raw = folder / "take.raw"
    raw.write_bytes(pcm)
    wanted = soundfile.read(raw, format="RAW", subtype=subtype, samplerate=8000, channels=1, dtype="float32")[0]
    np.testing.assert_array_equal(decode(path)[0][0], wanted)


def test_a_leading_silence_has_the_rate_of_what_follows(folder):
    samples = np.random.default_rng(0).integers(-(2**15), 2**15, 500)
    silence = block(3, struct.pack("<HB", 4999, 256 - 100))  # half a second
    path = put(folder, HEAD + silence + new(samples.astype("<i2").tobytes(), 22050, 16, 1) + b"\0")
    sound, damage, _ = decode(path)
    assert damage is None
    assert sound.shape == (1, 11025 + 500)
    assert not sound[:, :11025].any()


def test_a_change_of_the_rate_is_named_after_the_sound_before_it(folder):
    first, second = (np.random.default_rng(seed).integers(0, 256, 3000) for seed in (1, 2))
    path = put(folder, HEAD + old(first.astype("u1").tobytes(), 100) + old(second.astype("u1").tobytes(), 50) + b"\0")
    sound, damage, _ = decode(path)
    assert damage == "the format changes to 20000 Hz and 1 channels after 0.300 s"
    np.testing.assert_array_equal(sound, u8(first))


def test_a_cut_file_is_named(folder):
    pcm = np.random.default_rng(1).integers(0, 256, 9000)
    data = HEAD + old(pcm[:5000].astype("u1").tobytes(), 100) + block(2, pcm[5000:].astype("u1").tobytes()) + b"\0"
    sound, damage, _ = decode(put(folder, data[:-1001]))
    assert damage == "truncated: only 0.800 s of 0.900 s can be read"
    np.testing.assert_array_equal(sound, u8(pcm[:8000]))


@pytest.mark.parametrize("size", [0, 2**24 - 1])
def test_a_recording_that_was_never_closed(folder, size):
    pcm = np.random.default_rng(1).integers(1, 256, 9000)
    sound, damage, _ = decode(put(folder, HEAD + old(pcm.astype("u1").tobytes(), 100, size=size)))
    assert damage is None
    np.testing.assert_array_equal(sound, u8(pcm))


def test_sizes_that_wrapped_at_16_mib(folder):
    samples = np.random.default_rng(3).integers(-(2**15), 2**15, (5_000_000, 2), dtype=np.int16)
    soundfile.write(folder / "take.voc", samples, 44100, format="VOC", subtype="PCM_16")
    sound, damage, _ = decode(folder / "take.voc")
    assert damage is None
    np.testing.assert_array_equal(sound, samples.T.astype(np.float32) / 2**15)


def test_endless_repeats_and_compressed_blocks(folder):
    pcm = np.random.default_rng(3).integers(0, 256, 2000).astype("u1").tobytes()
    sound, damage, _ = decode(put(folder, HEAD + block(6, b"\xff\xff") + old(pcm, 100) + block(7, b"") + b"\0"))
    assert (sound.shape, damage) == ((1, 2000), None)
    _, damage, _ = decode(
        put(folder, HEAD + block(6, b"\xfe\xff") + b"".join(old(pcm * 1000, 100) for _ in range(20)) + block(7, b"") + b"\0")
    )
    assert damage == "repeats make this recording longer than 2 GiB"


@pytest.mark.parametrize("divisor", range(23, 250, 13))
def test_one_block_is_read_as_libsndfile_and_ffmpeg_read_it(folder, divisor):
    pcm = np.random.default_rng(3).integers(0, 256, 2000)
    path = put(folder, HEAD + old(pcm.astype("u1").tobytes(), divisor) + b"\0")
    with open_audio(path) as decoder:
        assert decoder.sample_rate == soundfile.info(path).samplerate
    if divisor == 23:
        np.testing.assert_array_equal(by_ffmpeg(path, 1), u8(pcm))


@pytest.mark.parametrize("behind", [b"", bytes(5000)], ids=["", "padding"])
def test_sox_counts_a_block_8_bytes_too_short(folder, behind):
    samples = np.random.default_rng(3).integers(-(2**15), 2**15, (3000, 2)).astype("<i2")
    pcm = samples.tobytes()
    decoded, error, notes = decode(put(folder, HEAD + new(pcm, 44100, 16, 2, size=12 + len(pcm) - 8) + b"\0" + behind))
    assert (error, notes) == (None, ())
    np.testing.assert_array_equal(decoded, (samples.T / 2**15).astype(np.float32))


def test_bytes_behind_the_terminator_are_named(folder):
    pcm = np.random.default_rng(4).integers(0, 256, 3000).astype("u1")
    decoded, error, notes = decode(put(folder, HEAD + old(pcm.tobytes(), 100) + b"\0" + b"\x55" * 300))
    assert (error, notes) == (None, ("300 bytes behind the end of the sound are not used",))
    np.testing.assert_array_equal(decoded, u8(pcm))
