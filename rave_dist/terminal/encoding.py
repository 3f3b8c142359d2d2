"""Standard streams whose encoding lacks some characters: these are replaced, so that no message ends a command."""

from __future__ import annotations

import codecs
import io
import sys

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
