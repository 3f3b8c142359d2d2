"""Names what a file is that is not a recording, by its first bytes."""

from __future__ import annotations

from pathlib import Path

from rave_dist.audio.io.partial_copy import PartialCopy

_HEAD_BYTES = 1024
_KINDS: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"\x89PNG\r\n\x1a\n", "a PNG picture"),
    (b"GIF8", "a GIF picture"),
    (b"II*\0", "a TIFF picture"),
    (b"MM\0*", "a TIFF picture"),
    (b"%PDF", "a PDF document"),
    (b"PK\x03\x04", "a ZIP archive or an office document"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!", "a RAR archive"),
    (b"\x89HDF", "an HDF5 file"),
    (b"SQLite format 3", "a database"),
    (b"\x7fELF", "a program"),
    (b"MThd", "a MIDI file, which holds notes and no sound"),
    (b"version https://git-lfs", "a pointer of Git LFS without its file"),
    (b"/annex/objects/", "a pointer of git-annex without its file"),
)


def kind_of(path: Path | PartialCopy) -> str | None:
    """What a file is, with its article, if it is recognised as something other than a recording.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "a WebP picture"
    if head[4:12] in (b"ftypheic", b"ftypavif", b"ftypmif1"):
        return "a picture"
    for beginning, kind in _KINDS:
        if head.startswith(beginning):
            return kind
    if head and not head.strip(b"\0"):
        return "a file of zeros, as an interrupted copy leaves it"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return "a web page, as a failed download leaves it"
    if text.startswith((b"<?xml", b"<svg")):
        return "an XML document"
    return "a text" if head and _is_text(head) else None


def _is_text(head: bytes) -> bool:
    """Whether bytes are printable UTF-8; a character may be cut at their end."""
    try:
        decoded = head.decode()
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:
            return False
        decoded = head[: error.start].decode()
    return all(character.isprintable() or character in "\t\r\n\f" for character in decoded)
