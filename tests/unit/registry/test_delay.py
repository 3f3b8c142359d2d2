"""The delay of a streaming export is the lag between its output and the offline export's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from rave_dist.rave.config import configure
from rave_dist.rave.exportable import OfflineRave, ScriptedRave
from rave_dist.rave.exportable_noise import place
from rave_dist.rave.models import build_model, use_streaming
from rave_dist.registry.build import receptive_field
from rave_dist.registry.delay import streaming_delay

pytestmark = pytest.mark.slow

SMALL = {"CAPACITY": 4, "LATENT_SIZE": 8}


@pytest.fixture(autouse=True)
def _plain_afterwards() -> Iterator[None]:
    torch.set_num_threads(1)
    yield
    use_streaming(False)


def both(config: tuple[str, ...], channels: int = 1) -> tuple[OfflineRave, ScriptedRave]:
    text = configure(config, SMALL, sample_rate=44100, channels=channels)
    use_streaming(False)
    torch.manual_seed(0)
    model: Any = build_model(text, channels=channels).eval()
    weights = model.state_dict()
    offline = OfflineRave(model)
    use_streaming(True)
    twin: Any = build_model(text, channels=channels).eval()
    twin.load_state_dict(weights)
    return offline, ScriptedRave(twin, streaming=True)


@pytest.mark.parametrize(
    ("config", "channels", "delay", "shift"),
    [
        # Encoder 5504 = 11 frames - 128, decoder with inverse PQMF 5024.
        (("v2_small",), 1, 10528, 128),
        (("v2_small",), 2, 10528, 128),
        # Only the inverse PQMF waits.
        (("v2_small", "causal"), 1, 480, 0),
        (("v2_nopqmf",), 1, 20572, 128),
    ],
)
@torch.no_grad()
def test_a_stream_is_the_offline_model_of_shifted_audio_that_much_later(
    config: tuple[str, ...], channels: int, delay: int, shift: int
) -> None:
    with torch.enable_grad():
        offline, streaming = both(config, channels)
        assert streaming_delay(offline, streaming, receptive_field(offline)) == delay
    offline.double()
    streaming.double().forget()
    streaming.set_noise(0.0)
    streaming.set_latent_noise(0.0)
    generator = torch.Generator().manual_seed(1)
    x = 0.1 * torch.randn(1, channels, 192 * offline.hop, generator=generator, dtype=torch.float64)
    y = streaming.forward(x)

    def apart(shift: int) -> float:
        """The stream's frames begin between those of the offline model: shifted so that they meet, both compute the same."""
        reference = offline.convert(nn.functional.pad(x[..., shift:], (0, shift)), *place(0, 0), 0.0)
        start, lag = x.shape[-1] // 2, delay + shift
        late = reference[..., start - lag : x.shape[-1] - lag]
        return float((y[..., start:] - late).abs().max() / late.abs().max())

    assert apart(shift) < 1e-9
    assert apart(shift + 64) > 1e-3


def test_a_delay_is_measured_where_branches_do_not_line_up() -> None:
    offline, streaming = both(("v1",))
    delay = streaming_delay(offline, streaming, receptive_field(offline))
    assert 8448 < delay < sum(receptive_field(offline))
