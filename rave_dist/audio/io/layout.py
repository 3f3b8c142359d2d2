"""Where the sound of WAV, RF64, Wave64, AIFF, 8SVX, CAF and AU files lies, and these files with headers that say so.

Formats: EBU Tech 3306 (RF64), Sony's Wave64, Apple's AIFF-C and CAF specifications.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rave_dist.audio.io.byte_view import Piece, Source, file_size
from rave_dist.audio.io.chunks import Chunk, Chunks, Dialect, Walk
from rave_dist.audio.io.dialects import AIFF, CAF, RIFF, RIFX, SVX, W64, never_closed
from rave_dist.audio.io.joined import is_padding, next_file
from rave_dist.audio.io.tags import without_tags
from rave_dist.errors import AudioError

_RIFF_MOST_BYTES = 2**32 - 2**16
_MOST_BYTES = 2**32 - 16  # where sizes have 32 bits and there is no other container to present the sound in
_ALL_ONES = 2**64 - 1


@dataclass(frozen=True)
class SoundBytes:
    """What a file's headers declare and what the file holds.

    Attributes:
        declared: bytes of sound that the headers declare; None if they do not.
        present: bytes of sound that the file holds.
        pieces: the file as a decoder should see it; None as it is.
        stray_bytes: bytes behind the end of the sound that are neither sound nor tags.
        format: of the file, where the pieces have another one.
        damage: why the sound ends where the pieces do, or None.
        next_file: where another file begins that was joined to this one, or None.
    """

    declared: int | None
    present: int
    pieces: tuple[Piece, ...] | None = None
    stray_bytes: int = 0
    format: str | None = None
    damage: str | None = None
    next_file: int | None = None

    @property
    def is_cut(self) -> bool:
        """Whether the file ends before its declared sound does."""
        return self.declared is not None and self.present < self.declared


def chunked_sound(file: Source) -> SoundBytes | None:
    """Declared and present bytes of a WAV, RF64, Wave64, AIFF, 8SVX, CAF or AU file; None for other files.

    Raises:
        AudioError: an endless list of empty chunks, or 8SVX of several channels, which libsndfile takes for interleaved.
        OSError: the file cannot be read.
    """
    within = without_tags(file)
    file.seek(within.start)
    head = file.read(40)
    if head[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64") and head[8:12] == b"WAVE":
        return _wave(file, within, head)
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return _aiff(file, within, head)
    if head[:4] == b"riff" and head[24:28] == b"wave":
        walk = _walk(file, W64, within, closed_at=struct.unpack_from("<Q", head, 16)[0])
        chunks = walk.find(within.start + 40)
        head_pieces = _head(chunks, within.start, size_at=16, size_format="<Q", extra=24)
        return _joined(chunks, walk, head_pieces, readable=_is_last(file, within, chunks))
    if head[:4] == b"FORM" and head[8:12] in (b"8SVX", b"16SV"):
        walk = _walk(file, SVX, within, closed_at=8 + struct.unpack_from(">I", head, 4)[0])
        chunks = walk.find(within.start + 12)
        channels = chunks.first(b"CHAN")
        file.seek(0 if channels is None else channels.start)
        if channels is not None and file.read(4) == b"\0\0\0\6":
            raise AudioError("8SVX with more than one channel is not supported", fix="convert it to WAV or AIFF first")
        head_pieces = _head(chunks, within.start, size_at=4, size_format=">I", extra=0)
        return _joined(chunks, walk, head_pieces, readable=_is_last(file, within, chunks))
    if head[:4] == b"caff":
        walk = _walk(file, CAF, within)
        chunks = walk.find(within.start + 8)
        start = _head(chunks, within.start, size_at=4, size_format=">q", extra=4)
        held = _joined(chunks, walk, start, readable=not within.start)
        if held is not None and held.pieces is None and within.stop < file_size(file):
            return replace(held, pieces=(within,))  # libsndfile takes the tag for a chunk, and what it says for its size
        return held
    if head[:4] in (b".snd", b"dns.") and len(head) >= 12:
        return _au(file, within, head)
    return None


def _is_last(file: Source, within: range, chunks: Chunks) -> bool:
    """Whether the sound ends where the file does: of some formats libsndfile reads all that follows, too."""
    return not within.start and bool(chunks.sounds) and chunks.sounds[-1].extent.stop == file_size(file)


def _walk(file: Source, dialect: Dialect, within: range, closed_at: int | None = None) -> Walk:
    return Walk(
        file, dialect, within=within, size=file_size(file), closed_at=None if closed_at is None else within.start + closed_at
    )


def find_chunks(file: Source) -> tuple[Dialect, Chunks] | None:
    """The chunks of a WAV, RF64, AIFF or Wave64 file; None for other files.

    Raises:
        AudioError: an endless list of empty chunks.
        OSError: the file cannot be read.
    """
    within = without_tags(file)
    file.seek(within.start)
    head = file.read(40)
    if head[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64") and head[8:12] == b"WAVE":
        dialect, _, chunks = _wave_chunks(file, within, head)
        return dialect, chunks
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return AIFF, _walk(file, AIFF, within, closed_at=8 + struct.unpack_from(">I", head, 4)[0]).find(within.start + 12)
    if head[:4] == b"riff" and head[24:28] == b"wave":
        return W64, _walk(file, W64, within, closed_at=struct.unpack_from("<Q", head, 16)[0]).find(within.start + 40)
    return None


def _wave_chunks(file: Source, within: range, head: bytes) -> tuple[Dialect, Walk, Chunks]:
    dialect = RIFX if head[:4] == b"RIFX" else RIFF
    closed_at = 8 + struct.unpack_from(dialect.size_format, head, 4)[0]

    long_sizes = struct.unpack_from("<QQ", head, 20) if head[12:16] == b"ds64" and len(head) >= 36 else (0, 0)
    if closed_at == 8 + 2**32 - 1:
        closed_at = 8 + long_sizes[0]

    def long_size(chunk: Chunk) -> int | None:
        return None if chunk.size != 2**32 - 1 else long_sizes[1] or _ALL_ONES

    walk = _walk(file, dialect, within, closed_at)
    return dialect, walk, walk.find(within.start + 12, long_size=long_size)


def _wave(file: Source, within: range, head: bytes) -> SoundBytes | None:
    dialect, walk, chunks = _wave_chunks(file, within, head)
    fmt = chunks.first(b"fmt ")
    if fmt is None or not chunks.sounds:
        return None
    chunks, damage = _of_one_format(file, chunks, fmt)
    present = chunks.present
    readable = not within.start and fmt.place < chunks.sounds[0].chunk.place
    fact = chunks.first(b"fact")  # the length of compressed sound
    form = [range(chunk.place, chunk.stop + chunk.size % 2) for chunk in (fmt, fact) if chunk is not None]
    form_bytes = sum(map(len, form))
    if present < _RIFF_MOST_BYTES or dialect is RIFX:
        order = dialect.size_format[:1]
        counts = [struct.pack(f"{order}I", min(count, 2**32 - 1)) for count in (12 + form_bytes + present, present)]
        start: list[Piece] = [b"RIFX" if order == ">" else b"RIFF", counts[0], b"WAVE", *form, b"data", counts[1]]
        return _joined(chunks, walk, start, readable=readable, damage=damage, most=_MOST_BYTES)
    # RF64: placeholders, and the sizes in the chunk ds64; a sample count of zero refers to the sizes.
    sizes = struct.pack("<4sIQQQI", b"ds64", 28, 4 + 36 + form_bytes + 8 + present, present, 0, 0)
    start = [b"RF64\xff\xff\xff\xffWAVE", sizes, *form, b"data\xff\xff\xff\xff"]
    return _joined(chunks, walk, start, readable=readable, damage=damage)


def _of_one_format(file: Source, chunks: Chunks, fmt: Chunk) -> tuple[Chunks, str | None]:
    """The chunks up to a description of another format, which is damage."""

    def content(chunk: Chunk) -> bytes:
        file.seek(chunk.start)
        return file.read(min(chunk.size, 64))

    for other in chunks.others:
        if other.name == b"fmt " and content(other) != content(fmt):
            sounds = tuple(sound for sound in chunks.sounds if sound.chunk.place < other.place)
            if sounds and len(sounds) < len(chunks.sounds):
                return Chunks(sounds, chunks.others, chunks.next_file), "the format changes"
    return chunks, None


def _aiff(file: Source, within: range, head: bytes) -> SoundBytes | None:
    walk = _walk(file, AIFF, within, closed_at=8 + struct.unpack_from(">I", head, 4)[0])
    chunks = walk.find(within.start + 12)
    common = chunks.first(b"COMM")
    if common is None or not chunks.sounds:
        return None
    file.seek(common.start)
    fields = file.read(min(common.size, 22))
    if len(fields) < 18:
        return None
    channels, frames, bits = struct.unpack_from(">HIH", fields)
    present = chunks.present
    kind = fields[18:22].lower()
    width = {b"ulaw": channels, b"alaw": channels, b"ima4": 34 * channels}.get(kind, channels * -(-bits // 8))
    known = width and kind not in (b"gsm ", b"agsm", b"dwvw", b"mac3", b"mac6", b"qdmc", b"qclp")
    plain = _joined(
        chunks,
        walk,
        _head(chunks, within.start, size_at=4, size_format=">I", extra=8),
        readable=not within.start,
        most=_MOST_BYTES,
    )
    if plain is None or not known or (plain.pieces is None and present // width <= frames) or present >= _RIFF_MOST_BYTES:
        return plain
    # Decoders read no more frames than the common chunk has.
    count = struct.pack(">I", present // width)
    first = chunks.sounds[0].chunk
    start: list[Piece] = [b"FORM", struct.pack(">I", min(present + 4096, 2**32 - 1)), head[8:12]]
    start += [range(chunk.place, chunk.stop + chunk.size % 2) for chunk in chunks.others if chunk.name == b"FVER"]
    start += [range(common.place, common.start + 2), count, range(common.start + 6, common.stop + common.size % 2)]
    start += [b"SSND", struct.pack(">I", present + 8), range(first.start, first.start + 8)]
    declared = frames * width if plain.pieces is None else plain.declared
    pieces = (*start, *(sound.extent for sound in chunks.sounds))
    return SoundBytes(declared, present, pieces, walk.stray_bytes, next_file=chunks.next_file)


def _au(file: Source, within: range, head: bytes) -> SoundBytes:
    order = ">" if head[:1] == b"." else "<"
    offset, declared = struct.unpack_from(f"{order}II", head, 4)
    start = min(within.start + offset, within.stop)
    present = within.stop - start
    stop = start + declared
    unknown = declared == 0 or (declared > present and never_closed(declared))
    following = next_file(file, within.start, None if unknown else stop, within.stop)
    if following is not None:
        return SoundBytes(None if unknown else declared, following - start, next_file=following)
    if unknown or declared > present:
        readable = declared and (not unknown or within.stop == file_size(file))
        return SoundBytes(None if unknown else declared, present, None if readable else _au_pieces(within, start, within.stop))
    if is_padding(file, stop, within.stop):
        return SoundBytes(declared, declared)
    return SoundBytes(declared, present, _au_pieces(within, start, within.stop))


def _au_pieces(within: range, start: int, stop: int) -> tuple[Piece, ...]:
    at = within.start + 8
    return range(within.start, at), b"\xff" * 4, range(at + 4, start), range(start, stop)


def _head(chunks: Chunks, base: int, *, size_at: int, size_format: str, extra: int) -> list[Piece]:
    """A file's head up to the first sound, with the size of all sounds.

    Args:
        chunks: of the file.
        base: place of the first byte that is not a tag.
        size_at: bytes from a chunk's header to its size.
        size_format: of the size, for `struct`.
        extra: bytes that the size counts in addition to the sound.
    """
    if not chunks.sounds:
        return []
    first = chunks.sounds[0]
    place = first.chunk.place + size_at
    count = chunks.present + extra
    size = struct.pack(size_format, min(count, 2**32 - 1 if size_format[-1] == "I" else count))
    return [range(base, place), size, range(place + len(size), first.extent.start)]


def _joined(
    chunks: Chunks, walk: Walk, head: Sequence[Piece], *, readable: bool, damage: str | None = None, most: int | None = None
) -> SoundBytes | None:
    """All sounds of a file behind a head, or a readable file as it lies if it has one sound with the right size.

    Args:
        chunks: of the file.
        walk: that found them.
        head: pieces before the sounds.
        readable: whether libsndfile can read the file as it lies.
        damage: why the sound ends early.
        most: bytes of sound that a decoder reads behind this head.
    """
    sounds = [sound for sound in chunks.sounds if sound.declared != 0] or list(chunks.sounds[:1])
    if not sounds:
        return None
    present = chunks.present
    declared = None if any(sound.declared is None for sound in sounds) else sum(sound.declared or 0 for sound in sounds)
    if readable and not walk.irregular and len(sounds) == 1 and declared == present:
        return SoundBytes(declared, present, stray_bytes=walk.stray_bytes, damage=damage, next_file=chunks.next_file)
    if most is not None and present > most:
        declared, present = present, most
    pieces = (*head, *(sound.extent for sound in sounds))
    return SoundBytes(declared, present, pieces, walk.stray_bytes, damage=damage, next_file=chunks.next_file)
