"""Reads the chunks of WAV, RF64, Wave64 and AIFF files that are metadata."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import BinaryIO

from rave_dist.audio.io.chunks import Chunks, Dialect
from rave_dist.audio.io.dialects import AIFF, RIFX, W64
from rave_dist.audio.metadata import bext, guano, info, ixml, markers, wamd
from rave_dist.audio.metadata.names import INFO_NAMES, vorbis_name
from rave_dist.audio.metadata.record import Cue, Metadata
from rave_dist.audio.metadata.tagged import read_id3
from rave_dist.audio.metadata.text import Allowance, MetadataError, decoded

# Of the format itself, and fillers.
_TECHNICAL = frozenset(b"fmt |fact|data|ds64|JUNK|junk|PAD |FLLR|filr|Fake|slnt|wavl|COMM|FVER|SSND|\0\0\0\0".split(b"|"))
_OF_THE_RECORDING = frozenset(b"PEAK|levl|umid|MD5 |ResU|LGWV|peak".split(b"|"))
_AIFF_TEXTS = {b"NAME": "TITLE", b"AUTH": "ARTIST", b"(c) ": "COPYRIGHT", b"ANNO": "COMMENT"}
_W64_NAMES = {bytes.fromhex("5662f7ab2d39d21186c700c04f8edb8a"): b"cue "}


def read_chunked(file: BinaryIO, dialect: Dialect, chunks: Chunks, allowance: Allowance) -> Metadata:
    """The metadata of an open file, whose chunks are known."""

    def contents() -> Iterator[tuple[bytes, bytes]]:
        for chunk in chunks.others:
            name = _name(chunk.name, dialect)
            label = _label(name)
            if name in _TECHNICAL or not all(0x20 <= value < 0x7F for value in name):
                continue
            if name in _OF_THE_RECORDING:
                allowance.refuse(label, "it measures or identifies the recording")
            elif chunk.size < 0 or not allowance.take(label, chunk.size):
                continue
            else:
                file.seek(chunk.start)
                data = file.read(chunk.size)
                if len(data) < chunk.size:
                    allowance.refuse(label, f"it declares {chunk.size} bytes, of which the file has {len(data)}")
                elif dialect is RIFX and name != b"LIST":
                    allowance.refuse(label, "not supported in big-endian files")
                else:
                    yield name, data

    return (
        from_aiff(contents(), allowance)
        if dialect is AIFF
        else from_riff(contents(), allowance, order=">" if dialect is RIFX else "<")
    )


def _name(name: bytes, dialect: Dialect) -> bytes:
    return name if dialect is not W64 else _W64_NAMES.get(name, name[:4].replace(b"list", b"LIST"))


def _label(name: bytes) -> str:
    return name.decode("ascii", "replace").strip()


def from_riff(contents: Iterable[tuple[bytes, bytes]], allowance: Allowance, *, order: str = "<") -> Metadata:
    """The metadata in chunks of WAV, by name and content."""
    found = Metadata()
    cues: dict[int, Cue] = {}
    labels: list[tuple[bytes, bytes]] = []
    repeated: list[tuple[str, str]] = []

    def bext_of(data: bytes) -> None:
        nonlocal found
        read, remarks = bext.read_bext(data)
        allowance.remarks += remarks
        found = replace(found, bext=found.bext or read)

    def list_of(data: bytes) -> None:
        nonlocal found
        parts = info.read_list(data[4:], order)
        if data[:4] == b"INFO":
            found = replace(found, tags=(*found.tags, *_info(parts, allowance)))
        elif data[:4] == b"adtl":
            labels.extend(parts)
        else:
            allowance.refuse(f"LIST {_label(data[:4])}", "not supported")

    def wamd_of(data: bytes) -> None:
        nonlocal found
        fields, remarks = wamd.read_wamd(data)
        allowance.remarks += remarks
        found = replace(found, wamd=found.wamd or fields)

    def guano_of(data: bytes) -> None:
        nonlocal found
        found = replace(found, guano=found.guano or guano.read_guano(data))

    def ixml_of(data: bytes) -> None:
        nonlocal found
        found = replace(found, ixml=found.ixml or ixml.read_ixml(data))

    def smpl_of(data: bytes) -> None:
        nonlocal found
        sampler, remarks = markers.read_smpl(data)
        allowance.remarks += remarks
        found = replace(found, sampler=found.sampler or sampler)

    def id3_of(data: bytes) -> None:
        tags, remarks = read_id3(data)
        allowance.remarks += remarks
        repeated.extend(tags)

    readers: dict[bytes, Callable[[bytes], None]] = {
        b"bext": bext_of,
        b"LIST": list_of,
        b"wamd": wamd_of,
        b"guan": guano_of,
        b"iXML": ixml_of,
        b"smpl": smpl_of,
        b"id3 ": id3_of,
        b"ID3 ": id3_of,
        b"cue ": lambda data: cues.update(markers.read_cue(data)),
    }
    _read_each(contents, readers, allowance)
    try:
        cues = markers.read_adtl(labels, cues)
    except MetadataError as error:
        allowance.refuse("LIST adtl", error)
    named = {name for name, _ in found.tags}
    tags = (*found.tags, *(tag for tag in repeated if tag[0] not in named))
    return replace(found, tags=tags, cues=tuple(cues.values()))


def from_aiff(contents: Iterable[tuple[bytes, bytes]], allowance: Allowance) -> Metadata:
    """The metadata in chunks of AIFF, by name and content."""
    tags: list[tuple[str, str]] = []
    cues: dict[int, Cue] = {}
    instrument: list[bytes] = []

    def id3_of(data: bytes) -> None:
        found, remarks = read_id3(data)
        allowance.remarks += remarks
        tags.extend(tag for tag in found if tag[0] not in {name for name, _ in tags})

    def text_of(name: str) -> Callable[[bytes], None]:
        return lambda data: tags.append((name, decoded(data)))

    readers: dict[bytes, Callable[[bytes], None]] = {
        **{name: text_of(field) for name, field in _AIFF_TEXTS.items()},
        b"MARK": lambda data: cues.update(markers.read_mark(data)),
        b"INST": instrument.append,
        b"ID3 ": id3_of,
    }
    _read_each(contents, readers, allowance)
    sampler = None
    try:
        sampler = markers.read_inst(instrument[0], cues) if instrument else None
    except MetadataError as error:
        allowance.refuse("INST", error)
    return Metadata(tags=tuple(tags), cues=tuple(cues.values()), sampler=sampler)


def _read_each(
    contents: Iterable[tuple[bytes, bytes]], readers: dict[bytes, Callable[[bytes], None]], allowance: Allowance
) -> None:
    for name, data in contents:
        if name not in readers:
            allowance.refuse(_label(name), "not supported")
            continue
        try:
            readers[name](data)
        except (MetadataError, struct.error) as error:
            allowance.refuse(_label(name), error)


def _info(parts: Iterable[tuple[bytes, bytes]], allowance: Allowance) -> Iterator[tuple[str, str]]:
    for name, data in parts:
        key = name.decode("ascii", "replace")
        try:
            text = decoded(data)
        except MetadataError as error:
            allowance.refuse(key, error)
        else:
            yield INFO_NAMES.get(key, vorbis_name(key)), text
