"""One sound through one model: what must not change does not, what must stay within bounds does."""

import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from rave_dist.audio.dsp.resample import resampled_length
from rave_dist.conversion.convert import Converter
from rave_dist.errors import AudioError, ConversionError, StoreError
from rave_dist.records import ModelCard

Scripted = Callable[..., tuple[Path, ModelCard]]


def noise(samples: int, channels: int = 1, *, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal((channels, samples)) * 0.2).astype(np.float32)


def split(x: np.ndarray, size: int) -> Iterator[np.ndarray]:
    return (x[:, i : i + size] for i in range(0, x.shape[1], size))


def whole(converter: Converter, x: np.ndarray, *, block: int = 10_000, **options: object) -> np.ndarray:
    options = {"sample_rate": converter.card.sample_rate} | options
    blocks = list(converter.convert(split(x, block), channels=x.shape[0], **options))  # type: ignore[arg-type]
    return np.concatenate(blocks, axis=1)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("samples", [1, 63, 64, 65, 5000, 64 * 300, 64 * 300 + 17])
def test_chunks_join_into_the_result_on_the_whole(scripted: Scripted, channels: int, samples: int) -> None:
    converter = Converter(*scripted("frames", channels=channels))
    x = noise(samples, channels)
    expected = whole(converter, x, chunk_seconds=1e4)
    assert expected.shape == x.shape
    for chunk_seconds in (0.004, 0.05, 0.333, 1.0):
        result = whole(converter, x, chunk_seconds=chunk_seconds, block=997)
        assert np.abs(result - expected).max() <= 1e-5 * np.abs(expected).max()


def test_too_little_context_would_be_heard(scripted: Scripted) -> None:
    path, card = scripted("frames")
    x = noise(20_000)
    expected = whole(Converter(path, card), x, chunk_seconds=1e4)
    short = Converter(path, card.model_copy(update={"receptive_field": (0, 0)}))
    assert np.abs(whole(short, x, chunk_seconds=0.1) - expected).max() > 1e-3


def test_repeats_and_blocks_change_no_bit(scripted: Scripted) -> None:
    converter = Converter(*scripted("frames"))
    x = noise(30_000, 2)
    results = [
        whole(converter, x, sample_rate=44100, chunk_seconds=0.2, block=block) for block in (30_000, 4096, 333, 333, 333)
    ]
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


@pytest.mark.parametrize("sample_rate", [8000, 11025, 16000, 22050, 44100, 48000, 96000, 192000])
@pytest.mark.parametrize("seconds", [0.0001, 0.1, 1.2345])
def test_length_is_kept_to_the_sample(scripted: Scripted, sample_rate: int, seconds: float) -> None:
    converter = Converter(*scripted("mirror"))
    x = noise(max(1, int(seconds * sample_rate)))
    assert whole(converter, x, sample_rate=sample_rate, chunk_seconds=0.1).shape == x.shape
    for out in (8000, 44100, 96000):
        result = whole(converter, x, sample_rate=sample_rate, out_sample_rate=out, chunk_seconds=0.1)
        assert result.shape == (1, resampled_length(x.shape[1], sample_rate, out))


@pytest.mark.parametrize("sample_rate", [12000, 16000, 44100, 96000])
def test_a_tone_stays_a_tone_in_its_place(scripted: Scripted, sample_rate: int) -> None:
    """Through a model that changes nothing, both resamplings included, no sample moves: the phase is kept."""
    converter = Converter(*scripted("mirror"))
    time = np.arange(sample_rate) / sample_rate
    x = (0.5 * np.sin(2 * np.pi * 1000 * time)).astype(np.float32)[None]
    result = whole(converter, x, sample_rate=sample_rate, chunk_seconds=0.13)
    inside = slice(sample_rate // 10, -sample_rate // 10)
    assert np.abs(result - x)[:, inside].max() < 1e-4


def test_silence_stays_silence(scripted: Scripted) -> None:
    converter = Converter(*scripted("frames"))
    assert not whole(converter, np.zeros((2, 9000), np.float32), sample_rate=44100, noise=0.0).any()


def test_each_channel_is_converted_as_if_alone(scripted: Scripted) -> None:
    converter = Converter(*scripted("frames"))
    x = noise(9000, 6)
    together = whole(converter, x, seed=5, chunk_seconds=0.1)
    for channel in range(6):
        alone = whole(converter, x[channel : channel + 1], seed=5 + channel, chunk_seconds=0.1)
        np.testing.assert_array_equal(alone[0], together[channel])


def test_a_seed_and_a_level_decide_the_noise(scripted: Scripted) -> None:
    converter = Converter(*scripted("frames"))
    x = noise(9000)
    with_1, with_2, without = (whole(converter, x, seed=s, noise=n) for s, n in ((1, 1.0), (2, 1.0), (1, 0.0)))
    assert np.abs(with_1 - with_2).max() > 0.01
    half = whole(converter, x, seed=1, noise=0.5)
    np.testing.assert_allclose(half - without, (with_1 - without) / 2, atol=1e-6)


def test_a_stereo_model_takes_pairs_and_averages_a_channel_without_partner(scripted: Scripted) -> None:
    converter = Converter(*scripted("frames", channels=2))
    x = noise(9000, 3)
    result = whole(converter, x, noise=0.0)
    assert result.shape == x.shape
    np.testing.assert_array_equal(result[:2], whole(converter, x[:2], noise=0.0))
    twice = whole(converter, np.repeat(x[2:], 2, axis=0), noise=0.0)
    np.testing.assert_allclose(result[2], twice.mean(axis=0), atol=1e-7)


def test_channels_asked_for_are_mixed_first(scripted: Scripted) -> None:
    converter = Converter(*scripted("mirror"))
    x = noise(1000, 2)
    np.testing.assert_allclose(whole(converter, x, out_channels=1)[0], x.mean(axis=0), atol=1e-7)
    np.testing.assert_array_equal(whole(converter, x[:1], out_channels=3), np.repeat(x[:1], 3, axis=0))


def test_beyond_full_scale_is_clipped_and_counted(scripted: Scripted) -> None:
    converter = Converter(*scripted("broken"))
    x = np.full((1, 640), 0.1, np.float32)
    x[0, 100:110] = 0.5
    conversion = converter.convert([x], sample_rate=16000, channels=1)
    result = np.concatenate(list(conversion), axis=1)
    assert result.max() == 1.0
    assert conversion.clipped_samples == 10
    assert conversion.samples == 640


def test_a_result_that_is_not_finite_is_an_error(scripted: Scripted) -> None:
    converter = Converter(*scripted("broken"))
    with pytest.raises(AudioError, match="NaN or infinite"):
        whole(converter, np.full((1, 100), 0.95, np.float32))


def test_a_sound_without_samples_has_no_result(scripted: Scripted) -> None:
    converter = Converter(*scripted("frames"))
    assert sum(b.shape[1] for b in converter.convert(iter(()), sample_rate=48000, channels=2)) == 0


def test_what_cannot_work_says_so(scripted: Scripted, tmp_path: Path) -> None:
    path, card = scripted("frames")
    converter = Converter(path, card)
    with pytest.raises(ConversionError, match=r"use 0\.004 s"):
        converter.convert([], sample_rate=16000, channels=1, chunk_seconds=0.003)
    with pytest.raises(ConversionError):
        converter.convert([], sample_rate=16000, channels=1, chunk_seconds=float("nan"))
    with pytest.raises(ConversionError, match="start at 1"):
        converter.convert([], sample_rate=0, channels=1)
    (tmp_path / "text.ts").write_text("no model")
    with pytest.raises(ConversionError, match="not a TorchScript"):
        Converter(tmp_path / "text.ts", card)


@pytest.mark.parametrize("channels", [1, 3])
def test_an_array_is_converted_as_the_stream_of_its_blocks(scripted: Scripted, channels: int) -> None:
    converter = Converter(*scripted("frames"))
    x = noise(20_000, channels)
    options = {"sample_rate": 12_000, "seed": 3, "out_sample_rate": 8000, "out_channels": 2}
    result = converter.convert_array(x, **options)
    assert result.dtype == np.float32
    assert result.shape == (2, resampled_length(20_000, 12_000, 8000))
    assert np.array_equal(result, whole(converter, x, block=20_000, **options))
    assert converter.convert_array(x[:, :0], sample_rate=12_000).shape == (channels, 0)
    assert np.array_equal(converter.convert_array(x.astype(np.float64), **options), result)


@pytest.mark.parametrize("shape", [(100,), (1, 1, 100), (0, 100)])
def test_an_array_of_another_shape_is_refused(scripted: Scripted, shape: tuple[int, ...]) -> None:
    with pytest.raises(ConversionError, match="not \\[C, T\\]"):
        Converter(*scripted("mirror")).convert_array(np.zeros(shape, np.float32), sample_rate=16_000)


def test_a_misspelt_store_is_refused_before_a_model_is_looked_up(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no such folder"):
        Converter.load(tmp_path / "stroe", "drum")


def test_chunks_of_many_channels_are_sized_in_bytes(scripted: Callable[..., tuple[Path, ModelCard]]) -> None:
    """Half an hour of 256 channels at once would need gigabytes; the samples are those of one channel alone."""
    converter = Converter(*scripted("frames"))
    rng = np.random.default_rng(0)
    block = rng.standard_normal((1, 1 << 15)).astype(np.float32) * 0.1
    channels, blocks = 256, 10

    def run(count: int, rate: int = 16000) -> tuple[np.ndarray, int]:
        repeated = (np.repeat(block, count, axis=0) for _ in range(blocks))
        tracemalloc.start()
        first = [part[:1].copy() for part in converter.convert(repeated, sample_rate=rate, channels=count, chunk_seconds=1800)]
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return np.concatenate(first, axis=1), peak

    alone, _ = run(1)
    together, peak = run(channels)
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert peak < 7 * 32 * 2**20
    assert run(channels, rate=12000)[1] < 10 * 32 * 2**20, "with copies in both resamplers"
    assert 4 * channels * blocks * block.shape[1] > 9 * 32 * 2**20
