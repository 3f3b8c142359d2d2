"""Texts of unknown encoding, ASCII for fields that hold nothing else, and the limits of reading."""

from __future__ import annotations

import re
import unicodedata

MOST_CHUNK_BYTES = 1 << 20
MOST_BYTES = 8 << 20
MOST_ENTRIES = 1000

_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_LETTERS = {"ß": "ss", "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "ø": "o", "Ø": "O", "đ": "d", "Đ": "D", "ł": "l", "Ł": "L"}
_LETTERS |= {"‘": "'", "’": "'", "“": '"', "”": '"', "–": "-", "—": "-", "…": "...", "°": " deg", "\u00a0": " "}
_TRANSLATED = str.maketrans(_LETTERS)


class MetadataError(ValueError):
    """A part of a file's metadata that cannot be used; the message says why."""


def decoded(data: bytes) -> str:
    """A text up to its first NUL: UTF-8, or else Windows-1252, as older programs write it.

    Raises:
        MetadataError: it is neither.
    """
    data = data.partition(b"\0")[0]
    for encoding in ("utf-8-sig", "cp1252"):
        try:
            return clean(data.decode(encoding))
        except UnicodeDecodeError:
            continue
    raise MetadataError("its text is neither UTF-8 nor Windows-1252")


def clean(text: str) -> str:
    """A text without control characters, halves of surrogate pairs, and white space around it."""
    return _CONTROLS.sub("", text).encode("utf-8", "replace").decode("utf-8").strip()


def ascii_only(text: str) -> str:
    """A text in ASCII: accents are left out, other letters become ``?``."""
    plain = unicodedata.normalize("NFKD", text.translate(_TRANSLATED))
    return "".join(letter for letter in plain if not unicodedata.combining(letter)).encode("ascii", "replace").decode("ascii")


class Allowance:
    """How much of a file's metadata is still read, and the remarks about what is not."""

    def __init__(self) -> None:
        self.remarks: list[str] = []
        self._left = MOST_BYTES

    def take(self, name: str, size: int) -> bool:
        """Whether a part of this size may be read; what may not is remarked."""
        if size > MOST_CHUNK_BYTES:
            self.refuse(name, f"larger than {MOST_CHUNK_BYTES >> 20} MiB")
            return False
        if size > self._left:
            self.refuse(name, f"the metadata of the file are larger than {MOST_BYTES >> 20} MiB")
            return False
        self._left -= size
        return True

    def refuse(self, name: str, why: object) -> None:
        """Remarks that a part is not carried."""
        self.remarks.append(f"{name}: {why}")
