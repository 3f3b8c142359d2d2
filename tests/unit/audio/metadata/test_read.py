"""Comments that stand for chunks, and the tags that are not true of any other samples."""

from __future__ import annotations

from pathlib import Path

import pytest
import soundfile
from field_recordings import everything, tone
from hypothesis import given
from hypothesis import strategies as st

from rave_dist.audio.io.write import AudioWriter
from rave_dist.audio.metadata.adapt import NewFile, adapt
from rave_dist.audio.metadata.read import from_comments, read_comment, read_metadata
from rave_dist.audio.metadata.record import Bext, Cue, Loop, Metadata, Sampler
from rave_dist.audio.metadata.text import Allowance
from rave_dist.audio.metadata.write import flac_blocks, wav_chunks

OWN = (("TITLE", "t"), ("DESCRIPTION", "d"), ("COMMENT", "c"), ("SOFTWARE", "s"))
WHOLE = Metadata(
    tags=(("TITLE", "Größe 鳥"), ("COMMENT", "one\ntwo"), ("LOCATION", "Südufer")),
    bext=Bext("", "rave-dist", "", "2024-05-03", "21:17:30", 2**40, "A=PCM,F=48000"),
    ixml="<BWFXML><NOTE>Größe</NOTE></BWFXML>",
    guano=(("GUANO|Version", "1.0"), ("User|Field", "1: 2"), ("Note", "a\\nb")),
    wamd=((1, b"SM4"), (10, bytes(range(256)))),
    cues=(Cue(1, 7, label="a b  c"), Cue(2, 2**32, 500, note="leise"), Cue(3, 9)),
    sampler=Sampler(67, loops=(Loop(1, 1, 5, 10, plays=3), Loop(2, 2, 0, 2**31))),
)


@pytest.mark.parametrize("file_format", ["wav", "flac"])
def test_what_is_written_is_read(tmp_path: Path, file_format: str) -> None:
    wav = file_format == "wav"
    written = Metadata(**{**WHOLE.__dict__, "cues": (Cue(1, 7, label="a b  c"), Cue(2, 70, 5, note="leise"))}) if wav else WHOLE
    path = tmp_path / "a"
    with AudioWriter(path, sample_rate=8000, channels=1, file_format=file_format, metadata=written) as writer:  # type: ignore[arg-type]
        writer.write(tone(100, 1).T.astype("f4") / 32768)
    found = read_metadata(path)
    assert found.remarks == ()
    for field in ("bext", "ixml", "guano", "wamd", "cues", "sampler"):
        assert getattr(found, field) == getattr(written, field), field
    assert set(found.tags) >= set(written.tags)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                [
                    "CUE_001",
                    "CUE_001_NOTE",
                    "LOOP_001",
                    "SAMPLER_NOTE",
                    "TIME_REFERENCE",
                    "WAMD",
                    "GUANO",
                    "IXML",
                    "ORIGINATION_DATE",
                    "TITLE",
                ]
            ),
            st.one_of(st.text(), st.from_regex(r"[0-9]{0,22}( [0-9]{0,12}){0,2}( forward [0-9]{1,12})?", fullmatch=True)),
        )
    )
)
def test_no_comment_fails_a_file(comments: list[tuple[str, str]]) -> None:
    adapted = adapt(from_comments(comments, Allowance()), NewFile("a", 48000, 2, 96000, 1, 16, None, OWN))
    wav_chunks(adapted, 96000)
    flac_blocks(adapted, 2**40)


@pytest.mark.parametrize(
    "name",
    ["ISRC", "MUSICBRAINZ_TRACKID", "REPLAYGAIN_TRACK_GAIN", "R128_TRACK_GAIN", "ACOUSTID_FINGERPRINT", "AUDIO_MD5", "UMID"],
)
def test_what_identifies_or_measures_a_recording_is_named(tmp_path: Path, name: str) -> None:
    metadata = Metadata(tags=((name, "12345"), ("ARTIST", "Anna"), ("DERIVED_FROM_SHA256", "0" * 64)))
    with AudioWriter(tmp_path / "a.flac", sample_rate=8000, channels=1, metadata=metadata) as writer:
        writer.write(tone(100, 1).T.astype("f4") / 32768)
    found = read_metadata(tmp_path / "a.flac")
    assert found.tags == (("ARTIST", "Anna"), ("DERIVED_FROM_SHA256", "0" * 64))
    assert found.remarks == (f"{name}: it identifies or measures the recording",)


def test_comments_of_any_length_are_read(tmp_path: Path) -> None:
    """libsndfile leaves out a list of more than a few thousand bytes."""
    for file_format in ("wav", "flac"):
        path = tmp_path / f"a.{file_format}"
        metadata = Metadata(tags=(("COMMENT", "x" * 20_000 + " end"),))
        with AudioWriter(path, sample_rate=8000, channels=1, file_format=file_format, metadata=metadata) as writer:  # type: ignore[arg-type]
            writer.write(tone(100, 1).T.astype("f4") / 32768)
        assert read_comment(path).endswith(" end")
    assert read_comment(tmp_path / "missing") == ""
    with soundfile.SoundFile(tmp_path / "b.flac", "w", 8000, 1) as file:
        file.comment = "of libsndfile"
        file.write(tone(100, 1))
    assert read_comment(tmp_path / "b.flac") == "of libsndfile"
    assert read_comment(everything(tmp_path / "c.wav")).startswith("Recorded at")
