"""Exports of every kind of model: against RAVE's own forward pass, against themselves in pieces, and as nn~ uses them."""

import copy
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rave_dist.errors import ConfigurationError
from rave_dist.rave.exportable import OfflineRave
from rave_dist.rave.exportable_noise import place
from rave_dist.registry.operators import EXPORTED, operators

pytestmark = pytest.mark.slow

Build = Callable[..., Any]
Exports = Callable[[str], Any]
Drums = Callable[..., Tensor]
EVERY_KIND = [
    *("v1", "v1_stereo", "v2_small", "v2", "causal", "noise", "stereo"),
    *("wasserstein", "discrete", "unquantised", "spherical", "raw", "v3"),
]
TOLERANCE = 1e-5
EXACT = 1e-9  # in double precision


def compiled(module: OfflineRave) -> Any:
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(module.eval()), file)
    file.seek(0)
    return torch.jit.load(file)


def apart(x: Tensor, y: Tensor) -> float:
    """The largest difference, by the peak of y."""
    assert x.shape == y.shape
    return float((x - y).abs().max() / y.abs().max())


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_conversion_is_raves_forward_pass_with_nothing_drawn(kind: str, exports: Exports) -> None:
    made = exports(kind)
    y = made.offline.convert(made.sound, *place(0, 0), 0.0)
    assert apart(y, made.stock) < TOLERANCE
    assert not y.requires_grad


@pytest.mark.parametrize("latent_noise", [0.0, 1.0])
@pytest.mark.parametrize("kind", EVERY_KIND)
def test_chunks_with_context_are_the_whole(kind: str, latent_noise: float, exports: Exports, drums: Drums) -> None:
    made = exports(kind)
    hop = made.hop
    left, right = (-(-samples // hop) * hop for samples in made.receptive_field)
    x = drums(made.channels, left + right + 12 * hop)
    whole = made.offline.convert(x, *place(0, 5), 1.0, latent_noise)
    start, stop = left + hop, left + 9 * hop
    around = x[..., start - left : stop + right]
    chunk = made.offline.convert(around, *place(start - left, 5), 1.0, latent_noise)[..., left : left + stop - start]
    if kind != "discrete":  # a sound at equal distance from two codewords may fall either way
        assert float((chunk - whole[..., start:stop]).abs().max()) < TOLERANCE * float(whole.abs().max())
    assert bool(torch.isfinite(chunk).all())


@pytest.mark.parametrize("kind", ["v2_small", "causal"])
def test_a_chunk_off_the_grid_or_without_context_is_wrong(kind: str, exports: Exports, drums: Drums) -> None:
    made = exports(kind)
    hop = made.hop
    x = drums(made.channels, 64 * hop)
    whole = made.offline.convert(x, *place(0, 0), 0.0)
    bare = made.offline.convert(x[..., 8 * hop : 16 * hop], *place(8 * hop, 0), 0.0)
    assert apart(bare, whole[..., 8 * hop : 16 * hop]) > 100 * TOLERANCE
    off = made.offline.convert(x[..., hop // 2 : -hop + hop // 2], *place(0, 0), 0.0)
    assert apart(off[..., 30 * hop : 31 * hop], whole[..., 30 * hop + hop // 2 : 31 * hop + hop // 2]) > 100 * TOLERANCE


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_both_halves_of_a_conversion_are_the_conversion(kind: str, exports: Exports, drums: Drums) -> None:
    made = exports(kind)
    x, position = drums(made.channels, 16 * made.hop), 5 * made.hop
    z = made.offline.encode_at(x, *place(position, 3), 0.5)
    assert z.shape == (1, made.offline.latent_size, 16)
    y = made.offline.decode_at(z, *place(position, 3), 0.7, 0.5)
    assert torch.equal(y, made.offline.convert(x, *place(position, 3), 0.7, 0.5))


@pytest.mark.parametrize("kind", ["v1", "v2_small", "noise", "stereo", "wasserstein"])
def test_noise_has_its_place_its_row_and_its_level(kind: str, exports: Exports, drums: Drums) -> None:
    made = exports(kind)
    offline, hop = made.offline, made.hop
    x = drums(made.channels, 32 * hop).expand(3, -1, -1)
    rows = place(0, 0, 3)
    still, noisy = offline.convert(x, *rows, 0.0), offline.convert(x, *rows, 1.0)
    assert torch.allclose(still[0], still[2])
    noise = noisy - still
    assert not torch.equal(noise[0], noise[1])
    assert torch.equal(offline.convert(x, *rows, 1.0), noisy)
    assert apart(offline.convert(x[:1], *place(0, 2), 1.0), noisy[2:]) < TOLERANCE  # row 2 of seed 0 is row 0 of seed 2
    faint = offline.convert(x, *rows, 0.001) - still
    assert float(faint.abs().max()) < 0.02 * float(noise.abs().max())


@pytest.mark.parametrize("kind", ["v1", "v2_small", "stereo", "wasserstein", "discrete"])
def test_rows_of_several_sounds_are_what_each_is_alone(kind: str, exports: Exports, drums: Drums) -> None:
    made = exports(kind)
    x = drums(made.channels, 16 * made.hop, rows=3).double()
    places = [(5 * made.hop, 3), (0, 3), (5 * made.hop, 2**40)]
    position, seed = (torch.tensor(values) for values in zip(*places, strict=True))
    offline = copy.deepcopy(made.offline).double()
    together = offline.convert(x, position, seed, 1.0, 1.0)
    for row, own in enumerate(places):
        assert apart(together[row : row + 1], offline.convert(x[row : row + 1], *place(*own), 1.0, 1.0)) < EXACT


@pytest.mark.parametrize("kind", ["v1", "v2_small", "stereo", "wasserstein"])
def test_moving_a_steady_tone_moves_its_noise(kind: str, exports: Exports) -> None:
    made = exports(kind)
    hop, length = made.hop, 80 * made.hop
    tone = 0.3 * torch.sin(2 * torch.pi * torch.arange(length) / 64).expand(1, made.channels, -1)  # each frame is alike
    loud = 1e4  # untrained, the noise of some is far below the sound
    here = made.offline.convert(tone, *place(0, 0), loud)
    nine_frames_later = made.offline.convert(tone, *place(9 * hop, 0), loud)
    middle = slice(30 * hop, 45 * hop)
    assert apart(nine_frames_later[..., middle], here[..., 39 * hop : 54 * hop]) < TOLERANCE
    assert apart(nine_frames_later[..., middle], here[..., middle]) > 100 * TOLERANCE


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_silence_and_full_scale_stay_finite(kind: str, exports: Exports, drums: Drums) -> None:
    made = exports(kind)
    silence = torch.zeros(1, made.channels, 1 << 14)
    for x in (silence, torch.ones_like(silence), torch.sign(drums(made.channels, 1 << 14))):
        for y in (made.offline.convert(x, *place(0, 0), 1.0), made.offline.encode(x), made.offline.forward(x)):
            assert bool(torch.isfinite(y).all())


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_a_stream_in_blocks_is_one_pass(kind: str, exports: Exports, drums: Drums) -> None:
    made = exports(kind)
    x = drums(made.channels, 1 << 15, rows=2).double()
    once = made.stream().double().forward(x)
    stream, encoder, decoder = (made.stream().double() for _ in range(3))
    blocks = x.split(2048, -1)
    assert apart(torch.cat([stream.forward(block) for block in blocks], -1), once) < EXACT
    assert apart(torch.cat([decoder.decode(encoder.encode(block)) for block in blocks], -1), once) < EXACT
    assert not torch.allclose(stream.forward(x), once)  # it remembers: the same sound again is another moment


@pytest.mark.parametrize("kind", EVERY_KIND)
@pytest.mark.parametrize("streaming", [False, True])
def test_what_nn_asks(kind: str, streaming: bool, exports: Exports) -> None:
    made = exports(kind)
    player = made.stream() if streaming else made.offline
    channels = made.channels
    latents = {"discrete": 3, "spherical": made.latent_size - 1}.get(kind, made.latent_size)
    hop = {"v2_small": 512, "stereo": 512, "discrete": 1024, "unquantised": 1024}.get(kind, 2048)
    assert player.get_methods() == ["encode", "decode", "forward"]
    assert player.encode_params.tolist() == [channels, 1, latents, hop]
    assert player.decode_params.tolist() == [latents, hop, channels, 1]
    assert player.forward_params.tolist() == [channels, 1, channels, 1]
    assert len(player.encode_output_labels) == len(player.decode_input_labels) == latents
    for rows in (1, 4):
        z = player.encode(torch.randn(rows, channels, 8192))
        assert (z.shape, z.dtype) == ((rows, latents, 8192 // hop), torch.float32)
        assert player.decode(z).shape == player.forward(torch.randn(rows, channels, 8192)).shape == (rows, channels, 8192)


def test_attributes_that_a_patch_can_set(build: Build, drums: Drums) -> None:
    player = compiled(OfflineRave(build("v2_small")))
    assert player.get_attributes() == ["noise", "latent_noise", "seed"]
    assert (player.get_noise(), player.get_latent_noise(), player.get_seed()) == ((1.0,), (1.0,), (0,))
    assert [int(player.noise_params), int(player.latent_noise_params), int(player.seed_params)] == [2, 2, 1]
    x = drums(1, 8192)
    played = player.forward(x)
    assert player.set_seed(1) == 0
    assert player.get_seed() == (1,)
    assert not torch.equal(player.forward(x), played)
    assert (player.set_noise(0.0), player.set_latent_noise(0.0)) == (0, 0)
    assert apart(player.forward(x), player.convert(x, *place(0, 0), 0.0)) < TOLERANCE
    player.set_noise(1.0)
    player.set_latent_noise(1.0)
    assert apart(player.forward(x), player.convert(x, *place(0, 1), 1.0, 1.0)) < TOLERANCE, (
        "conversion is the played instrument"
    )


@pytest.mark.parametrize("level", [float("nan"), float("inf"), -float("inf"), -0.5, 1e30])
def test_a_level_that_is_none_is_refused_and_the_old_one_stays(exports: Exports, drums: Drums, level: float) -> None:
    player = exports("v1").stream()
    assert player.set_noise(0.25) == player.set_latent_noise(0.5) == 0
    assert (player.set_noise(level), player.set_latent_noise(level), player.set_seed(-1)) == (-1, -1, -1)
    assert (player.get_noise(), player.get_latent_noise(), player.get_seed()) == ((0.25,), (0.5,), (0,))
    assert player.set_noise(1000.0) == player.set_latent_noise(1000.0) == 0
    assert bool(torch.isfinite(player.forward(drums(1, 8192))).all())


def test_a_host_reads_the_sample_rate(exports: Exports) -> None:
    for player in (exports("v2_small").offline, exports("v2_small").stream()):
        assert player.get_sample_rate() == int(player.sampling_rate) == 44100


def test_an_untrained_phase_of_v1_is_played_without_its_noise(build: Build, drums: Drums) -> None:
    model = build("v1")
    model.decoder.set_warmed_up(False)
    offline = compiled(OfflineRave(model))
    x = drums(1, 8192)
    assert torch.equal(offline.convert(x, *place(0, 0), 1.0), offline.convert(x, *place(0, 0), 0.0))


def test_only_the_leading_components_are_played(build: Build, drums: Drums) -> None:
    model = build("v2")
    size = model.latent_size
    model.latent_pca.copy_(torch.linalg.qr(torch.randn(size, size))[0])
    model.latent_mean.normal_(std=0.01)
    model.fidelity.copy_(torch.tensor([0.4, 0.7, 0.9, 0.96, 0.97, 0.98, 0.99, 1.0]))
    x = drums(1, 1 << 14)
    with torch.no_grad():
        kept = model.latent_pca[:4]
        mean = model.latent_mean[:, None]
        expected = model.decode(kept.T @ (kept @ (model.encode(x)[:, :size] - mean)) + mean)
    offline = compiled(OfflineRave(model))
    assert offline.encode(x).shape[1] == 4
    assert apart(offline.convert(x, *place(0, 0), 0.0), expected) < TOLERANCE


def test_the_operators_that_a_model_file_may_have_are_those_of_all_exports(exports: Exports, tmp_path: Path) -> None:
    used: set[str] = set()
    for kind in EVERY_KIND:
        made = exports(kind)
        offline = io.BytesIO()
        torch.jit.save(made.offline, offline)
        for number, data in enumerate((offline.getvalue(), made.streaming_file)):
            path = tmp_path / f"{kind}-{number}.ts"
            path.write_bytes(data)
            used |= operators(path)
    assert used == EXPORTED


def test_a_length_or_a_place_off_the_hop_is_refused(exports: Exports) -> None:
    offline = exports("v2_small").offline
    with pytest.raises(torch.jit.Error, match="multiples of the hop"):
        offline.convert(torch.zeros(1, 1, 1000), *place(0, 0), 0.0)
    with pytest.raises(torch.jit.Error, match="multiples of the hop"):
        offline.convert(torch.zeros(1, 1, 1024), *place(100, 0), 0.0)


def test_a_model_that_cannot_stream_is_refused(build: Build) -> None:
    with pytest.raises(ConfigurationError, match="mel spectrogram"):
        OfflineRave(build("mel"))
