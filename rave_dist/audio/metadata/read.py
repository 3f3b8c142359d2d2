"""Reads the metadata of any recording; what is malformed, too large or not supported is remarked and never an error."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, TypeVar

from rave_dist.audio.io.layout import find_chunks
from rave_dist.audio.io.tags import without_tags
from rave_dist.audio.metadata import flac
from rave_dist.audio.metadata.chunked import from_riff, read_chunked
from rave_dist.audio.metadata.guano import read_guano
from rave_dist.audio.metadata.ixml import read_ixml
from rave_dist.audio.metadata.names import describes_container, identifies_recording
from rave_dist.audio.metadata.place import with_place_and_time
from rave_dist.audio.metadata.record import LOOP_KINDS, Bext, Cue, Loop, Metadata, Sampler
from rave_dist.audio.metadata.tagged import read_tags
from rave_dist.audio.metadata.text import Allowance, MetadataError
from rave_dist.audio.metadata.wamd import read_wamd
from rave_dist.errors import AudioError

_CUE = re.compile(r"CUE_(\d{3,4})")
_CUE_TEXT = re.compile(r"(\d{1,18})(?: (\d{1,18}))?(?: (.*))?", re.DOTALL)
_LOOP = re.compile(r"LOOP_(\d{3,4})")
_LOOP_TEXT = re.compile(rf"(\d{{1,10}}) (\d{{1,10}}) ({'|'.join(LOOP_KINDS)}) (\d{{1,9}})")

T = TypeVar("T")


def read_metadata(path: Path) -> Metadata:
    """The metadata of a file; empty where it cannot be read at all, with a remark."""
    allowance = Allowance()
    try:
        with path.open("rb") as file:
            found = _read(file, allowance)
    except (OSError, AudioError, MetadataError) as error:
        allowance.refuse("metadata", error)
        found = Metadata()
    return with_place_and_time(_true_of_others(replace(found, remarks=tuple(dict.fromkeys(allowance.remarks)))))


def read_comment(path: Path) -> str:
    """The comments of a file; empty for one without, and for one that is not a sound file."""
    return "\n".join(text for name, text in read_metadata(path).tags if name == "COMMENT")


def _read(file: BinaryIO, allowance: Allowance) -> Metadata:
    chunked = find_chunks(file)
    if chunked is not None:
        return read_chunked(file, *chunked, allowance)
    start = without_tags(file).start
    file.seek(start)
    if file.read(4) == b"fLaC":
        return _read_flac(file, start, allowance)
    file.seek(0)
    tags, remarks = read_tags(file)
    allowance.remarks += remarks
    return from_comments([(name, text) for name, text in tags if allowance.take(name, len(text))], allowance)


def _read_flac(file: BinaryIO, start: int, allowance: Allowance) -> Metadata:
    comments: list[tuple[str, str]] = []
    foreign: list[tuple[bytes, bytes]] = []
    cues: tuple[Cue, ...] = ()

    def content(block: flac.Block) -> bytes:
        file.seek(block.start)
        data = file.read(block.size)
        if len(data) < block.size:
            raise MetadataError("it is longer than the file")
        return data

    for block in flac.flac_blocks(file, start):
        name = {flac.VORBIS_COMMENT: "comments", flac.CUESHEET: "cue sheet", flac.PICTURE: "picture"}.get(block.kind, "")
        try:
            if block.kind == flac.PICTURE:
                allowance.refuse("picture", "pictures are not carried")
            elif block.kind == flac.VORBIS_COMMENT and allowance.take(name, block.size):
                comments += flac.read_comments(content(block))
            elif block.kind == flac.CUESHEET and allowance.take(name, block.size):
                cues = flac.read_cuesheet(content(block))
            elif block.kind == flac.APPLICATION and block.size > 4:
                file.seek(block.start)
                kind = file.read(4)
                if kind != b"riff":
                    allowance.refuse(f"APPLICATION {kind.decode('ascii', 'replace')}", "not supported")
                elif allowance.take("foreign chunk", block.size):
                    foreign.append((b"", content(block)[4:]))
        except MetadataError as error:
            allowance.refuse(name, error)
    found = from_comments(comments, allowance)
    if not found.cues and cues:
        found = replace(found, cues=cues)
    return found if not foreign else _with_foreign(found, [data for _, data in foreign], allowance)


def _with_foreign(found: Metadata, contents: list[bytes], allowance: Allowance) -> Metadata:
    """With the chunks of a WAV file, which ``flac --keep-foreign-metadata`` keeps: header and content of each in a block."""
    chunks = [(data[:4], data[8 : 8 + int.from_bytes(data[4:8], "little")]) for data in contents if len(data) >= 8]
    there = from_riff([chunk for chunk in chunks if chunk[0] not in (b"RIFF", b"RF64", b"data")], allowance)
    known = {name for name, _ in found.tags}
    return Metadata(
        tags=(*found.tags, *(tag for tag in there.tags if tag[0] not in known)),
        bext=found.bext or there.bext,
        ixml=found.ixml or there.ixml,
        guano=found.guano or there.guano,
        wamd=found.wamd or there.wamd,
        cues=there.cues or found.cues,
        sampler=found.sampler or there.sampler,
    )


def from_comments(comments: Iterable[tuple[str, str]], allowance: Allowance) -> Metadata:
    """Metadata of comments, some of which stand for chunks."""
    tags: list[tuple[str, str]] = []
    cues: dict[int, Cue] = {}
    notes: dict[int, str] = {}
    loops: list[Loop] = []
    first: dict[str, str] = {}
    for name, text in comments:
        base = name.removesuffix("_NOTE")
        if (cue := _CUE.fullmatch(base)) and base != name:
            notes[int(cue[1])] = text
        elif cue and (parts := _CUE_TEXT.fullmatch(text)):
            cues[int(cue[1])] = Cue(int(cue[1]), int(parts[1]), int(parts[2] or 0), label=parts[3] or "")
        elif (loop := _LOOP.fullmatch(name)) and (parts := _LOOP_TEXT.fullmatch(text)) and int(parts[1]) <= int(parts[2]):
            loops.append(Loop(int(loop[1]), LOOP_KINDS.index(parts[3]), int(parts[1]), int(parts[2]), plays=int(parts[4])))
        elif name in _CHUNKS:
            first.setdefault(name, text)
        else:
            tags.append((name, text))
    note = first.get("SAMPLER_NOTE", "")
    noted = tuple(replace(cue, note=notes.get(number, "")) for number, cue in sorted(cues.items()))

    def read(name: str, reader: Callable[[str], T], nothing: T) -> T:
        try:
            return reader(first[name]) if name in first else nothing
        except (MetadataError, binascii.Error, ValueError) as error:
            allowance.refuse(name, error)
            return nothing

    return Metadata(
        tags=tuple(tags),
        bext=_bext(first),
        ixml=read("IXML", read_ixml, None),
        guano=read("GUANO", read_guano, ()),
        wamd=read("WAMD", lambda text: read_wamd(base64.b64decode(text, validate=True))[0], ()),
        cues=noted,
        sampler=Sampler(int(note) if note.isdecimal() and len(note) < 4 else 60, loops=tuple(loops)) if note or loops else None,
    )


_BEXT = ("ORIGINATION_DATE", "ORIGINATION_TIME", "TIME_REFERENCE", "CODING_HISTORY", "ORIGINATOR", "ORIGINATOR_REFERENCE")
_CHUNKS = frozenset({*_BEXT, "IXML", "GUANO", "WAMD", "SAMPLER_NOTE"})


def _bext(first: dict[str, str]) -> Bext | None:
    if not any(name in first for name in _BEXT):
        return None
    date, time, reference, history, originator, its = (first.get(name, "") for name in _BEXT)
    return Bext(
        "", originator, its, date, time, int(reference) if reference.isdecimal() and len(reference) < 20 else 0, history
    )


def _true_of_others(found: Metadata) -> Metadata:
    """Without tags that are about the container or identify the recording."""
    wrong = list(dict.fromkeys(name for name, _ in found.tags if identifies_recording(name)))
    tags = (tag for tag in found.tags if tag[0] not in wrong and not describes_container(tag[0]) and tag[1])
    remarks = (f"{name}: it identifies or measures the recording" for name in wrong)
    return replace(found, tags=tuple(dict.fromkeys(tags)), remarks=(*found.remarks, *remarks))
