"""A player of the page and notebooks: a spectrogram, an MP3 preview, and numbers."""

from __future__ import annotations

import base64
from typing import Any

from rave_dist.audio.metrics import spectral
from rave_dist.audio.mp3_preview import mp3
from rave_dist.audio.types import Audio
from rave_dist.reports.figures import frequency_ticks, spectrogram


def make_player(sound: Audio, sample_rate: int, *, title: str, caption: str, name: str) -> dict[str, Any]:
    """The variables of a template that shows and plays a sound.

    Input: [C, T], full scale 1.

    Args:
        sound: the sound.
        sample_rate: in Hz.
        title: for example "Reconstruction".
        caption: its origin.
        name: of the instrument, for the picture's description.

    Returns:
        Title, caption, description, numbers, picture and sound as data URIs, and the labels of the frequency axis.
    """
    numbers = {
        "seconds": round(sound.shape[1] / sample_rate, 3),
        "level_dbfs": round(spectral.level_dbfs(sound), 1),
        "peak_dbfs": round(spectral.peak_dbfs(sound), 1),
        "brightness_hz": round(spectral.brightness_hz(sound.mean(axis=0), sample_rate)),
    }
    return {
        "title": title,
        "caption": caption,
        "alt": f"Spectrogram of {title.lower()}, {name}: {numbers['seconds']:.1f} s at "
        f"{numbers['level_dbfs']:.0f} dBFS, energy centred on {numbers['brightness_hz']} Hz",
        "numbers": numbers,
        "picture": _data_uri("image/png", spectrogram(sound, sample_rate)),
        "sound": _data_uri("audio/mpeg", mp3(sound, sample_rate)),
        "ticks": frequency_ticks(sample_rate),
    }


def _data_uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
