"""A folder such as archives have them, through a model, with the command a person would type: sixty files of every kind,
twelve of them bad."""

import os
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from rave_dist.identity import hash_file
from rave_dist.records import ModelCard
from rave_dist.storage.store import Store

SOUND_FORMATS = [
    ("wav", "WAV", "PCM_U8"),
    ("wav", "WAV", "PCM_16"),
    ("wav", "WAV", "PCM_24"),
    ("wav", "WAV", "PCM_32"),
    ("wav", "WAV", "FLOAT"),
    ("wav", "WAV", "DOUBLE"),
    ("flac", "FLAC", "PCM_16"),
    ("flac", "FLAC", "PCM_24"),
    ("aiff", "AIFF", "PCM_16"),
    ("aif", "AIFF", "PCM_24"),
    ("caf", "CAF", "PCM_16"),
    ("w64", "W64", "PCM_24"),
]
RATES = [8000, 11025, 44100, 192000]
BAD = {
    "bad/empty.wav",
    "bad/text.wav",
    "bad/header only.wav",
    "bad/cut.wav",
    "bad/cut.flac",
    "bad/cut.aiff",
    "bad/cut.mp3",
    "bad/cut.ogg",
    "bad/cut.m4a",
    "bad/rotten.flac",
    "bad/zeros.flac",
    "bad/not a number.wav",
}
SALVAGEABLE = {
    "bad/cut.wav",
    "bad/cut.flac",
    "bad/cut.aiff",
    "bad/cut.mp3",
    "bad/cut.ogg",
    "bad/rotten.flac",
    "bad/not a number.wav",
}


@pytest.fixture(scope="module")
def sound() -> Callable[..., np.ndarray]:
    """A swelling tone in noise, another in each channel: float32 [samples, channels]."""

    def make(seconds: float, rate: int, channels: int = 1) -> np.ndarray:
        time = np.arange(round(seconds * rate)) / rate
        tones = [np.sin(2 * np.pi * 300 * (c + 1) * time) * np.sin(np.pi * time / seconds) for c in range(channels)]
        noise = np.random.default_rng(rate + channels).standard_normal((len(time), channels))
        return (0.3 * np.stack(tones, axis=1) + 0.02 * noise).astype(np.float32)

    return make


def write_compressed(path: Path, samples: np.ndarray, rate: int, codec: str) -> None:
    """AAC and WMA, with FFmpeg."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout="mono" if samples.shape[1] == 1 else "stereo")
        stream.bit_rate = 128_000
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples.T), format="fltp", layout=stream.layout.name)
        frame.sample_rate = rate
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory, sound: Callable[..., np.ndarray]) -> Path:
    root = tmp_path_factory.mktemp("archive") / "Ende März 2019, Tonbänder"
    for folder in ("good", "good/Müller – Реки/日本", "lossy", "bad"):
        (root / folder).mkdir(parents=True)
    for index, (extension, container, subtype) in enumerate(SOUND_FORMATS):
        for step in range(3):
            rate = RATES[(index + step) % 4]
            folder = root / ("good/Müller – Реки/日本" if step == 2 else "good")
            name = f"{subtype} at {rate} ({container.lower()}).{extension}"
            soundfile.write(folder / name, sound(0.2 + 0.1 * step, rate, 1 + step % 2), rate, format=container, subtype=subtype)
    soundfile.write(root / "good" / "six channels.wav", sound(0.5, 48000, 6), 48000, subtype="PCM_24")
    soundfile.write(root / "good" / "SHOUTED.WAV", sound(0.5, 96000), 96000)
    soundfile.write(root / "good" / "one sample.wav", sound(0.5, 44100)[:1], 44100)
    soundfile.write(root / "good" / "same.wav", sound(0.5, 44100), 44100)
    soundfile.write(root / "good" / "same.aiff", sound(0.4, 44100), 44100)
    for rate in (22050, 44100):
        soundfile.write(root / "lossy" / f"v {rate}.ogg", sound(0.7, rate, 2), rate, subtype="VORBIS")
    soundfile.write(root / "lossy" / "o.opus", sound(0.7, 48000), 48000, format="OGG", subtype="OPUS")
    soundfile.write(root / "lossy" / "m.mp3", sound(0.7, 44100, 2), 44100)
    soundfile.write(root / "lossy" / "m low.mp3", sound(0.7, 16000), 16000)
    write_compressed(root / "lossy" / "a.m4a", sound(0.7, 44100), 44100, "aac")
    write_compressed(root / "lossy" / "w.wma", sound(0.7, 44100, 2), 44100, "wmav2")

    bad = root / "bad"
    (bad / "empty.wav").write_bytes(b"")
    (bad / "text.wav").write_text("Band 12, Seite A: nicht digitalisiert\n" * 20)
    soundfile.write(bad / "header only.wav", sound(0.5, 44100)[:0], 44100)
    for extension in ("wav", "flac", "aiff", "mp3", "ogg"):
        soundfile.write(bad / f"cut.{extension}", sound(2.0, 44100), 44100)
    write_compressed(bad / "cut.m4a", sound(2.0, 44100), 44100, "aac")
    for path in bad.glob("cut.*"):
        os.truncate(path, path.stat().st_size * 6 // 10)
    soundfile.write(bad / "rotten.flac", sound(2.0, 44100), 44100)
    rotten = bytearray((bad / "rotten.flac").read_bytes())
    rotten[len(rotten) // 2 : len(rotten) // 2 + 500] = os.urandom(500)
    (bad / "rotten.flac").write_bytes(rotten)
    (bad / "zeros.flac").write_bytes(bytes(5000))
    broken = sound(0.5, 44100)
    broken[1000] = np.nan
    soundfile.write(bad / "not a number.wav", broken, 44100, subtype="FLOAT")
    (root / "notes.txt").write_text("not a recording by its name: no one is told about it")
    return root


def hashes(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): hash_file(p) for p in folder.rglob("*") if p.is_file()}


def test_an_archive_of_sixty_files(
    archive: Path, local_store: Store, publish_tiny: Callable[..., ModelCard], rave_dist: Callable[..., object], tmp_path: Path
) -> None:
    card = publish_tiny(local_store, "rebana")
    before = hashes(archive)
    assert len(before) == 61

    def convert(*options: str, code: int = 3) -> dict[str, object]:
        outcome = rave_dist(
            *("convert", "--store", local_store.uri, "--model", "rebana", "--format", "flac", "--json", *options),
            archive,
            tmp_path / "out",
        )
        assert outcome.code == code, outcome.stderr
        assert "Traceback" not in outcome.stderr
        return outcome.document

    document = convert()
    assert hashes(archive) == before
    assert document["model"] == card.reference
    assert (document["converted"], document["skipped"]) == (48, 0)
    failed = {str(Path(f["source"]).relative_to(archive)): f["reason"] for f in document["failed"]}
    assert set(failed) == BAD
    assert all(failed.values())
    made = hashes(tmp_path / "out")
    assert set(made) == {
        str(Path(name).with_suffix(".flac")) if "same" not in name else f"{name}.flac" for name in before if name not in BAD
    } - {"notes.flac"}
    for name in made:
        sources = [archive / n for n in before if n == name.removesuffix(".flac") or str(Path(n).with_suffix(".flac")) == name]
        source, result = sources[0], soundfile.info(tmp_path / "out" / name)
        if source.suffix in (".m4a", ".wma"):
            assert abs(result.frames - 0.7 * 44100) <= 4096
            continue
        original = soundfile.info(source)
        assert (result.frames, result.samplerate, result.channels) == (original.frames, original.samplerate, original.channels)

    again = convert()
    assert (again["converted"], again["skipped"], len(again["failed"])) == (0, 48, 12)
    (tmp_path / "out" / "good" / "six channels.flac").unlink()
    third = convert()
    assert (third["converted"], third["skipped"]) == (1, 47)
    assert hashes(tmp_path / "out") == made

    salvaged = convert("--salvage")
    assert {str(Path(i["source"]).relative_to(archive)) for i in salvaged["salvaged"]} == SALVAGEABLE
    assert {str(Path(i["source"]).relative_to(archive)) for i in salvaged["failed"]} == BAD - SALVAGEABLE
    assert hashes(archive) == before
