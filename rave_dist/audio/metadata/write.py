"""The bytes of metadata in WAV and FLAC files; the docstring of the package lists what goes where."""

from __future__ import annotations

import base64
from collections.abc import Iterator

from rave_dist.audio.metadata import flac
from rave_dist.audio.metadata.bext import build_bext
from rave_dist.audio.metadata.guano import build_guano
from rave_dist.audio.metadata.info import build_id3, build_list, chunk, info_parts
from rave_dist.audio.metadata.markers import adtl_parts, build_cue, build_smpl
from rave_dist.audio.metadata.record import LOOP_KINDS, Metadata
from rave_dist.audio.metadata.wamd import FILLER, build_wamd

_ROOM_BYTES = 256
_VENDOR_BYTES = 128


def wav_chunks(metadata: Metadata, sample_rate: int) -> bytes:
    """The chunks, which can stand in front of the samples or behind them."""
    return b"".join(_wav_chunks(metadata, sample_rate))


def _wav_chunks(metadata: Metadata, sample_rate: int) -> Iterator[bytes]:
    """All of an even length: libsndfile does not expect padding between the chunks of RF64."""
    if metadata.bext is not None:
        yield chunk(b"bext", _even(build_bext(metadata.bext), b"\0"))
    if metadata.ixml is not None:
        yield chunk(b"iXML", _even(b'<?xml version="1.0" encoding="UTF-8"?>\n' + metadata.ixml.encode(), b"\n"))
    if metadata.guano:
        yield chunk(b"guan", _even(build_guano(metadata.guano).encode(), b"\n"))
    if metadata.wamd:
        yield chunk(b"wamd", _even(build_wamd(metadata.wamd), build_wamd([(FILLER, b"\0")])))
    if metadata.cues:
        yield chunk(b"cue ", build_cue(metadata.cues))
        if parts := adtl_parts(metadata.cues):
            yield chunk(b"LIST", build_list(b"adtl", parts))
    if metadata.sampler is not None:
        yield chunk(b"smpl", build_smpl(metadata.sampler, sample_rate))
    if metadata.tags:
        yield chunk(b"LIST", build_list(b"INFO", info_parts(metadata.tags)))
        yield chunk(b"id3 ", build_id3(metadata.tags))


def _even(content: bytes, filler: bytes) -> bytes:
    return content + filler if len(content) % 2 else content


def flac_blocks(metadata: Metadata, samples: int | None) -> bytes:
    """The blocks behind STREAMINFO, with room for the name of the encoder, which `with_vendor` fills.

    Args:
        metadata: of the file.
        samples: of the file per channel; without it there is no cue sheet.
    """
    return _flac_blocks(metadata, samples, b"", _ROOM_BYTES)


def with_vendor(metadata: Metadata, samples: int | None, vendor: bytes) -> bytes:
    """The same number of bytes as `flac_blocks`, with the name of the encoder, of which at most 128 bytes are used."""
    vendor = vendor[:_VENDOR_BYTES]
    return _flac_blocks(metadata, samples, vendor, _ROOM_BYTES - len(vendor))


def _flac_blocks(metadata: Metadata, samples: int | None, vendor: bytes, padding: int) -> bytes:
    blocks = [flac.build_block(flac.VORBIS_COMMENT, flac.build_comments(vendor, vorbis_comments(metadata)))]
    sheet = None if samples is None else flac.build_cuesheet(metadata.cues, samples)
    if sheet is not None:
        blocks.append(flac.build_block(flac.CUESHEET, sheet))
    return b"".join((*blocks, flac.build_block(flac.PADDING, bytes(padding))))


def vorbis_comments(metadata: Metadata) -> Iterator[tuple[str, str]]:
    """All metadata as comments: names and texts."""
    yield from metadata.tags
    bext = metadata.bext
    if bext is not None:
        fields = (bext.date, bext.time, str(bext.time_reference), bext.history, bext.originator)
        names = ("ORIGINATION_DATE", "ORIGINATION_TIME", "TIME_REFERENCE", "CODING_HISTORY", "ORIGINATOR")
        yield from ((name, text) for name, text in zip(names, fields, strict=True) if text)
    if metadata.ixml is not None:
        yield "IXML", metadata.ixml
    if metadata.guano:
        yield "GUANO", build_guano(metadata.guano)
    if metadata.wamd:
        yield "WAMD", base64.b64encode(build_wamd(metadata.wamd)).decode("ascii")
    for number, cue in enumerate(metadata.cues, 1):
        yield f"CUE_{number:03}", f"{cue.position} {cue.length} {cue.label}".rstrip()
        if cue.note:
            yield f"CUE_{number:03}_NOTE", cue.note
    if metadata.sampler is not None:
        yield "SAMPLER_NOTE", str(metadata.sampler.note)
        for number, loop in enumerate(metadata.sampler.loops, 1):
            kind = LOOP_KINDS[loop.kind] if loop.kind < len(LOOP_KINDS) else LOOP_KINDS[0]
            yield f"LOOP_{number:03}", f"{loop.first} {loop.last} {kind} {loop.plays}"
