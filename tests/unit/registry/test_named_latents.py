"""Names of latents: known latents of sounds with known features, and effects that a conversion has."""

from __future__ import annotations

import numpy as np
import pytest

from rave_dist.audio.metrics.features import features
from rave_dist.audio.types import Audio
from rave_dist.conversion.convert import Converter
from rave_dist.dataset.read import Segment
from rave_dist.registry.named_latents import LEAST_CORRELATION, LEAST_FRAMES, followed, name_latents
from rave_dist.storage.store import Store
from tests.conftest import TinyModel

RATE, HOP = 44100, 512


def swells(seconds: float = 6.0) -> Audio:
    """A tone whose level moves by 30 dB, independently of its pitch, which moves by an octave."""
    time = np.arange(round(seconds * RATE)) / RATE
    level = 10 ** ((-30 + 15 * np.sin(2 * np.pi * 0.7 * time)) / 20)
    frequency = 300 * 2 ** (0.5 * np.sin(2 * np.pi * 0.31 * time))
    return (level * np.sin(2 * np.pi * np.cumsum(frequency) / RATE))[None].astype(np.float32)


def test_features_are_those_of_the_sound() -> None:
    sound = swells()
    found = features(sound, RATE, HOP)
    middle = (np.arange(len(found["loudness"])) + 0.5) * HOP / RATE
    inside = slice(10, -10)
    level = -30 + 15 * np.sin(2 * np.pi * 0.7 * middle) - 10 * np.log10(2)
    pitch = np.log2(300) + 0.5 * np.sin(2 * np.pi * 0.31 * middle)
    np.testing.assert_allclose(found["loudness"][inside], level[inside], atol=0.5)
    np.testing.assert_allclose(found["pitch"][inside], pitch[inside], atol=0.03)
    hiss = np.random.default_rng(0).normal(0, 0.1, (1, RATE)).astype(np.float32)
    noisy = features(hiss, RATE, HOP)
    assert np.nanmedian(noisy["noisiness"]) > np.nanmedian(found["noisiness"]) + 20
    assert np.nanmedian(noisy["brightness"]) > np.nanmedian(found["brightness"]) + 3


def test_an_attack_is_where_a_sound_begins() -> None:
    time = np.arange(RATE) / RATE
    sound = np.where(time < 0.5, 0.002, 0.5)[None] * np.random.default_rng(0).normal(0, 1, (1, RATE))
    attack = features(sound.astype(np.float32), RATE, HOP)["attack"]
    assert abs(int(np.nanargmax(attack)) * HOP / RATE - 0.5) < 0.05


def test_silence_and_short_sounds_have_no_pitch_and_no_brightness() -> None:
    silent = features(np.zeros((1, RATE), np.float32), RATE, HOP)
    assert all(np.isnan(silent[name]).all() for name in ("pitch", "brightness", "noisiness", "attack"))
    assert all(not len(feature) for feature in features(np.zeros((1, HOP - 1), np.float32), RATE, HOP).values())


def test_each_latent_has_the_name_of_what_it_follows() -> None:
    measured = features(swells(), RATE, HOP)
    random = np.random.default_rng(1)
    frames = len(measured["loudness"])
    pitch = np.nan_to_num(measured["pitch"], nan=8.0)
    latents = np.stack(
        [random.normal(size=frames), -measured["loudness"] + random.normal(size=frames), np.zeros(frames), 3 * pitch]
    )
    known = {name: measured[name] for name in ("loudness", "pitch")}
    found = followed(latents, known)
    assert {name: number for name, (number, _) in found.items()} == {"loudness": 1, "pitch": 3}
    assert found["loudness"][1] < -0.9
    assert found["pitch"][1] > 0.99


def test_what_nothing_follows_has_no_name() -> None:
    random = np.random.default_rng(2)
    assert followed(random.normal(size=(8, 1000)), {"loudness": random.normal(size=1000)}) == {}
    few = random.normal(size=LEAST_FRAMES - 1)
    assert followed(few[None], {"loudness": few}) == {}


def test_a_latent_has_one_name_and_a_name_one_latent() -> None:
    one = np.random.default_rng(3).normal(size=1000)
    near = one + 0.3 * np.random.default_rng(4).normal(size=1000)
    assert {name: number for name, (number, _) in followed(one[None], {"a": near, "b": one}).items()} == {"b": 0}
    assert followed(np.stack([near, one]), {"a": one})["a"][0] == 1


def test_effects_are_those_of_a_conversion(tiny_model: TinyModel, local_store: Store) -> None:
    sound = np.rint(swells() * 32767).astype(np.int16)
    sound = sound[:, : sound.shape[1] // HOP * HOP]
    named = name_latents(tiny_model.offline, [Segment("a", 0, sound)], sample_rate=RATE, hop=HOP)
    assert named
    converter = Converter(tiny_model.offline, tiny_model.publish(local_store, "tiny"))
    source = sound.astype(np.float32) / np.float32(32768)
    plain = converter.convert_array(source, sample_rate=RATE, latent_noise=0.0)
    for name, latent in named.items():
        assert abs(latent.correlation) >= LEAST_CORRELATION
        by = float(np.copysign(latent.deviation, latent.correlation))
        moved = converter.convert_array(source, sample_rate=RATE, latent_noise=0.0, latents={latent.latent: (1.0, by)})
        change = 10 * np.log10(np.square(moved).mean() / np.square(plain).mean())
        assert change == pytest.approx(latent.loudness_db, abs=0.05), name
        before, after = (features(one, RATE, HOP)["brightness"] for one in (plain, moved))
        assert np.nanmean(after - before) == pytest.approx(latent.centroid_octaves, abs=0.01), name
