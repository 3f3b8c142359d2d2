"""Of configurations and overrides that do not go together, the one to leave out is named; so is one that does nothing."""

from __future__ import annotations

from typing import Any

import pytest

from rave_dist.errors import ConfigurationError, MisfitError
from rave_dist.rave.compatibility import check_effective, name_culprit
from rave_dist.records import TrainingSpec
from rave_dist.training.preflight.model_facts import measure_model
from tests.sample_records import training_spec

pytestmark = pytest.mark.slow

SMALL = {"CAPACITY": 4, "LATENT_SIZE": 8}


def _spec(*config: str, window: int = 40960, **override: Any) -> TrainingSpec:
    return training_spec(config=config, override=SMALL | override, window=window)


@pytest.mark.parametrize(
    ("config", "override", "window", "what", "fix"),
    [
        (
            ("v1", "wasserstein"),
            {"NOISE_AUGMENTATION": 4},
            32768,
            "wasserstein cannot be combined with v1",
            "[v2, wasserstein]",
        ),
        (("v2_nopqmf_small", "hybrid"), {}, 65536, "hybrid cannot be combined with v2_nopqmf_small", "leave out hybrid"),
        (("v1", "causal", "snake"), {}, 32768, "snake has no effect with v1 and causal", "leave out snake"),
        (
            ("discrete", "spherical"),
            {"NOISE_AUGMENTATION": 4, "CODEBOOK_SIZE": 32},
            32768,
            "spherical cannot be",
            "[v2, spherical]",
        ),
        (
            ("v2_small", "causal"),
            {"KERNEL_SIZE": -1},
            40960,
            "KERNEL_SIZE: -1 cannot be combined with v2_small and",
            "KERNEL_SIZE",
        ),
    ],
)
def test_the_one_to_leave_out_is_named(
    config: tuple[str, ...], override: dict[str, Any], window: int, what: str, fix: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        measure_model(_spec(*config, window=window, **override))
    assert what in caught.value.what
    assert fix in caught.value.fix
    assert caught.value.where


def test_one_that_changes_something_is_let_pass() -> None:
    assert measure_model(_spec("v2_small", "causal", "snake")).hop == 512


def test_a_configuration_is_blamed_before_an_override_and_the_last_before_the_others() -> None:
    error = MisfitError("shapes differ")
    both = name_culprit(error, ("v2", "a", "b"), {"X": 1}, works=lambda config, override: len(config) == 2 or not override)
    assert both.what == "b cannot be combined with v2 and a"
    assert both.fix == "leave out b"
    override = name_culprit(error, ("v2", "a"), {"X": 1, "Y": 2}, works=lambda config, override: "Y" not in override)
    assert override.what == "Y: 2 cannot be combined with v2 and a: shapes differ"
    assert name_culprit(error, ("v2", "a"), {"X": 1}, works=lambda config, override: False) is error


def test_what_is_said_twice_is_no_mistake() -> None:
    def settings(config: Any) -> dict[str, str]:
        if list(config) == ["a"]:
            raise ConfigurationError("not whole")
        return {"x": "1"} | ({"y": "2"} if "b" in config else {})

    check_effective(("v3", "a"), settings=settings, read=())  # sets nothing that v3 does not
    check_effective(("v3", "b"), settings=settings, read={"y"})
    check_effective(("a", "v3"), settings=settings, read=())
    with pytest.raises(ConfigurationError, match="b has no effect with v3"):
        check_effective(("v3", "b"), settings=settings, read={"x"})
