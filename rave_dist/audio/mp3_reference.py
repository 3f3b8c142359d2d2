"""Audio encoded to MP3 and decoded, a familiar reference for comparison."""

from __future__ import annotations

import io

import av
import numpy as np
import soxr

from rave_dist.audio.types import Audio

_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
_LAYOUTS = {1: "mono", 2: "stereo"}


def through_mp3(sound: Audio, sample_rate: int, *, kilobits: int = 64) -> Audio:
    """Encodes with LAME at a constant bit rate for all channels together, and decodes.

    Input: [channels, samples], one or two channels. Output: the same shape, aligned to the sample. Sample rates that MP3 does
    not have go through the next higher one, at most 48 kHz.
    """
    rate = next((rate for rate in _RATES if rate >= sample_rate), _RATES[-1])
    samples = sound if rate == sample_rate else soxr.resample(sound.T, sample_rate, rate).T
    layout = _LAYOUTS[len(sound)]
    file = io.BytesIO()
    with av.open(file, "w", format="mp3") as container:
        stream = container.add_stream("libmp3lame", rate=rate, layout=layout)
        stream.bit_rate = 1000 * kilobits
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples, dtype=np.float32), format="fltp", layout=layout)
        frame.sample_rate = rate
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)
    file.seek(0)
    with av.open(file, "r") as encoded:
        decoded = np.concatenate([frame.to_ndarray() for frame in encoded.decode(audio=0)], axis=1)
    back = decoded if rate == sample_rate else soxr.resample(decoded.T, rate, sample_rate).T
    out = np.zeros_like(sound)
    length = min(back.shape[1], sound.shape[1])
    out[:, :length] = back[:, :length]
    return out
