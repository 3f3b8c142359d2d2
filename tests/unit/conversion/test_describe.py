"""Field recordings stay field recordings, as readers that are not ours see it, and no conversion claims to be one."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from decoding import command
from field_recordings import AUDIOMOTH, SINCE_MIDNIGHT, aiff, everything, info, wav
from guano import GuanoFile
from wavinfo import WavInfoReader

import rave_dist
from rave_dist.conversion.convert import Converter
from rave_dist.conversion.corpus import plan_conversion
from rave_dist.conversion.item import convert_source
from rave_dist.identity import hash_file
from rave_dist.records import ConversionItem, ConversionParameters, ModelCard
from rave_dist.storage.store import Store

Run = Callable[..., tuple[Path, ConversionItem]]


@pytest.fixture
def run(scripted: Callable[..., tuple[Path, ModelCard]], local_store: Store, tmp_path: Path) -> Run:
    """Converts one file with a model that answers with its input; the output and its entry in the journal."""

    def convert(source: Path, output: str, **parameters: object) -> tuple[Path, ConversionItem]:
        path, card = scripted("mirror")
        card = card.model_copy(update={"credit": {"name": "Jörg Weiß", "licence": "CC BY-NC 4.0"}})
        plan = plan_conversion(card, [str(source)], str(tmp_path / output), ConversionParameters(**parameters))  # type: ignore[arg-type]
        before = source.read_bytes()
        (outcome,) = convert_source(local_store, plan.tasks[0], [(plan, Converter(path, card))], chunk_seconds=0.5)
        item = outcome.item
        assert item.state == "converted", item.reason
        assert source.read_bytes() == before
        return Path(item.output), item

    return convert


def by_ffprobe(path: Path) -> dict[str, str]:
    """The tags of container and track, with lower-case names."""
    show = [command("ffprobe"), "-v", "error", "-show_format", "-show_streams", "-of", "json", str(path)]
    found = json.loads(subprocess.run(show, check=True, capture_output=True).stdout)
    tags = {**found["format"].get("tags", {}), **found["streams"][0].get("tags", {})}
    return {name.lower(): text for name, text in tags.items()}


def chapters(path: Path) -> list[int]:
    """The starts of a file's chapters in samples."""
    show = [command("ffprobe"), "-v", "error", "-show_chapters", "-of", "json", str(path)]
    return [
        chapter["start"] for chapter in json.loads(subprocess.run(show, check=True, capture_output=True).stdout)["chapters"]
    ]


def by_exiftool(path: Path, *options: str) -> str:
    """What exiftool shows: a line for each tag, with its name and its text."""
    found = shutil.which("exiftool")
    if found is None:
        pytest.skip("the command exiftool is missing: nothing reads the metadata (apt-get install libimage-exiftool-perl)")
    show = [found, "-a", "-s", "-charset", "riff=utf8", *options, str(path)]
    shown = subprocess.run(show, check=True, capture_output=True, encoding="utf-8").stdout
    return "\n".join(re.sub(r"\s+: ", ": ", line, count=1) for line in shown.splitlines())


@pytest.mark.parametrize("rate", [48000, 44100, 96000])
def test_wav_to_wav_keeps_every_chunk_at_any_rate(run: Run, tmp_path: Path, rate: int) -> None:
    source = everything(tmp_path / "in" / "Teich 鳥.wav")
    output, item = run(source, f"out-{rate}.wav", sample_rate=rate)
    assert soundfile.info(output).subtype == "PCM_24"
    assert soundfile.info(output).frames == 2 * rate
    found = WavInfoReader(str(output), info_encoding="utf-8")
    assert found.bext is not None
    assert found.bext.time_reference == SINCE_MIDNIGHT * rate
    assert (found.bext.originator_date, found.bext.originator_time) == ("2024-05-03", "21:17:30")
    assert found.bext.description.startswith("Derived from Teich ?.wav by mirror@1. Not a recording")
    assert found.bext.originator == f"rave-dist {rave_dist.__version__}"
    assert found.bext.coding_history.splitlines() == [
        "A=PCM,F=48000,W=24,M=stereo,T=702",
        f"A=PCM,F={rate},W=24,M=stereo,T=Derived from Teich ?.wav by mirror@1; rave-dist {rave_dist.__version__}",
    ]
    assert not any(found.bext.umid or b"")
    assert found.cues is not None
    assert [(c.name, c.sample_offset, c.position) for c in found.cues.cues] == [
        (number, seconds * rate, seconds * rate) for number, seconds in ((1, 1), (2, 1 / 2), (3, 4 / 3))
    ]
    assert {label.name: label.text for label in found.cues.labels} == {1: "Ruf — 鳥", 2: "Schritte"}
    assert [region.length for region in found.cues.ranges] == [rate / 3]
    assert found.smpl is not None
    assert [(x.start, x.end + 1, x.loop_type, x.repetition_count) for x in found.smpl.sample_loops] == [
        (rate / 3, rate * 5 / 3, 1, 4)
    ]
    assert (found.smpl.midi_note, found.smpl.sample_period_ns) == (67, round(1e9 / rate))
    assert found.ixml is not None
    speed = {child.tag: child.text for child in found.ixml.raw_xml.find("SPEED")}  # type: ignore[union-attr]
    since = (1 << 32) + 48000
    assert (int(speed["TIMESTAMP_SAMPLES_SINCE_MIDNIGHT_HI"]) << 32) + int(
        speed["TIMESTAMP_SAMPLES_SINCE_MIDNIGHT_LO"]
    ) == round(since * rate / 48000)
    assert speed["FILE_SAMPLE_RATE"] == speed["TIMESTAMP_SAMPLE_RATE"] == str(rate)
    assert (found.ixml.project, found.ixml.scene, found.ixml.take) == ("Flüsse", "7", "3")
    assert found.ixml.raw_xml.findtext("HISTORY/PARENT_UID") == "UID-OF-THE-RECORDING"
    assert found.ixml.raw_xml.find("FILE_UID") is None
    guano = GuanoFile(str(output), strict=True)
    assert (guano["Samplerate"], guano["Length"], guano["Loc Position"]) == (rate, 2.0, (52.520008, 13.404954))
    assert guano["Timestamp"].isoformat() == "2024-05-03T21:17:30+02:00"
    assert "Not a recording" in guano["Note"]
    assert "User|MD5" not in guano
    for refused in ("bext UMID", "bext loudness", "GUANO User|MD5", "iXML FILE_UID", "wamd voice note", "GUANO WA|Song Meter"):
        assert any(remark.startswith(refused) for remark in item.not_carried), refused
    assert {"bext", "iXML", "GUANO", "wamd", "3 cue points", "smpl with 1 loops", "ARTIST"} <= set(item.carried)


def test_the_tags_of_a_wav_say_what_it_is(run: Run, tmp_path: Path) -> None:
    source = everything(tmp_path / "in" / "Teich.wav")
    output, _ = run(source, "out.wav")
    found = WavInfoReader(str(output), info_encoding="utf-8").info
    assert found is not None
    assert (found.title, found.artist) == ("Derived from Teich.wav by mirror@1", "Anna Größe")
    assert found.copyright == "© 2024 Anna Größe, CC BY 4.0"
    assert found.comment is not None
    assert found.comment.startswith(AUDIOMOTH), "programs that read AudioMoth's comment still can"
    assert f"Teich.wav (sha256 {hash_file(source)}) through mirror@1, seed 0" in found.comment
    assert found.subject is not None
    assert found.subject.startswith("Not a recording")
    assert by_ffprobe(output)["time_reference"] == str(SINCE_MIDNIGHT * 48000)
    riff, id3 = by_exiftool(output, "-RIFF:all"), by_exiftool(output, "-ID3:all")
    for shown in (riff, id3):
        assert "Title: Derived from Teich.wav by mirror@1" in shown
        assert "Artist: Anna Größe" in shown
    assert f"TimeReference: {SINCE_MIDNIGHT * 48000}" in riff
    for name, text in {
        "SOURCE_TITLE": "Teich bei Nacht",
        "SOURCE_SOFTWARE": "Reaper",
        "SOURCE_ORIGINATOR": "Sound Devices 702",
        "PERFORMER": "mirror: licence: CC BY-NC 4.0; name: Jörg Weiß",
        "MODEL_LICENCE": "CC BY-NC 4.0",
        "DERIVED_FROM_SHA256": hash_file(source),
        "ENGINE": "acids-rave 2.3.1",
        "PARAMETERS": "seed 0, latent noise 1, 48000 Hz, channels: 2",
        "COORDINATES": "52.520008, 13.404954",
    }.items():
        assert f"UserDefinedText: ({name}) {text}" in id3


@pytest.mark.parametrize("rate", [48000, 44100])
def test_wav_to_flac_and_back_keeps_positions_times_and_texts(run: Run, tmp_path: Path, rate: int) -> None:
    source = everything(tmp_path / "in" / "Teich.wav")
    output, _ = run(source, "out.flac", sample_rate=rate)
    tags = by_ffprobe(output)
    assert tags["title"] == "Derived from Teich.wav by mirror@1"
    assert tags["time_reference"] == str(SINCE_MIDNIGHT * rate)
    assert (tags["artist"], tags["source_title"]) == ("Anna Größe", "Teich bei Nacht")
    assert tags["cue_001"] == f"{rate} 0 Ruf — 鳥"
    assert tags["start_time"] == "2024-05-03T21:17:30+02:00"
    assert "Loc Position: 52.520008 13.404954" in tags["guano"]
    assert chapters(output) == [rate // 2, rate, rate * 4 // 3], "the cue sheet"
    tested = subprocess.run([command("flac"), "-t", "-s", str(output)], capture_output=True, check=False)
    assert tested.returncode == 0, tested.stderr
    assert "Title: Derived from Teich.wav by mirror@1" in by_exiftool(output)

    back, item = run(output, "back.wav", sample_rate=48000)
    found = WavInfoReader(str(back), info_encoding="utf-8")
    assert found.bext is not None
    assert found.bext.time_reference == SINCE_MIDNIGHT * 48000
    assert len(found.bext.coding_history.splitlines()) == 3
    assert found.cues is not None
    assert [c.sample_offset for c in found.cues.cues] == [48_000, 24_000, 64_000]
    assert found.smpl is not None
    assert (found.smpl.sample_loops[0].start, found.smpl.sample_loops[0].end) == (16_000, 79_999)
    assert GuanoFile(str(back))["Species Manual ID"] == "Pippip"
    assert {"iXML", "wamd"} <= set(item.carried)
    assert "UserDefinedText: (SOURCE_DERIVED_FROM) Teich.wav" in by_exiftool(back, "-ID3:all")


def test_flac_keeps_foreign_chunks_and_pictures_are_named(run: Run, tmp_path: Path) -> None:
    source = everything(tmp_path / "in" / "Teich.wav", padded=True)
    packed = tmp_path / "in" / "packed.flac"
    subprocess.run([command("flac"), "-s", "--keep-foreign-metadata", "-o", str(packed), str(source)], check=True)
    picture = tmp_path / "picture.png"
    picture.write_bytes(
        bytes.fromhex(
            "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c49444154789c63f8cfc0000003010100c9fe92ef"
            "0000000049454e44ae426082"
        )
    )
    subprocess.run(
        [command("metaflac"), f"--import-picture-from={picture}", "--set-tag=ISRC=DEA123456789", str(packed)], check=True
    )
    output, item = run(packed, "out.flac")
    tags = by_ffprobe(output)
    assert (tags["artist"], tags["time_reference"]) == ("Anna Größe", str(SINCE_MIDNIGHT * 48000))
    assert chapters(output) == [24_000, 48_000, 64_000]
    assert "isrc" not in tags
    assert {"picture: pictures are not carried", "ISRC: it identifies or measures the recording"} <= set(item.not_carried)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.mp3", ["-c:a", "libmp3lame", "-id3v2_version", "4"]),
        ("a.m4a", ["-c:a", "aac"]),
        ("alac.m4a", ["-c:a", "alac"]),
        ("a.ogg", ["-c:a", "libvorbis"]),
        ("a.opus", ["-c:a", "libopus"]),
        ("a.flac", ["-c:a", "flac"]),
        ("a.wma", ["-c:a", "wmav2"]),
        ("a.mka", ["-c:a", "flac"]),
        ("a.aiff", ["-write_id3v2", "1"]),
        ("a.wav", []),
    ],
)
def test_tags_of_every_container_reach_the_output(run: Run, tmp_path: Path, name: str, options: list[str]) -> None:
    source = tmp_path / "in" / name
    plain = wav(tmp_path / "plain.wav", samples=24_000)
    tags = {"title": "Größe 鳥", "artist": "Anna Ångström", "copyright": "CC BY 4.0", "comment": "am Teich", "date": "2024"}
    given = [part for key, text in tags.items() for part in ("-metadata", f"{key}={text}")]
    source.parent.mkdir()
    subprocess.run([command("ffmpeg"), "-v", "error", "-i", str(plain), *options, *given, str(source)], check=True)
    output, _ = run(source, "out.flac")
    found = by_ffprobe(output)
    assert found["title"] == f"Derived from {name} by mirror@1"
    assert (found["source_title"], found["artist"], found["copyright"]) == ("Größe 鳥", "Anna Ångström", "CC BY 4.0")
    # FFmpeg writes a comment into FLAC as DESCRIPTION.
    expected = found["source_description"] if name == "a.flac" else found["comment"]
    assert expected == "am Teich" if name == "a.flac" else expected.startswith("am Teich. rave-dist: ")
    assert found["date"] == "2024"
    with soundfile.SoundFile(output) as file:
        assert hash_file(source) in file.comment


def test_aiff_markers_and_loops(run: Run, tmp_path: Path) -> None:
    output, _ = run(aiff(tmp_path / "a.aiff"), "out.wav", sample_rate=44100)
    found = WavInfoReader(str(output), info_encoding="utf-8")
    assert found.cues is not None
    assert [c.sample_offset for c in found.cues.cues] == [1470, 4410]
    assert found.smpl is not None
    assert (found.smpl.sample_loops[0].start, found.smpl.sample_loops[0].end, found.smpl.midi_note) == (1470, 4409, 67)
    assert found.info is not None
    assert (found.info.artist, found.info.copyright) == ("Anna Größe", "CC0")


@pytest.mark.parametrize("form", ["wav", "flac"])
def test_the_same_conversion_gives_the_same_bytes(run: Run, tmp_path: Path, form: str) -> None:
    source = everything(tmp_path / "in" / "Teich.wav")
    first, _ = run(source, f"one/out.{form}", sample_rate=44100)
    second, _ = run(source, f"two/out.{form}", sample_rate=44100)
    assert first.read_bytes() == second.read_bytes()


def test_a_recording_without_metadata_gets_only_what_is_true_of_its_output(run: Run, tmp_path: Path) -> None:
    output, item = run(wav(tmp_path / "a.wav", samples=4800), "out.wav")
    found = WavInfoReader(str(output))
    assert (found.bext, found.ixml, found.smpl) == (None, None, None)
    assert found.cues is None or not found.cues.cues
    assert item.not_carried == ()
    assert b"guan" not in output.read_bytes()
    assert found.info is not None
    assert found.info.title == "Derived from a.wav by mirror@1"


def test_other_channels_are_not_described_by_the_recording_s_track_list(run: Run, tmp_path: Path) -> None:
    output, item = run(everything(tmp_path / "a.wav"), "out.wav", channels=1)
    found = WavInfoReader(str(output))
    assert found.ixml is not None
    assert found.ixml.raw_xml.find("TRACK_LIST") is None
    assert "iXML TRACK_LIST: the new file has other channels" in item.not_carried
    assert found.bext is not None
    assert "M=mono" in found.bext.coding_history.splitlines()[-1]


def test_bytes_that_are_no_text_are_named(run: Run, tmp_path: Path) -> None:
    output, item = run(wav(tmp_path / "a.wav", info(IART=b"Anna \x81\x8d", ICOP=b"Gr\xf6\xdfe"), samples=4800), "out.flac")
    assert "IART: its text is neither UTF-8 nor Windows-1252" in item.not_carried
    assert by_ffprobe(output)["copyright"] == "Größe"
    assert np.abs(soundfile.read(output)[0]).max() > 0.1
