"""Which models several workers can train."""

from __future__ import annotations

import pytest

from rave_dist.rave.config import configure
from rave_dist.rave.models import build_model
from rave_dist.training.step.division import needs_whole_batch

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (("v2_small",), ""),
        (("v2_small", "spherical"), ""),
        (("v1",), "batch normalisation"),
        (("v2_small", "wasserstein"), "a Wasserstein encoder"),
        (("discrete",), "a discrete encoder"),
    ],
)
def test_statistics_of_the_whole_batch_are_named(config: tuple[str, ...], reason: str) -> None:
    text = configure(config, {"CAPACITY": 4}, sample_rate=44100, channels=1)
    assert needs_whole_batch(build_model(text, channels=1)) == reason
