import io

import numpy as np
import pytest
import soundfile

from rave_dist.audio.mp3_preview import mp3


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000, 32768, 96000, 192_000])
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_a_tone_stays_a_tone_of_its_length(rate: int, channels: int) -> None:
    time = np.arange(2 * rate) / rate
    sound = np.repeat(0.5 * np.sin(2 * np.pi * 1000 * time)[None].astype(np.float32), channels, axis=0)
    data = mp3(sound, rate)
    assert len(data) < 60_000
    heard, heard_rate = soundfile.read(io.BytesIO(data), always_2d=True)
    assert heard_rate <= 48_000
    assert heard.shape[1] == (1 if channels > 2 else channels)
    assert len(heard) / heard_rate == pytest.approx(2, abs=0.06)
    middle = heard[heard_rate // 2 : heard_rate // 2 + heard_rate, 0]
    spectrum = np.abs(np.fft.rfft(middle))
    assert spectrum.argmax() == 1000
    assert np.abs(middle).max() == pytest.approx(0.5, abs=0.05)


def test_too_loud_is_clipped_rather_than_wrapped() -> None:
    sound = 3 * np.sin(2 * np.pi * 500 * np.arange(44100) / 44100)[None].astype(np.float32)
    heard, _ = soundfile.read(io.BytesIO(mp3(sound, 44100)))
    assert np.sqrt(np.mean(heard**2)) > 0.85
