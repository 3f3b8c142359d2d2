"""The user's cache folder of this package on a machine; deleting it is always safe."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path | None:
    """``RAVE_DIST_CACHE``, otherwise ``rave-dist`` in ``XDG_CACHE_HOME`` or in ``~/.cache``; None without a home directory."""
    own, shared = os.environ.get("RAVE_DIST_CACHE"), os.environ.get("XDG_CACHE_HOME")
    if own:
        return Path(own)
    try:
        return (Path(shared) if shared else Path.home() / ".cache") / "rave-dist"
    except RuntimeError:
        return None
