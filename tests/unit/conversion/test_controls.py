"""What is changed inside the model: levels, temperature, single latents; the same samples whatever the chunks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from rave_dist.audio.types import Audio
from rave_dist.conversion import in_process
from rave_dist.conversion.convert import Converter
from rave_dist.conversion.corpus import plan_conversion
from rave_dist.conversion.job import begin, finish
from rave_dist.errors import ConversionError
from rave_dist.rave.exportable_noise import place
from rave_dist.records import Controls, ConversionParameters, NamedLatent
from rave_dist.records.conversion_options import changes, latent_change, named_change
from rave_dist.storage.store import Store
from tests.conftest import TinyModel

RATE = 44100


@pytest.fixture
def converter(tiny_model: TinyModel, local_store: Store) -> Converter:
    return Converter(tiny_model.offline, tiny_model.publish(local_store, "tiny"))


@pytest.fixture
def sound() -> Audio:
    time = np.arange(3 * RATE) / RATE
    beats = np.exp(-6 * (time % 0.25)) * np.sin(2 * np.pi * 300 * time)
    return np.stack([0.4 * beats, 0.2 * np.roll(beats, 5000)]).astype(np.float32)


def latents(converter: Converter, x: Audio) -> torch.Tensor:
    hop = converter.card.hop
    padded = np.pad(x, ((0, 0), (0, -x.shape[1] % hop)))
    return converter._model.encode_at(torch.from_numpy(padded)[None], *place(0, 0), 0.0)


def test_without_a_change_the_samples_are_those_of_a_plain_conversion(converter: Converter, sound: Audio) -> None:
    plain = converter.convert_array(sound, sample_rate=RATE)
    np.testing.assert_array_equal(converter.convert_array(sound, sample_rate=RATE, latents={1: (1.0, 0.0)}), plain)
    np.testing.assert_array_equal(converter.convert_array(sound, sample_rate=RATE, noise=1.0, temperature=1.0), plain)


@pytest.mark.parametrize("change", [{"temperature": 0.5}, {"latents": {2: (1.5, 0.3)}}, {"noise": 0.0}])
def test_a_change_is_that_of_the_decoder_s_input_in_any_chunks(
    converter: Converter, sound: Audio, change: dict[str, Any]
) -> None:
    found = converter.convert_array(sound[:1], sample_rate=RATE, latent_noise=0.0, **change)
    z = latents(converter, sound[:1]) * change.get("temperature", 1.0)
    for number, (scale, bias) in change.get("latents", {}).items():
        z[:, number - 1] = z[:, number - 1] * scale + bias
    with torch.inference_mode():
        expected = converter._model.decode_at(z, *place(0, 0), change.get("noise", 1.0), 0.0)[0, :, : sound.shape[1]].clamp(
            -1, 1
        )
    assert np.abs(found - expected.numpy()).max() < 1e-5 * np.abs(found).max()
    plain = converter.convert_array(sound[:1], sample_rate=RATE, latent_noise=0.0)
    assert np.abs(found - plain).max() > 0.01 * np.abs(plain).max(), "the change is audible"
    chunked = converter.convert_array(sound[:1], sample_rate=RATE, latent_noise=0.0, chunk_seconds=0.5, **change)
    assert np.abs(found - chunked).max() < 1e-5 * np.abs(found).max()


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"latents": {0: (1.0, 0.0)}}, "no latent 0"),
        ({"latents": {5: (1.0, 0.0)}}, "no latent 5"),
        ({"latents": {1: (float("nan"), 0.0)}}, "finite"),
        ({"latents": {1: (1.0, float("inf"))}}, "finite"),
        ({"temperature": -0.1}, "between 0 and 1000"),
        ({"temperature": float("nan")}, "between 0 and 1000"),
        ({"noise": float("inf")}, "between 0 and 1000"),
    ],
)
def test_what_the_model_cannot_do_is_refused_before_the_work(
    converter: Converter, sound: Audio, tmp_path: Path, change: dict[str, Any], what: str
) -> None:
    with pytest.raises(ConversionError, match=what) as caught:
        converter.convert_array(sound, sample_rate=RATE, **change)
    assert caught.value.fix
    soundfile.write(tmp_path / "a.wav", sound.T, RATE)
    parameters = ConversionParameters(controls=Controls(**change))
    with pytest.raises(ConversionError, match=what):
        plan_conversion(converter.card, [str(tmp_path / "a.wav")], str(tmp_path / "out"), parameters)


def test_a_result_says_what_was_changed_and_is_another_conversion(
    converter: Converter, sound: Audio, tmp_path: Path, local_store: Store
) -> None:
    soundfile.write(tmp_path / "a.wav", sound.T, RATE)
    controls = Controls(temperature=0.5, latents={2: (1.5, 0.25)})
    plans = [
        plan_conversion(converter.card, [str(tmp_path / "a.wav")], str(tmp_path / "out"), parameters)
        for parameters in (ConversionParameters(), ConversionParameters(controls=controls))
    ]
    assert plans[0].id != plans[1].id
    (record,) = finish(job := begin(local_store, [plans[1]], chunk_seconds=1.0), in_process.convert_all(job))
    assert record.converted == 1
    assert record.parameters == ConversionParameters.model_validate_json(record.parameters.model_dump_json())
    said = soundfile.SoundFile(tmp_path / "out" / "a.wav").comment
    assert "temperature 0.5, latent 2 scale 1.5 bias 0.25" in said


def test_parameters_without_changes_have_the_identity_that_they_had() -> None:
    assert ConversionParameters(controls=Controls()).to_json() == ConversionParameters().to_json()
    assert "controls" not in ConversionParameters().to_json()
    assert ConversionParameters(controls=Controls(noise=0.5)).to_json()["controls"] == {"noise": 0.5}


def test_a_change_is_read_from_the_command_line() -> None:
    with pytest.raises(ConversionError, match="1 is changed twice"):
        changes(latent_change, ["1=scale:2", "1=bias:1"])
    assert changes(latent_change, ["1=scale:2", "2=bias:1"]) == {1: (2.0, 0.0), 2: (1.0, 1.0)}
    assert latent_change("3=scale:1.2,bias:-0.1") == (3, (1.2, -0.1))
    assert latent_change("1=bias:2") == (1, (1.0, 2.0))
    for text in ("3", "3=", "x=scale:1", "3=scale:1,scale:2", "3=size:1", "3=scale:loud", "3=scale", "=scale:1"):
        with pytest.raises(ConversionError, match="not a change of a latent") as caught:
            latent_change(text)
        assert caught.value.where == "--latent"


def test_a_name_moves_its_latent_towards_more_by_standard_deviations() -> None:
    names = {
        "loudness": NamedLatent(latent=2, correlation=-0.8, deviation=1.5, loudness_db=3.0),
        "pitch": NamedLatent(latent=1, correlation=0.6, deviation=0.2, loudness_db=0.0),
    }
    controls = Controls(latents={2: (1.2, 0.1)}, named={"loudness": 0.5, "pitch": -1.0})
    found = controls.resolved(names, where="tabla@1")
    assert found.named == {}
    assert found.latents == {2: (1.2, pytest.approx(0.1 - 0.75)), 1: (1.0, pytest.approx(-0.2))}
    with pytest.raises(ConversionError, match="no latent of this model follows attack") as caught:
        Controls(named={"attack": 1.0}).resolved(names, where="tabla@1")
    assert caught.value.fix == "use loudness, pitch, or --latent"
    with pytest.raises(ConversionError, match="follows loudness"):
        Controls(named={"loudness": 1.0}).resolved({}, where="tabla@1")


def test_a_plan_has_the_numbers_of_its_model(converter: Converter, sound: Audio, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", sound.T, RATE)
    names = {"loudness": NamedLatent(latent=3, correlation=0.9, deviation=2.0, loudness_db=3.0)}
    card = converter.card.model_copy(update={"named_latents": names})
    parameters = ConversionParameters(controls=Controls(named={"loudness": 0.5}))
    plan = plan_conversion(card, [str(tmp_path / "a.wav")], str(tmp_path / "out"), parameters)
    assert plan.parameters.controls == Controls(latents={3: (1.0, 1.0)})
    with pytest.raises(ConversionError, match="follows loudness"):
        plan_conversion(converter.card, [str(tmp_path / "a.wav")], str(tmp_path / "out"), parameters)


def test_a_change_by_name_is_read_from_the_command_line() -> None:
    assert named_change("loudness=+0.5") == ("loudness", 0.5)
    for text in ("loudness", "loudness=", "=1", "loudness=nan", "loudness=much"):
        with pytest.raises(ConversionError, match="not a change by name") as caught:
            named_change(text)
        assert caught.value.where == "--set"
