"""Output that its terminal or file cannot take: characters it lacks are replaced, those that steer it made visible."""

from __future__ import annotations

import codecs
import io
import os
import sys
import unicodedata
from contextlib import suppress

_SIMILAR = {"✗": "x", "–": "-", "—": "-", "…": "...", "×": "x", "≥": ">=", "≤": "<=", "→": "->", "·": "-", "“": '"', "”": '"'}


def _similar(error: UnicodeError) -> tuple[str, int]:
    """An error handler of `codecs`: a similar ASCII character if there is one, otherwise an escape sequence."""
    assert isinstance(error, UnicodeEncodeError)
    character = error.object[error.start]
    escaped = character.encode("ascii", "backslashreplace").decode()
    return _SIMILAR.get(character, escaped), error.start + 1


def accept_all_characters() -> None:
    """Lets stdout and stderr accept every string, file names that are not UTF-8 included."""
    codecs.register_error("rave-dist-similar", _similar)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="rave-dist-similar")


def drop_unwritten() -> bool:
    """Drops what stdout and stderr cannot write on a full disk: Python 3.13 tries again at its end and exits with 120.

    Returns:
        Whether everything was written.
    """
    complete = True
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            complete = False
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return complete


def visible(text: str) -> str:
    r"""A text in which control characters, such as a line feed in a file's name, and bytes that are not UTF-8 are written out.

    Example:
        >>> print(visible("a\nb\udcff \u3000"))
        a\nb\xff
    """
    return text if text.isprintable() else "".join(map(_visible, text))


def _visible(character: str) -> str:
    if "\udc80" <= character <= "\udcff":
        return f"\\x{ord(character) - 0xDC00:02x}"
    return repr(character)[1:-1] if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") else character
