"""Between two sounds and two instruments: at the ends it is the one or the other, in the middle neither."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from typer.testing import CliRunner

from rave_dist.archives import latents
from rave_dist.audio.metadata.read import read_metadata
from rave_dist.cli.main import app
from rave_dist.conversion.convert import Converter
from rave_dist.conversion.file import Target, convert_file
from rave_dist.conversion.morph import Amount, between, morph_files
from rave_dist.errors import ConversionError
from rave_dist.identity import hash_file
from rave_dist.rave.config import configure
from rave_dist.rave.exportable import OfflineRave
from rave_dist.rave.exportable_noise import place
from rave_dist.rave.models import build_model, use_streaming
from rave_dist.records import ConversionParameters, ModelCard
from rave_dist.storage.store import Store

pytestmark = pytest.mark.slow
RATE = 44100


def record(path: Path, *, seconds: float = 1.0, rate: int = RATE, channels: int = 1, seed: int = 0) -> Path:
    sound = 0.2 * np.random.default_rng(seed).standard_normal((int(seconds * rate), channels))
    soundfile.write(path, sound, rate, subtype="PCM_16")
    return path


def read(path: Path) -> np.ndarray:
    return np.asarray(soundfile.read(path, dtype="int16", always_2d=True)[0], np.int32)


def converted(store: Store, card: ModelCard, source: Path, target: Path) -> np.ndarray:
    convert_file(source, Target(target, Converter.load(store, card), ConversionParameters(seed=3), "wav"))
    return read(target)


def morphed(store: Store, models: list[str], sounds: list[Path], target: Path, *amount: float) -> np.ndarray:
    ends = (amount[0], amount[-1])
    made = latents.morph(store, models, list(map(str, sounds)), str(target), amount=ends, seed=3, latent_noise=1.0)
    assert made.problem is None, made.problem
    return read(target)


@pytest.fixture
def card(local_store: Store, publish_tiny: Callable[..., ModelCard]) -> ModelCard:
    return publish_tiny(local_store, "drum")


def test_the_ends_are_the_sounds_and_the_middle_neither(local_store: Store, card: ModelCard, tmp_path: Path) -> None:
    one, other = record(tmp_path / "one.wav", seed=1), record(tmp_path / "other.wav", seed=2)
    ends = [converted(local_store, card, sound, tmp_path / f"to-{sound.name}") for sound in (one, other)]
    for amount, expected in zip((0.0, 1.0), ends, strict=True):
        result = morphed(local_store, ["drum"], [one, other], tmp_path / f"{amount}.wav", amount)
        np.testing.assert_array_equal(result, expected)
    middle = morphed(local_store, ["drum"], [one, other], tmp_path / "middle.wav", 0.5)
    assert all(np.abs(middle - end).max() > 100 for end in ends)
    assert np.abs(middle - (ends[0] + ends[1]) / 2).max() > 50, "no mix of the two results"
    going = morphed(local_store, ["drum"], [one, other], tmp_path / "going.wav", 0.0, 1.0)
    assert np.abs(going[:2000] - ends[0][:2000]).mean() < np.abs(going[:2000] - ends[1][:2000]).mean() / 2
    assert np.abs(going[-2000:] - ends[1][-2000:]).mean() < np.abs(going[-2000:] - ends[0][-2000:]).mean() / 2


@pytest.mark.parametrize(("rate", "channels", "seconds"), [(48000, 2, 0.7), (22050, 1, 1.4)])
def test_sounds_may_differ_in_rate_channels_and_length(
    local_store: Store, card: ModelCard, tmp_path: Path, rate: int, channels: int, seconds: float
) -> None:
    one = record(tmp_path / "one.wav")
    other = record(tmp_path / "other.wav", rate=rate, channels=channels, seconds=seconds)
    result = morphed(local_store, ["drum"], [one, other], tmp_path / "out.wav", 0.3)
    assert result.shape == (pytest.approx(min(1.0, seconds) * RATE, abs=1), channels)
    assert result.any()


def test_the_amount_is_that_of_the_frame_in_every_chunk() -> None:
    amount = Amount(0.2, 0.9)
    whole = amount.at(0, 100, of=100)
    np.testing.assert_allclose(whole[[0, -1]], (0.2, 0.9), rtol=1e-6)
    np.testing.assert_array_equal(np.concatenate([amount.at(i, 25, of=100) for i in range(0, 100, 25)]), whole)
    np.testing.assert_allclose(amount.at(-3, 3, of=100), 0.2, rtol=1e-6)


@pytest.mark.parametrize("models", [1, 2])
def test_chunks_only_round(shared_encoder_cards: list[ModelCard], local_store: Store, tmp_path: Path, models: int) -> None:
    sources = [(record(tmp_path / f"{seed}.wav", seconds=2, seed=seed), str(seed)) for seed in (1, 2)]
    results = []
    for seconds in (10.0, 0.7):
        converters = [Converter.load(local_store, card) for card in shared_encoder_cards[:models]]
        target = tmp_path / f"{seconds}.wav"
        amount = Amount(0.2, 0.9 if models == 1 else 0.2)
        options: dict[str, Any] = {"seed": 3, "latent_noise": 1.0, "chunk_seconds": seconds}
        morph_files(sources, converters, target, "wav", amount=amount, **options)
        results.append(read(target))
    assert results[0].any()
    assert np.abs(results[0] - results[1]).max() <= 1


@pytest.mark.parametrize("config", [("v2_small", "spherical"), ("v2_small", "discrete"), ("v2_small", "wasserstein")])
def test_what_is_between_is_that_of_the_decoders_input(config: tuple[str, ...]) -> None:
    """Codes and angles have no middle; a sound in the middle of itself is itself, and points of the sphere stay on it."""
    use_streaming(False)
    torch.manual_seed(0)
    small = {"CAPACITY": 4, "LATENT_SIZE": 8, "blocks.NoiseGeneratorV2.noise_bands": 5}
    offline = torch.jit.script(
        OfflineRave(build_model(configure(config, small, sample_rate=RATE, channels=1), channels=1).eval())
    )
    hop = int(offline.hop)
    x = 0.3 * torch.randn(2, 1, 40 * hop)
    with torch.inference_mode():
        z = offline.encode_at(x, *place(0, 0), 0.0)
        one, other = (offline.latents.decode(each[None], *place(0, 0), 0.0, 0.0) for each in z)
        same = between(one, one, torch.tensor(0.3), offline.latents)
        middle = between(one, other, torch.tensor(0.5), offline.latents)
    torch.testing.assert_close(same, one, rtol=1e-5, atol=1e-5)
    assert (middle - one).norm() == pytest.approx(float((middle - other).norm()), rel=0.05)
    if "spherical" in config:
        torch.testing.assert_close(middle.norm(dim=1), torch.ones_like(middle.norm(dim=1)))


def test_two_instruments_of_one_encoder(shared_encoder_cards: list[ModelCard], local_store: Store, tmp_path: Path) -> None:
    """Also in stereo and beyond a chunk; the ends are each instrument's own conversion."""
    sound = record(tmp_path / "in.wav", seconds=1.0, channels=2)
    names = [card.name for card in shared_encoder_cards[:2]]
    ends = [converted(local_store, card, sound, tmp_path / f"{card.name}.wav") for card in shared_encoder_cards[:2]]
    results = [morphed(local_store, names, [sound], tmp_path / f"{amount}.wav", amount) for amount in (0.0, 0.5, 1.0)]
    np.testing.assert_array_equal(results[0], ends[0])
    np.testing.assert_array_equal(results[2], ends[1])
    assert results[1].any()
    assert all(np.abs(results[1] - end).max() > 1 for end in ends)
    with pytest.raises(ConversionError, match="do not have one encoder"):
        morphed(local_store, ["m0", "m2"], [sound], tmp_path / "out.wav", 0.5)
    with pytest.raises(ConversionError, match="cannot change between two models"):
        morphed(local_store, names, [sound], tmp_path / "out.wav", 0.0, 1.0)
    both = morphed(local_store, names, [sound, record(tmp_path / "b.wav", seed=5)], tmp_path / "both.wav", 0.5)
    assert both.shape == ends[0].shape


def test_the_result_says_what_it_is_made_of(local_store: Store, card: ModelCard, tmp_path: Path) -> None:
    one, other = record(tmp_path / "one.wav", seed=1), record(tmp_path / "other.wav", seed=2)
    hashes = [hash_file(one), hash_file(other)]
    morphed(local_store, ["drum"], [one, other], tmp_path / "out.flac", 0.25)
    tags = dict(read_metadata(tmp_path / "out.flac").tags)
    assert tags["DERIVED_FROM"] == "one.wav and other.wav"
    assert tags["DERIVED_FROM_SHA256"] == ", ".join(hashes)
    assert tags["MODEL"] == card.reference
    assert "morph 0.25" in tags["PARAMETERS"]
    assert tags["DESCRIPTION"].startswith("Not a recording")
    assert [hash_file(one), hash_file(other)] == hashes


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["one.wav", "out.wav"], "1 models and 1 sounds"),
        (["one.wav", "one.wav", "one.wav", "out.wav"], "1 models and 3 sounds"),
        (["one.wav", "one.wav", "out.mp3"], "OUTPUT is one sound"),
        (["one.wav", "one.wav", "one.wav"], "OUTPUT is this source"),
        (["one.wav", "none.wav", "out.wav"], "none.wav"),
        (["--model", "drum", "--model", "drum", "one.wav", "out.wav"], "do not have one encoder"),
    ],
)
def test_mistakes_are_named(
    local_store: Store, card: ModelCard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    record(tmp_path / "one.wav", seconds=0.2)
    model: list[str] = [] if "--model" in arguments else ["--model", "drum"]
    done = CliRunner().invoke(app, ["morph", "--store", local_store.uri, *model, *arguments])
    assert done.exit_code == 1
    assert said in done.output.replace("\n", " ")
    assert {path.name for path in tmp_path.iterdir() if path.suffix} == {"one.wav"}


def test_a_broken_sound_is_named_and_nothing_is_written(local_store: Store, card: ModelCard, tmp_path: Path) -> None:
    record(tmp_path / "one.wav", seconds=0.2)
    (tmp_path / "two.wav").write_bytes(b"noise")
    sounds: list[Any] = [str(tmp_path / "one.wav"), str(tmp_path / "two.wav"), str(tmp_path / "out.wav")]
    done = CliRunner().invoke(app, ["morph", "--store", local_store.uri, "--model", "drum", *sounds])
    assert done.exit_code == 3
    assert not (tmp_path / "out.wav").exists()
