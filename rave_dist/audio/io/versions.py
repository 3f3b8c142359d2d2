"""The versions of the libraries that read and write recordings."""

from __future__ import annotations

import av
import soundfile


def library_versions() -> dict[str, str]:
    """Names and versions of the loaded libraries, those of FFmpeg included."""
    ffmpeg = {name: ".".join(map(str, version)) for name, version in av.library_versions.items()}
    return {
        "PyAV": av.__version__,
        "libavcodec": ffmpeg["libavcodec"],
        "libavformat": ffmpeg["libavformat"],
        "libsndfile": soundfile.__libsndfile_version__,
    }
