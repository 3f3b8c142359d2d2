"""Recordings of every format, made on the spot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

WriteAv = Callable[..., Path]


@pytest.fixture
def tone() -> Callable[..., np.ndarray]:
    def make(seconds: float = 3.0, sample_rate: int = 44100, frequency: float = 440.0, channels: int = 1) -> np.ndarray:
        """A sine of amplitude 0.3, float32 [samples, channels]; each channel a little quieter than the one before."""
        wave = 0.3 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * sample_rate)) / sample_rate)
        return np.stack([wave / (1 + channel) for channel in range(channels)], axis=1).astype(np.float32)

    return make


@pytest.fixture
def write_av(tmp_path: Path) -> WriteAv:
    def write(
        name: str, codec: str, sound: np.ndarray, sample_rate: int = 44100, *, video: bool = False, **options: str
    ) -> Path:
        """Encodes [samples, channels] with FFmpeg; with ``video``, beside a black picture."""
        path = tmp_path / name
        layout = {1: "mono", 2: "stereo", 6: "5.1"}[sound.shape[1]]
        with av.open(str(path), "w", options=options) as container:
            if video:
                picture = container.add_stream("mpeg4", rate=25)
                picture.width = picture.height = 64
                picture.pix_fmt = "yuv420p"
            stream = container.add_stream(codec, rate=sample_rate, layout=layout)
            if codec.startswith("wma"):
                stream.bit_rate = 128_000
            stream.codec_context.open()
            if video:
                for _ in range(25 * len(sound) // sample_rate):
                    black = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
                    container.mux(picture.encode(black))
                container.mux(picture.encode(None))
            resampler = av.AudioResampler(
                format=stream.codec_context.format,
                layout=layout,
                rate=sample_rate,
                frame_size=stream.codec_context.frame_size or 1024,
            )
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound.T), format="fltp", layout=layout)
            frame.sample_rate, frame.pts = sample_rate, 0
            for piece in [*resampler.resample(frame), *resampler.resample(None)]:
                container.mux(stream.encode(piece))
            container.mux(stream.encode(None))
        return path

    return write
