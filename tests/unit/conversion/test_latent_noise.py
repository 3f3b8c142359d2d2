"""A conversion is the instrument that the streaming file plays, noise around the latents included, and stays exact."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

from rave_dist.conversion.convert import Converter
from rave_dist.errors import ConversionError
from rave_dist.options import DEFAULT_LATENT_NOISE
from rave_dist.records import ModelCard
from rave_dist.storage.store import Store

Publish = Callable[..., ModelCard]
ALIKE_DB = 3.0  # both draw the same noise, but the streaming file's audio lags behind it


@pytest.fixture
def converter(local_store: Store, publish_tiny: Publish) -> Converter:
    return Converter.load(local_store, publish_tiny(local_store, "drum"))


def noise(samples: int, channels: int = 1) -> np.ndarray:
    return (np.random.default_rng(0).standard_normal((channels, samples)) * 0.2).astype(np.float32)


def whole(converter: Converter, x: np.ndarray, *, block: int = 10_000, **options: object) -> np.ndarray:
    def blocks() -> Iterator[np.ndarray]:
        return (x[:, i : i + block] for i in range(0, x.shape[1], block))

    made = converter.convert(blocks(), sample_rate=44100, channels=x.shape[0], **options)  # type: ignore[arg-type]
    return np.concatenate(list(made), axis=1)


def test_blocks_change_no_bit_chunks_only_round_and_channels_are_independent(converter: Converter) -> None:
    x = noise(60_000, 2)
    expected = whole(converter, x, seed=3, chunk_seconds=0.3)
    np.testing.assert_array_equal(whole(converter, x, seed=3, chunk_seconds=0.3, block=777), expected)
    for chunk_seconds in (0.1, 1.0):
        chunked = whole(converter, x, seed=3, chunk_seconds=chunk_seconds)
        assert np.abs(chunked - expected).max() <= 1e-5 * np.abs(expected).max()
    for channel in range(2):
        alone = whole(converter, x[channel : channel + 1], seed=3 + channel, chunk_seconds=0.3)
        np.testing.assert_array_equal(alone[0], expected[channel])


def test_the_level_and_the_seed_decide_it(converter: Converter) -> None:
    x = noise(20_000)
    mean, default, full, other = (
        whole(converter, x, noise=0.0, **options) for options in ({"latent_noise": 0.0}, {}, {"latent_noise": 1.0}, {"seed": 1})
    )
    np.testing.assert_array_equal(default, full)
    assert np.abs(full - mean).max() > 0.01 * np.abs(mean).max()
    assert np.abs(other - full).max() > 0.01 * np.abs(mean).max()
    np.testing.assert_array_equal(mean, whole(converter, x, noise=0.0, latent_noise=0.0, seed=1))
    for level in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ConversionError, match="level of a noise"):
            converter.convert([x], sample_rate=44100, channels=1, latent_noise=level)


def test_the_card_states_that_both_sound_alike(local_store: Store, publish_tiny: Publish, converter: Converter) -> None:
    card = converter.card
    assert card.levels is not None
    assert card.levels.converted_db is not None
    assert card.levels.streaming_db is not None
    assert card.levels.converted_db == pytest.approx(card.levels.streaming_db, abs=ALIKE_DB)
    streaming = torch.jit.load(str(local_store.download(card.files["streaming"].key, local_store.uri + "/streaming.ts")))
    x = noise(40 * card.hop)
    assert card.delay is not None
    with torch.no_grad():
        played = streaming(torch.from_numpy(x)[None])[0, :, card.delay :].numpy()
    level = 10 * np.log10(np.mean(np.square(played)) / np.mean(np.square(whole(converter, x))))
    assert abs(level) < ALIKE_DB
    assert streaming.get_latent_noise() == (DEFAULT_LATENT_NOISE,)
    assert streaming.get_noise() == (1.0,)
