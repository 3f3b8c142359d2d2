"""Silent and clipped outputs of recordings that are neither are named; other levels are not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from rave_dist.conversion.levels import Peaks, SourceLevels, find_clipping, find_silence
from rave_dist.records import ConversionRecord

Convert = Callable[..., ConversionRecord]

STEP = 2.0**-15


def sine(peak: float, seconds: float = 1.0, rate: int = 8000) -> np.ndarray:
    return peak * np.sin(2 * np.pi * 440 * np.arange(int(seconds * rate)) / rate)


def test_silence_is_judged_at_16_bits_also_in_a_file_of_24(convert: Convert, tmp_path: Path) -> None:
    """The model answers 100 dB below its input: above 2^-23, below a step of 16 bits."""
    (tmp_path / "in").mkdir()
    soundfile.write(tmp_path / "in" / "sound.wav", sine(0.5), 8000, subtype="PCM_24")
    soundfile.write(tmp_path / "in" / "nothing.wav", np.zeros(8000), 8000, subtype="PCM_24")
    soundfile.write(tmp_path / "in" / "faint.wav", sine(0.9 * STEP), 8000, subtype="PCM_24")
    record = convert(tmp_path / "in", tmp_path / "out", kind="quiet")
    assert (record.converted, record.failed, record.is_complete) == (3, (), False)
    (item,) = record.silent
    assert (Path(item.source).name, item.state) == ("sound.wav", "converted")
    assert item.silent is not None
    assert "peak -6.0 dBFS" in item.silent.what
    assert np.abs(soundfile.read(tmp_path / "out" / "sound.flac")[0]).max() > 0, "24 bits hold it"
    again = convert(tmp_path / "in", tmp_path / "out", kind="quiet")
    assert (again.skipped, again.silent, again.is_complete) == (3, (item,), False), "a rerun says so again"


def test_clipping_is_named_with_samples_seconds_and_decibels(convert: Convert, tmp_path: Path) -> None:
    """The model answers 8 times as loud, 18.06 dB."""
    (tmp_path / "in").mkdir()
    square = np.repeat([0.25, -0.25, 0.05, 0.05], 4000)  # 1 s of which 0.5 s become 2, and the rest 0.4
    soundfile.write(tmp_path / "in" / "loud.wav", np.stack([square, 0 * square], axis=1), 16000, subtype="PCM_24")
    soundfile.write(tmp_path / "in" / "soft.wav", sine(0.1), 16000)
    record = convert(tmp_path / "in", tmp_path / "out", kind="broken")
    assert (record.converted, record.is_complete) == (2, False)
    (item,) = record.clipped
    assert (item.clipped_samples, item.clipped_seconds) == (8000, pytest.approx(0.5))
    assert item.over_db == pytest.approx(6.02, abs=0.01)
    assert item.clipped is not None
    assert item.clipped.what == "the output was clipped: 8,000 samples in 0.500 s were up to 6.0 dB over full scale"
    assert "7 dB quieter" in item.clipped.fix


def levels(x: np.ndarray, y: np.ndarray, *, subtype: str = "PCM_16") -> tuple[SourceLevels, Peaks]:
    source, output = SourceLevels(subtype, y.shape[0]), Peaks()
    for start in range(0, x.shape[1], 997):
        source.add(x[:, start : start + 997].astype(np.float32))
        output.add(y[:, start : start + 997].astype(np.float32))
    return source, output


def test_one_silent_channel_of_several_is_named() -> None:
    tone = sine(0.5)
    x, y = np.stack([tone, tone, 0 * tone]), np.stack([tone, 1e-6 * tone, 0 * tone])
    found = find_silence(*levels(x, y))
    assert found is not None
    assert found.what.startswith("silent in the output: channel 2,"), "channel 3 is silent in the recording"
    assert find_silence(*levels(x, x)) is None


def test_channels_that_cancel_in_the_mix_are_named_as_that() -> None:
    tone = sine(0.5)
    found = find_silence(*levels(np.stack([tone, -tone]), np.zeros((1, tone.size))))
    assert found is not None
    assert "cancel" in found.what
    assert "--channels" in found.fix


@pytest.mark.parametrize(("over", "named"), [(0, False), (15, False), (16, True)])
def test_a_few_samples_over_are_no_clipping(over: int, named: bool) -> None:
    x = np.full((1, 8000), 0.5)
    y = x.copy()
    y[0, :over] = 1.2
    assert (find_clipping(*levels(x, y), 8000) is not None) is named


def test_a_clipped_recording_may_have_a_clipped_output_and_a_float_over_full_scale_is_not_clipped() -> None:
    hot = np.clip(sine(3.0), -1, 1)[None]
    assert find_clipping(*levels(hot, 2 * hot), 8000) is None
    loud = sine(3.0)[None]
    found = find_clipping(*levels(loud, loud, subtype="FLOAT"), 8000)
    assert found is not None
    assert "exceeds full scale by 9.5 dB" in found.fix
