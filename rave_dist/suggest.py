"""The fix for an unknown name: the nearest known name, or all of them."""

from __future__ import annotations

from collections.abc import Iterable

_SIMILARITY = 0.51  # above half: trumpet is not meant for drums


def suggest(name: str, known: Iterable[str]) -> str:
    """A fix for a misspelt name.

    Args:
        name: as it was written.
        known: the names that exist.

    Returns:
        ``did you mean 'x'?`` if one is near, regardless of case, otherwise all names; empty if there are none.

    Example:
        >>> suggest("stroe", ["name", "store"])
        "did you mean 'store'?"
        >>> suggest("capacity", ["Encoder.capacity", "CAPACITY"])
        "did you mean 'CAPACITY'?"
        >>> suggest("zzz", ["name", "store"])
        'one of: name, store'
    """
    names = list(known)
    if near := nearest(name, names):
        return f"did you mean {near!r}?"
    return f"one of: {', '.join(names)}" if names else ""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that a misspelt one is near, regardless of case; None if there is none.

    Example:
        >>> nearest("stroe", ["name", "store"])
        'store'
    """
    from difflib import get_close_matches  # imported here: needed only for a misspelt name

    folded = {known_name.casefold(): known_name for known_name in known}
    close = get_close_matches(name.casefold(), folded, n=1, cutoff=_SIMILARITY)
    return folded[close[0]] if close else None
