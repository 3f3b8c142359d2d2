from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from sklearn.decomposition import PCA

from rave_dist.errors import DatasetError
from rave_dist.rave.config import configure
from rave_dist.rave.models import build_model
from rave_dist.training.evaluation.latent_pca import fit_latent, principal_axes
from rave_dist.training.evaluation.receptive_field import set_receptive_field
from rave_dist.training.evaluation.validation import excerpt, validate

torch.set_num_threads(1)
WINDOW = 24576


@dataclass(frozen=True)
class Pcm:
    pcm: npt.NDArray[np.int16]


def build(*config: str, **override: Any) -> Any:
    text = configure(config, {"CAPACITY": 4, "LATENT_SIZE": 6} | override, sample_rate=44100, channels=1)
    torch.manual_seed(0)
    return build_model(text, channels=1)


@pytest.fixture(scope="module")
def model() -> Any:
    return build("v2_small")


def hiss(samples: int, seed: int = 0) -> Pcm:
    return Pcm(np.random.default_rng(seed).normal(0, 2000, (1, samples)).astype(np.int16))


def test_says_the_same_twice_and_disturbs_nothing(model: Any) -> None:
    state = torch.get_rng_state()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    segments = [hiss(60000), hiss(5000, 1)]
    first, second = (validate(model, segments, window=WINDOW, device="cpu") for _ in range(2))
    assert first == second
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_is_the_distance_that_rave_own_validation_logs(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(model), "trainer", object(), raising=False)  # RAVE logs only where there is one
    values = validate(model, [hiss(WINDOW)], window=WINDOW, device="cpu")
    model.eval()
    with torch.no_grad():
        torch.manual_seed(1)
        x = torch.from_numpy(hiss(WINDOW).pcm)[None].float() / 32767
        logged: dict[str, Any] = {}
        model.log = lambda name, value: logged.update({name: float(value)})
        model.validation_step(x, 0)
        del model.log
    model.train()
    assert values["validation"] == pytest.approx(logged["validation"], rel=0.1)
    assert values["validation"] == values["validation/spectral_distance"]
    assert values["validation/multiband_spectral_distance"] > 0


def test_hears_every_sample(model: Any) -> None:
    quiet = np.zeros((1, 2 * WINDOW + 100), np.int16)
    loud = quiet.copy()
    loud[0, -60:] = 20000
    silence, click = (validate(model, [Pcm(pcm)], window=WINDOW, device="cpu")["validation"] for pcm in (quiet, loud))
    assert np.isfinite([silence, click]).all()
    assert abs(silence - click) > 0.1


def test_other_encoders_are_as_repeatable() -> None:
    wasserstein = build("v2_small", "wasserstein", NOISE_AUGMENTATION=3)
    first, second = (validate(wasserstein, [hiss(20000)], window=WINDOW, device="cpu") for _ in range(2))
    assert first == second
    assert fit_latent(wasserstein, [hiss(20000)], window=WINDOW, device="cpu") == 0


def test_no_held_out_audio_is_an_error(model: Any) -> None:
    with pytest.raises(DatasetError):
        validate(model, [], window=WINDOW, device="cpu")
    with pytest.raises(DatasetError):
        fit_latent(model, [], window=WINDOW, device="cpu")


@pytest.mark.parametrize("samples", [3000, 20000, 200000])
def test_any_dataset_gives_a_full_latent_space(samples: int) -> None:
    model = build("v2_small", LATENT_SIZE=32)
    frames = fit_latent(model, [hiss(samples)], window=WINDOW, device="cpu")
    assert frames >= 10 * 32 or samples == 3000
    assert torch.allclose(model.latent_pca @ model.latent_pca.T, torch.eye(32), atol=1e-5)
    fidelity = model.fidelity
    assert bool((fidelity.diff() >= -1e-6).all())
    assert float(fidelity[-1]) == pytest.approx(1)
    assert 0 < float(fidelity[0]) < 1
    assert float(model.latent_mean.abs().max()) > 0
    assert model.training


def test_axes_are_those_of_scikit_learn_as_rave_computes_them() -> None:
    generator = torch.Generator().manual_seed(0)
    scales = torch.tensor([5, 3, 2, 1, 0.1], dtype=torch.float64)
    frames = (torch.randn(400, 5, generator=generator, dtype=torch.float64) * scales) @ torch.linalg.qr(
        torch.randn(5, 5, generator=generator, dtype=torch.float64)
    )[0] + 7
    mean, axes, fidelity = principal_axes(frames)
    expected = PCA(5).fit(frames.numpy())
    assert np.allclose(mean.numpy(), expected.mean_)
    assert np.allclose(np.abs((axes.numpy() * expected.components_).sum(1)), 1)
    assert np.allclose(fidelity.numpy(), np.cumsum(expected.explained_variance_ratio_))


def test_axes_exist_for_fewer_frames_than_latents_and_for_none_that_differ() -> None:
    for frames in (torch.randn(3, 8, dtype=torch.float64), torch.ones(9, 8, dtype=torch.float64)):
        _, axes, fidelity = principal_axes(frames)
        assert torch.allclose(axes @ axes.T, torch.eye(8, dtype=torch.float64), atol=1e-9)
        assert bool(fidelity.isfinite().all())
        assert float(fidelity[-1]) == pytest.approx(1)


def test_receptive_field_is_measured_without_a_trace() -> None:
    model = build("v2_small")
    parameter = next(model.decoder.parameters())
    parameter.grad = torch.ones_like(parameter)
    state = torch.get_rng_state()
    left, right = set_receptive_field(model)
    assert (left, right) == tuple(model.receptive_field.tolist())
    assert 9000 < right < 10500 < left < 11000
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)
    assert bool((parameter.grad == 1).all())
    assert all(p.grad is None for p in model.encoder.parameters())
    assert parameter.requires_grad


def test_a_causal_model_does_not_look_ahead_in_its_network() -> None:
    left, right = set_receptive_field(build("v2_small", "causal"))
    assert right < 2048 < left  # what is left is the filter bank's and the decoder's upsampling


@pytest.mark.parametrize("held_out", [100, WINDOW, 5 * WINDOW + 1, 100 * WINDOW])
@pytest.mark.parametrize("lengths", [[300], [50, 10 * WINDOW, 0, 3 * WINDOW], [WINDOW] * 7])
def test_an_excerpt_is_of_all_training_audio(held_out: int, lengths: list[int]) -> None:
    segments = [Pcm(np.full((1, length), index, np.int16)) for index, length in enumerate(lengths)]
    found = excerpt(segments, like=[Pcm(np.zeros((1, held_out), np.int16))], window=WINDOW)
    assert len(found) == min(16, -(-held_out // WINDOW))
    for part in found:
        index = int(part.pcm[0, 0])
        assert np.all(part.pcm == index)
        assert part.pcm.shape[1] == min(WINDOW, lengths[index])
    if held_out > 10 * WINDOW and len(lengths) == 7:
        assert {int(part.pcm[0, 0]) for part in found} == set(range(7))
