"""Whatever sizes a header claims, all the sound in the file is used to the sample, or what is missing is named."""

from __future__ import annotations

import os
import struct
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from built_containers import CONTAINERS, ENCODINGS, Built, chunk, expected, make_payload
from decoding import APE_TAG, ID3V1, ID3V2, by_ffmpeg, by_sox, command, decode
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rave_dist.audio.io.byte_view import ByteView
from rave_dist.audio.io.containers import examine
from rave_dist.audio.io.open import open_audio

STRAY = 4096
pairs = [(name, encoding) for name, container in CONTAINERS.items() for encoding in container.encodings]


@st.composite
def intact(draw: st.DrawFn, least_bytes: int = 2 * STRAY) -> Built:
    """A file of any container, encoding, rate and channel count, with chunks behind its sound."""
    name, encoding = draw(st.sampled_from(pairs))
    container = CONTAINERS[name]
    channels = draw(st.sampled_from([1, 2, 2, 3, 6, 8, 33]))
    width = ENCODINGS[encoding].width * channels
    samples = 8 * (least_bytes // (8 * width) + draw(st.integers(1, 500)))  # no padding, which looks like sound
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    names = draw(st.lists(st.sampled_from(container.chunks), max_size=3)) if container.chunks else []
    behind = tuple((chunk_name, random.bytes(draw(st.integers(1, 700)))) for chunk_name in names)
    return Built(
        name,
        encoding,
        draw(st.one_of(st.sampled_from([8000, 44100, 48000, 96000]), st.integers(1000, 400_000))),
        make_payload(random, encoding, samples, channels),
        behind=behind,
        common_last=name in ("wav", "rifx", "aiff") and draw(st.booleans()) and name == "aiff",
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("containers")


def write(place: Path, built: Built, data: bytes | None = None) -> Path:
    path = place / f"take.{CONTAINERS[built.container].suffix}"
    path.write_bytes(built.build() if data is None else data)
    return path


def check_all(path: Path, built: Built) -> tuple[str, ...]:
    sound, damage, notes = decode(path)
    assert damage is None
    np.testing.assert_array_equal(sound, expected(built.payload, built.encoding))
    return notes


many = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@many
@given(
    built=intact(least_bytes=0),
    before=st.sampled_from([b"", b"", ID3V2]),
    after=st.sampled_from([b"", ID3V1, APE_TAG, APE_TAG + ID3V1]),
)
def test_intact_files_give_every_sample(place, built, before, after):
    assert check_all(write(place, built, before + built.build() + after), built) == ()


@pytest.mark.parametrize(("name", "encoding"), pairs)
def test_tags_behind_chunks_of_any_length(name, encoding, place):
    """Chunks of odd length move what follows them; not every format fills them up."""
    container = CONTAINERS[name]
    payload = make_payload(np.random.default_rng(1), encoding, 8, 1)
    for length in (1, 2, 3, 4) if container.chunks else (0,):
        for tags in (ID3V1, APE_TAG, APE_TAG + ID3V1):
            built = Built(name, encoding, 8000, payload, behind=((container.chunks[0], b"_" * length),) if length else ())
            assert check_all(write(place, built, built.build() + tags), built) == ()


@many
@given(
    built=intact(),
    outer=st.sampled_from(["stale", "zero", "right"]),
    part=st.floats(0.001, 0.49),
    after=st.sampled_from([b"", ID3V1, APE_TAG]),
)
def test_a_header_that_declares_too_little(place, built, outer, part, after):
    built = replace(built, behind=tuple(part for part in built.behind if part[0] != b"qrst"))  # recognised by its place only
    bytes_per_sample = built.channels * ENCODINGS[built.encoding].width
    kept = max(1, int(part * len(built.payload)))
    missing = (len(built.payload) - kept) * bytes_per_sample
    outers = {"stale": lambda size: max(0, size - missing), "zero": lambda size: 0, "right": lambda size: size}
    stale = replace(
        built,
        size=lambda size: size - missing,
        frames=lambda frames: kept,
        outer=outers[outer],
    )
    notes = check_all(write(place, built, stale.build() + after), built)
    seconds = len(built.payload) / built.rate
    assert notes == (f"the header declares {kept / built.rate:.3f} s; all {seconds:.3f} s that the file holds are used",)


@many
@given(built=intact(), unknown=st.booleans(), outer=st.booleans(), frames=st.booleans(), after=st.sampled_from([b"", ID3V1]))
def test_a_header_that_was_never_completed(place, built, unknown, outer, frames, after):
    built = replace(built, behind=tuple(part for part in built.behind if part[0] != b"qrst"))
    size = CONTAINERS[built.container].unknown if unknown else 0
    open_ended = replace(
        built,
        size=lambda right: size,
        outer=lambda right: size if outer else right,
        frames=lambda right: 0 if frames else right,
    )
    assert check_all(write(place, built, open_ended.build() + after), built) == ()


@many
@given(built=intact(), lost=st.floats(0.0, 0.95))
def test_a_cut_file_gives_what_is_there_and_names_what_is_missing(place, built, lost):
    built = replace(built, behind=(), common_last=False)
    data = built.build()
    width = built.channels * ENCODINGS[built.encoding].width
    payload = len(built.payload) * width
    padding = 0 if built.container in ("caf", "au", "au_little") else -payload % (8 if built.container == "w64" else 2)
    missing = max(1, int(lost * payload))
    sound, damage, _ = decode(write(place, built, data[: len(data) - padding - missing]))
    left = (payload - missing) // width
    np.testing.assert_array_equal(sound, expected(built.payload[:left], built.encoding))
    gone = len(built.payload) - left
    if gone < built.rate // 100:
        assert damage == f"truncated: the last {gone} of {len(built.payload)} samples are missing"
    else:
        seconds = len(built.payload) / built.rate
        assert damage == f"truncated: only {left / built.rate:.3f} s of {seconds:.3f} s can be read"


@many
@given(built=intact(), data=st.data())
def test_several_chunks_of_sound_are_one_recording(place, built, data):
    built = replace(built, container=data.draw(st.sampled_from(["wav", "rifx", "w64"])), common_last=False, behind=())
    if built.encoding == "s8":
        built = replace(built, encoding="u8", payload=built.payload + 128)
    parts = data.draw(st.lists(st.integers(1, len(built.payload) // 4), min_size=1, max_size=3))
    assert check_all(write(place, replace(built, parts=tuple(parts))), built) == ()


@many
@given(built=intact(), count=st.integers(8, STRAY), zeros=st.booleans())
def test_a_few_bytes_behind_a_complete_container_are_not_sound(place, built, count, zeros):
    if built.container in ("caf", "au", "au_little"):  # which have no size of the whole
        built = replace(built, container="w64", encoding="s16", payload=np.zeros((3000, 2), int) + 7, behind=())
    built = replace(built, behind=(), common_last=False)  # the sound is the last chunk
    data = built.build()
    stray = bytes(count) if zeros else np.random.default_rng(count).bytes(count)
    notes = check_all(write(place, built, data + stray), built)
    assert notes == (() if zeros else (f"{count} bytes behind the end of the sound are not used",))


@pytest.mark.parametrize("magic", ["rf64", "bw64"])
@pytest.mark.parametrize("outer", [0, 2**64 - 1])
@pytest.mark.parametrize("ds64", [True, False])
def test_an_rf64_that_was_never_closed(place, magic, outer, ds64):
    payload = make_payload(np.random.default_rng(1), "s24", 5000, 2)
    built = Built(magic, "s24", 96000, payload, size=lambda size: 0, outer=lambda size: outer)
    if not ds64:
        built = replace(built, extra={"no_ds64": int})
    assert check_all(write(place, built), built) == ()


def test_sizes_that_wrapped_at_4_gib(tmp_path):
    """4 GiB + 1.5 s of silence, with sound at both ends; as the file is sparse, it takes little room."""
    payload = make_payload(np.random.default_rng(2), "s16", 44100, 2)
    sound = payload.astype("<i2").tobytes()
    total = 2**32 + 6 * 44100
    head = chunk(b"fmt ", struct.pack("<HHIIHH", 1, 2, 44100, 176400, 4, 16)) + b"data" + struct.pack("<I", total % 2**32)
    head = b"RIFF" + struct.pack("<I", (4 + len(head) + total) % 2**32) + b"WAVE" + head
    with open(tmp_path / "long.wav", "wb") as file:
        file.write(head + sound)
        file.seek(len(head) + total - len(sound))
        file.write(sound + chunk(b"LIST", b"INFOISFT\4\0\0\0abc\0"))
    held, _ = examine(tmp_path / "long.wav")
    assert held is not None
    assert (held.declared, held.present) == (total % 2**32, total)
    with open_audio(tmp_path / "long.wav") as decoder:
        assert decoder.declared_samples == total // 4
        assert decoder.notes == (f"the header declares 1.500 s; all {total / 176400:.3f} s that the file holds are used",)
        np.testing.assert_array_equal(next(decoder.blocks(1)), expected(payload, "s16"))
    assert held.pieces is not None
    with open(tmp_path / "long.wav", "rb") as file, soundfile.SoundFile(ByteView(file, held.pieces)) as view:
        view.seek(-44100, os.SEEK_END)
        np.testing.assert_array_equal(view.read(dtype="float32").T, expected(payload, "s16"))


def test_a_cut_file_of_several_chunks_and_a_cut_recording_that_was_not_closed(tmp_path):
    payload = make_payload(np.random.default_rng(3), "s16", 9000, 1)
    built = Built("wav", "s16", 44100, payload, parts=(3000,))
    sound, damage, _ = decode(write(tmp_path, built, built.build()[:-2000]))
    np.testing.assert_array_equal(sound, expected(payload[:8000], "s16"))
    assert damage == "truncated: only 0.181 s of 0.204 s can be read"


def test_sounds_of_different_formats_in_one_file_are_named(tmp_path):
    fmt = [struct.pack("<HHIIHH", 1, 1, rate, 2 * rate, 2, 16) for rate in (44100, 22050)]
    body = b"".join(chunk(b"fmt ", form) + chunk(b"data", bytes(range(256)) * 40) for form in fmt)
    (tmp_path / "two.wav").write_bytes(b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WAVE" + body)
    sound, damage, _ = decode(tmp_path / "two.wav")
    assert sound.shape == (1, 5120)
    assert damage == "the format changes after 0.116 s"


@pytest.mark.parametrize(("name", "encoding"), pairs)
def test_independent_decoders_agree(tmp_path, name, encoding):
    payload = make_payload(np.random.default_rng(5), encoding, 3000, 2)
    if encoding in ("f32", "f64"):
        payload = payload / np.abs(payload).max()  # sox works with integers
    built = Built(name, encoding, 44100, payload)
    path = write(tmp_path, built)
    ours, damage, _ = decode(path)
    assert damage is None
    if name not in ("au_little", "rifx"):  # which FFmpeg does not know, or takes for little-endian
        np.testing.assert_array_equal(by_ffmpeg(path, 2), ours)
    if name not in ("rf64", "bw64", "w64", "au_little", "caf") and (name != "aiff" or encoding[0] == "s"):
        # sox has integers of 32 bits, and of 16 bits behind the tables of G.711.
        tolerance = 2**-15 if encoding in ("ulaw", "alaw") else 2**-24
        np.testing.assert_allclose(by_sox(path, 2), ours, rtol=0, atol=tolerance)


PIPED = [("ffmpeg", kind) for kind in ("wav", "aiff", "au", "voc", "w64", "rf64")] + [
    ("sox", kind) for kind in ("wav", "aiff", "au")
]


@pytest.mark.parametrize(("program", "kind"), PIPED)
def test_what_these_programs_write_into_a_pipe(tmp_path, program, kind):
    sound = make_payload(np.random.default_rng(4), "s16", 20_001, 2).astype(np.int16)
    soundfile.write(tmp_path / "in.wav", sound, 44100, subtype="PCM_16")
    form = ["wav", "-rf64", "always"] if kind == "rf64" else [kind]
    codec = ["-c:a", "pcm_s16le"] if kind in ("voc", "wav", "rf64") else []
    run = {
        "ffmpeg": [command("ffmpeg"), "-v", "error", "-i", "in.wav", *codec, "-f", *form, "-"],
        "sox": [command("sox"), "-V1", "in.wav", "-t", kind, "-"],
    }
    data = subprocess.run(run[program], check=True, capture_output=True, stdin=subprocess.DEVNULL, cwd=tmp_path).stdout
    (tmp_path / "take").write_bytes(data)
    read, damage, notes = decode(tmp_path / "take")
    assert (damage, notes) == (None, ())
    np.testing.assert_array_equal(read, sound.T / np.float32(2**15))


def test_a_disk_that_fails_while_a_repaired_file_is_read_is_named(tmp_path):
    payload = make_payload(np.random.default_rng(6), "s16", 90000, 1)
    built = Built("wav", "s16", 44100, payload, size=lambda size: 0)
    path = write(tmp_path, built)
    with open_audio(path) as decoder:
        blocks = decoder.blocks(0.1)
        next(blocks)
        os.truncate(path, 60_000)
        with pytest.raises(OSError, match="changed while"):
            list(blocks)


@pytest.mark.parametrize("name", ["aiff", "rifx"])
def test_more_than_4_gib_where_no_size_can_say_so_is_named(tmp_path, name):
    """Sparse, 4 GiB + 1 s: the last second is named, not lost."""
    payload = make_payload(np.random.default_rng(0), "s16", 44100, 1)
    data = Built(name, "s16", 44100, payload, size=lambda size: size, frames=lambda frames: 2**31 + 44100).build()
    path = tmp_path / "long"
    with open(path, "wb") as file:
        file.write(data)
        file.truncate(len(data) + 2**32 - 1)
        file.write(b"\1")
    with open_audio(path) as decoder:
        assert decoder.declared_samples == pytest.approx(2**31 + 44100, abs=16)
    held, _ = examine(path)
    assert held is not None
    assert held.is_cut
    assert held.present == 2**32 - 16


@pytest.mark.parametrize("name", ["wav", "rifx"])
@pytest.mark.parametrize("encoding", ["u8", "s24", "f32", "alaw"])
def test_a_description_behind_the_sound(place, name, encoding):
    payload = make_payload(np.random.default_rng(0), encoding, 4000, 2)
    built = Built(name, encoding, 48000, payload, common_last=True)
    assert check_all(write(place, built), built) == ()


def test_a_chunk_without_its_byte_of_padding(tmp_path):
    built = Built("wav", "s16", 44100, make_payload(np.random.default_rng(0), "s16", 5000, 2))
    data = built.build()
    place = data.index(b"data")
    (tmp_path / "take.wav").write_bytes(data[:place] + b"LIST\x0f\0\0\0INFOISFT\3\0\0\0abc" + data[place:])
    decoded, error, _ = decode(tmp_path / "take.wav")
    assert error is None
    np.testing.assert_array_equal(decoded, expected(built.payload, "s16"))


def test_integers_of_64_bits(tmp_path):
    samples = np.random.default_rng(0).integers(-(2**63), 2**63 - 1, (5000, 2), dtype=np.int64)
    head = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 2, 44100, 44100 * 16, 16, 64)
    body = b"WAVE" + head + b"data" + struct.pack("<I", samples.nbytes) + samples.tobytes()
    (tmp_path / "take.wav").write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)
    decoded, error, _ = decode(tmp_path / "take.wav")
    assert error is None
    np.testing.assert_allclose(decoded, samples.T / 2.0**63, atol=2**-23)
