"""Chunks that are malformed, huge or hostile cost only themselves: they are named, and the rest is read."""

from __future__ import annotations

import os
import resource
import struct
from pathlib import Path

import pytest
from field_recordings import AUDIOMOTH, GUANO, IXML, adtl, aiff, bext, chunk, cue, everything, info, smpl, wamd, wav
from hypothesis import given, settings
from hypothesis import strategies as st

from rave_dist.audio.io.open import open_audio
from rave_dist.audio.metadata.adapt import NewFile, adapt
from rave_dist.audio.metadata.chunked import from_aiff, from_riff
from rave_dist.audio.metadata.read import read_metadata
from rave_dist.audio.metadata.record import Metadata
from rave_dist.audio.metadata.text import Allowance
from rave_dist.audio.metadata.write import flac_blocks, wav_chunks

BOMB = (
    '<!DOCTYPE a [<!ENTITY b "bbbbbbbbbb">'
    + "".join(f'<!ENTITY c{i} "&b;&b;&b;&b;&b;">' for i in range(50))
    + "]><BWFXML>&b;</BWFXML>"
)

HOSTILE = {
    "bext too short": (chunk(b"bext", b"short"), "bext: it has 5 bytes"),
    "cue counts too many": (chunk(b"cue ", struct.pack("<I", 2**31) + bytes(24)), "cue: it declares 2147483648 cue points"),
    "smpl counts too many": (chunk(b"smpl", struct.pack("<9I", *[0] * 7, 2**30, 0)), "smpl: it declares 1073741824 loops"),
    "a loop backwards": (smpl(500, 400), "smpl: a loop ends before it begins"),
    "labels without numbers": (chunk(b"LIST", b"adtl" + chunk(b"labl", b"ab")), "LIST adtl: labl has 2 bytes"),
    "a part longer than its list": (
        chunk(b"LIST", b"INFOINAM" + struct.pack("<I", 10**6) + b"x"),
        "LIST: its part INAM is longer",
    ),
    "entities": (chunk(b"iXML", BOMB.encode()), "iXML: it has a document type"),
    "entities in UTF-16": (chunk(b"iXML", BOMB.encode("utf-16")), "iXML: "),
    "no XML": (chunk(b"iXML", b"<BWFXML><open>"), "iXML: not well-formed"),
    "deep XML": (chunk(b"iXML", b"<a>" * 10_000 + b"</a>" * 10_000), "iXML: its elements are nested too deeply"),
    "GUANO without a colon": (chunk(b"guan", b"GUANO|Version: 1.0\nnonsense\n"), "guan: line 2 is not a field"),
    "undecodable GUANO": (chunk(b"guan", b"Note: \x81\x8d"), "guan: its text is neither UTF-8 nor Windows-1252"),
    "a wamd field too long": (chunk(b"wamd", struct.pack("<HI", 1, 10**9) + b"x"), "wamd: a field is longer"),
    "a broken ID3 tag": (chunk(b"id3 ", b"not a tag"), "id3: it does not begin as an ID3v2 tag"),
    "2 MiB of text": (info(ICMT="x" * (2 << 20)), "LIST: larger than 1 MiB"),
    "an unknown chunk": (chunk(b"dbmd", bytes(10)), "dbmd: not supported"),
    "peaks": (chunk(b"PEAK", bytes(16)), "PEAK: it measures or identifies the recording"),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("behind", [False, True])
def test_what_is_wrong_is_named_and_the_rest_is_read(tmp_path: Path, name: str, behind: bool) -> None:
    data, remark = HOSTILE[name]
    good = info(IART="Anna")
    source = wav(tmp_path / "a.wav", good, after=data) if behind else wav(tmp_path / "a.wav", data, good)
    found = read_metadata(source)
    assert found.tag("ARTIST") == "Anna"
    assert [said for said in found.remarks if said.startswith(remark)], found.remarks
    with open_audio(source) as decoder:
        assert sum(block.shape[1] for block in decoder.blocks()) == 96_000


@pytest.mark.parametrize("declared", [100_000_000, 2**32 - 1, 2**31])
@pytest.mark.parametrize("name", [b"bext", b"LIST", b"guan", b"wamd", b"iXML", b"id3 "])
def test_a_size_beyond_the_file_reads_no_memory(tmp_path: Path, name: bytes, declared: int) -> None:
    source = wav(tmp_path / "a.wav", info(IART="Anna"), after=name + struct.pack("<I", declared) + b"abc")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = read_metadata(source)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 << 10, "KiB"
    assert found.tag("ARTIST") == "Anna"
    assert f"{name.decode().strip()}: larger than 1 MiB" in found.remarks


def test_a_chunk_that_the_file_does_not_hold_is_named(tmp_path: Path) -> None:
    source = wav(tmp_path / "a.wav", info(IART="Anna"), after=b"guan" + struct.pack("<I", 5000) + b"Note: x\n")
    assert "guan: it declares 5000 bytes, of which the file has 8" in read_metadata(source).remarks


def test_a_hundred_megabytes_that_are_there_are_not_read(tmp_path: Path) -> None:
    source = wav(tmp_path / "a.wav", info(IART="Anna"), after=b"iXML" + struct.pack("<I", 100_000_000))
    os.truncate(source, source.stat().st_size + 100_000_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "iXML: larger than 1 MiB" in read_metadata(source).remarks
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 << 10, "KiB"


def test_all_chunks_of_a_file_have_one_limit(tmp_path: Path) -> None:
    note = chunk(b"guan", b"Note: " + b"x" * 900_000)
    found = read_metadata(wav(tmp_path / "a.wav", *[note] * 12, info(IART="Anna"), samples=100))
    assert "guan: the metadata of the file are larger than 8 MiB" in found.remarks
    assert found.tag("ARTIST") == "Anna"


@pytest.mark.parametrize("padded", [False, True])
def test_song_meters_leave_out_the_padding(tmp_path: Path, padded: bool) -> None:
    source = wav(
        tmp_path / "a.wav", wamd(padded=padded), chunk(b"guan", GUANO.encode()), info(ICMT=AUDIOMOTH), bext(), samples=4800
    )
    found = read_metadata(source)
    assert dict(found.wamd)[1] == b"SM4BAT-FS"
    assert dict(found.guano)["Species Manual ID"] == "Pippip"
    assert found.bext is not None
    assert found.tag("COMMENT") == AUDIOMOTH


def test_a_time_reference_of_more_than_32_bits(tmp_path: Path) -> None:
    found = read_metadata(wav(tmp_path / "a.wav", bext(384_000), samples=10))
    assert found.bext is not None
    assert found.bext.time_reference == 76_650 * 384_000 > 2**32


def test_wave64_and_rf64_have_the_same_chunks(tmp_path: Path) -> None:
    data = bytes(9600)
    form = struct.pack("<HHIIHH", 1, 1, 48000, 96000, 2, 16)
    parts = bext() + info(IART="Anna")
    rf64 = tmp_path / "a.rf64.wav"
    body = chunk(b"ds64", struct.pack("<QQQI", 0, len(data), 4800, 0)) + chunk(b"fmt ", form)
    body += b"data" + struct.pack("<I", 2**32 - 1) + data + parts
    rf64.write_bytes(b"RF64" + struct.pack("<I", 2**32 - 1) + b"WAVE" + body)
    found = read_metadata(rf64)
    assert (found.tag("ARTIST"), found.bext is not None) == ("Anna", True)

    tail = bytes.fromhex("f3acd3118cd100c04f8edb8a")

    def part(name: bytes, content: bytes) -> bytes:
        return name + tail + struct.pack("<Q", 24 + len(content)) + content + bytes(-len(content) % 8)

    w64 = tmp_path / "a.w64"
    body = b"wave" + tail + part(b"fmt ", form) + part(b"bext", bext()[8:]) + part(b"data", data)
    head = b"riff" + bytes.fromhex("2e91cf11a5d628db04c10000")
    w64.write_bytes(head + struct.pack("<Q", 24 + len(body)) + body)
    found = read_metadata(w64)
    assert found.bext is not None
    assert found.bext.originator == "Sound Devices 702"


VALID = {
    b"bext": bext()[8:],
    b"LIST": adtl(labels={1: "a"}, notes={1: "b"}, regions={1: 10})[8:],
    b"cue ": cue((1, 100), (2, 200))[8:],
    b"smpl": smpl(10, 20)[8:],
    b"wamd": wamd()[8:],
    b"iXML": IXML.encode(),
    b"MARK": struct.pack(">HHIB", 1, 1, 100, 3) + b"abc",
    b"INST": bytes(20),
    b"NAME": b"x",
}


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_content_fails_a_file(data: st.DataObject) -> None:
    """Whatever a chunk has, it is read or named, and what was read can be adapted and written."""
    contents = []
    for name in data.draw(st.lists(st.sampled_from(sorted(VALID)), min_size=1, max_size=4)):
        content = bytearray(VALID[name])
        for _ in range(data.draw(st.integers(0, 6))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        contents.append((name, bytes(content[: data.draw(st.integers(0, len(content)))])))
    new = NewFile("a", 48000, 2, data.draw(st.sampled_from((8000, 44100, 384_000))), 1, 16, 1000, OWN)
    for read in (from_riff, from_aiff):
        adapted = adapt(read(contents, Allowance()), new)
        wav_chunks(adapted, new.sample_rate)
        flac_blocks(adapted, new.samples)


OWN = (("TITLE", "t"), ("DESCRIPTION", "d"), ("COMMENT", "c"), ("SOFTWARE", "s"))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300), st.integers(0, 60_000))
def test_no_damage_in_the_middle_of_a_file_fails_it(tmp_path_factory: pytest.TempPathFactory, junk: bytes, place: int) -> None:
    folder = tmp_path_factory.getbasetemp()
    whole = folder / "whole.wav"
    if not whole.exists():
        everything(whole)
    data = bytearray(whole.read_bytes()[:4000])
    data[place % 4000 : place % 4000 + len(junk)] = junk
    (folder / "damaged.wav").write_bytes(data)
    assert isinstance(read_metadata(folder / "damaged.wav"), Metadata)


def test_an_aiff_whose_markers_lie(tmp_path: Path) -> None:
    source = aiff(tmp_path / "a.aiff")
    data = source.read_bytes()
    source.write_bytes(
        data.replace(
            b"MARK" + data[data.index(b"MARK") + 4 :][:4] + b"\0\2", b"MARK" + data[data.index(b"MARK") + 4 :][:4] + b"\xff\xff"
        )
    )
    found = read_metadata(source)
    assert "MARK: it declares 65535 markers in 24 bytes" in found.remarks
    assert found.tag("TITLE") == "Teich"


@pytest.mark.parametrize(
    "content", [b"", b"RIFF", b"fLaC", b"fLaC\x04\xff\xff\xff", b"ID3\x04\0\0\0\0\0\0", b"OggS" + bytes(50), bytes(5000)]
)
def test_what_is_no_recording_has_no_metadata(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a").write_bytes(content)
    assert read_metadata(tmp_path / "a").tags == ()
    assert read_metadata(tmp_path / "missing").remarks
