"""A RAVE model as one TorchScript module: nn~'s encode, decode and forward, and `convert` for bulk work.

::

    x ──PQMF──> encoder ──> h ──latents──> z ──latents──> decoder ──inverse PQMF──> y
                              encode               decode

The networks are the trained model's own modules; what is replaced is where RAVE draws random numbers: around the latents
and in the noise generator. Here both are functions of absolute position (`rave_dist.rave.exportable_noise`), so the same audio
gives the same samples however it is divided into chunks, and noise can be scaled or muted.

A streaming model (built while cached convolutions are on) keeps the tail of each block for the next one and counts the
samples it has seen; an offline model has no state and treats each call as a separate sound.

TorchScript compiles these modules: no postponed annotations here.
"""

import math
from typing import Any

import nn_tilde
import torch
from torch import Tensor, nn

from rave_dist.errors import ConfigurationError
from rave_dist.rave.exportable_latents import GaussianLatents, PlainLatents, QuantisedLatents, SphericalLatents
from rave_dist.rave.exportable_noise import FilteredNoise, NoNoise, place
from rave_dist.rave.presets import FIDELITY

FEWEST_LATENTS = 4


def exposed_latents(fidelity: Tensor, *, at_least: float = FIDELITY) -> int:
    """The number of principal components that an export keeps, by RAVE's rule.

    The index of the first cumulative explained variance above ``at_least``, rounded up to a power of two. RAVE keeps at least
    one; here it is four, and at most all: early in training one component may explain almost all variance, usually loudness.
    A model whose latent space was never analysed (``fidelity`` all zero) keeps all.

    Args:
        fidelity: ``[D]``, cumulative explained variance, ascending.
        at_least: share of the variance to keep.
    """
    size = fidelity.shape[0]
    if not bool(fidelity.any()):
        return size
    index = int(torch.argmax((fidelity > at_least).int()))
    return min(size, 1 << math.ceil(math.log2(max(index, FEWEST_LATENTS))))


def check_exportable(model: Any) -> None:
    """Refuses, at once, a model whose input cannot be exported.

    Raises:
        ConfigurationError: with the reason.
    """
    if model.input_mode == "mel":
        raise ConfigurationError(
            "hybrid models take a mel spectrogram as input and cannot run in real time", fix="leave out hybrid"
        )


class ScriptedRave(nn_tilde.Module):  # type: ignore[misc]  # nn_tilde is untyped
    """The streaming export, and what the offline one shares with it.

    Attributes for nn~: ``noise`` scales the noise generator, ``latent_noise`` what is drawn around the latents (1: as RAVE
    plays, 0: their mean), ``seed`` selects the noise. Hosts read the sample rate with ``get_sample_rate()`` or from the buffer
    ``sampling_rate``.

    Args:
        model: a trained ``rave.RAVE`` in evaluation mode; its weight normalisation is folded into the weights.
        fidelity: share of the latent variance to keep, for variational models.
        streaming: whether the model was built with cached convolutions.

    Raises:
        ConfigurationError: an encoder, decoder or input that cannot be exported.
    """

    def __init__(self, model: Any, *, fidelity: float = FIDELITY, streaming: bool) -> None:
        super().__init__()
        check_exportable(model)
        fold_weight_norm(model)
        self.streaming = streaming
        self.sr: int = int(model.sr)
        self.register_buffer("sampling_rate", torch.tensor(self.sr))
        self.n_channels: int = int(model.n_channels)
        self.full_latent_size: int = int(model.latent_size)
        self.input_mode: str = model.input_mode
        self.output_mode: str = model.output_mode
        self.pqmf: Any = model.pqmf
        self.encoder = model.encoder.encoder
        latents, self.latent_size = _latents(model, fidelity)
        self.latents: Any = latents
        self.decoder = _decoder(model.decoder)
        self.bands: int = int(model.pqmf.n_band) if model.output_mode == "pqmf" else 1
        self.encoded = 0
        self.decoded = 0
        strides = [m.stride[0] for m in self.encoder.modules() if isinstance(m, nn.Conv1d)]
        self.hop = math.prod(strides) * (int(model.pqmf.n_band) if model.input_mode == "pqmf" else 1)
        with torch.no_grad():
            # Cached convolutions take shape in their first pass, and TorchScript compiles those that no pass below uses too.
            self.pqmf.inverse(self.pqmf(torch.zeros(1, 1, self.hop)))
            self._declare()
        self.requires_grad_(False)
        self.forget()

    def forget(self) -> None:
        """Clears what the passes above left in the caches (cached_conv calls them ``pad`` and ``cache``) and counters."""
        self.encoded = 0
        self.decoded = 0
        for name, buffer in self.named_buffers():
            if name.rpartition(".")[2] in ("pad", "cache"):
                buffer.zero_()

    def _declare(self) -> None:
        """Tells nn~ the attributes and methods; each method is tried on silence, which also sizes the caches."""
        self._attributes: list[str] = []  # nn_tilde lists "none", which has neither getter nor setter
        self.register_attribute("noise", 1.0)
        self.register_attribute("latent_noise", 1.0)
        self.register_attribute("seed", 0)
        audio = [f"(signal) Channel {i + 1}" for i in range(self.n_channels)]
        latents = [f"(signal) Latent dimension {i + 1}" for i in range(self.latent_size)]
        sound = {"channels": self.n_channels, "ratio": 1, "labels": audio}
        latent = {"channels": self.latent_size, "ratio": self.hop, "labels": latents}
        for name, source, target in (("encode", sound, latent), ("decode", latent, sound), ("forward", sound, sound)):
            self.register_method(
                name,
                in_channels=source["channels"],
                in_ratio=source["ratio"],
                out_channels=target["channels"],
                out_ratio=target["ratio"],
                input_labels=source["labels"],
                output_labels=target["labels"],
                test_buffer_size=-(-8192 // self.hop) * self.hop,
            )

    @torch.jit.export
    def analyse(self, x: Tensor) -> Tensor:
        """Network output ``[B, H, T / hop]`` for sound ``[B, C, T]``, the same for all models with this encoder."""
        if self.input_mode == "pqmf":
            bands = self.pqmf(x.reshape(-1, 1, x.shape[-1]))
            x = bands.reshape(x.shape[0], -1, bands.shape[-1])
        h: Tensor = self.encoder(x)
        return h

    def _frames(self, position: Tensor) -> Tensor:
        return torch.div(position, self.hop, rounding_mode="floor")

    def synthesise(self, z: Tensor, position: Tensor, seed: Tensor, noise: float) -> Tensor:
        """Sound ``[B, C, F * hop]`` for the decoder's input ``[B, D, F]``."""
        y: Tensor = self.decoder(z, torch.div(position, self.bands, rounding_mode="floor"), seed, noise)
        if self.output_mode == "pqmf":
            y = self.pqmf.inverse(y.reshape(z.shape[0] * self.n_channels, -1, y.shape[-1]))
            y = y.reshape(z.shape[0], self.n_channels, -1)
        return y[..., : z.shape[-1] * self.hop]

    @torch.jit.export
    def encode(self, x: Tensor) -> Tensor:
        """Latents ``[B, latents, T / hop]`` of sound ``[B, C, T]``."""
        position, seed = place(self.encoded, self.seed[0], x.shape[0])
        z: Tensor = self.latents.encode(self.analyse(x), self._frames(position), seed, self.latent_noise[0])
        if self.streaming:
            self.encoded += x.shape[-1]
        return z

    @torch.jit.export
    def decode(self, z: Tensor) -> Tensor:
        """Sound ``[B, C, F * hop]`` of latents ``[B, latents, F]``."""
        position, seed = place(self.decoded, self.seed[0], z.shape[0])
        noise = self.noise[0]
        full = self.latents.decode(z, self._frames(position), seed, self.latent_noise[0], noise)
        y = self.synthesise(full, position, seed, noise)
        if self.streaming:
            self.decoded += y.shape[-1]
        return y

    def forward(self, x: Tensor) -> Tensor:
        """The model's rendering of a sound, ``[B, C, T]`` to the same shape."""
        return self.decode(self.encode(x))

    @torch.jit.export
    def get_noise(self) -> tuple[float]:
        """Level of the noise generator; getters return a tuple, as nn~ expects."""
        return self.noise

    @torch.jit.export
    def set_noise(self, noise: float) -> int:
        """Sets the level of the noise generator, from 0 to 1000; 1 is as trained.

        Returns:
            0, or -1 for a level that is refused, NaN included: nn~ reports it and the level stays.
        """
        if not (noise >= 0.0 and noise <= 1000.0):
            return -1
        self.noise = (noise,)
        return 0

    @torch.jit.export
    def get_latent_noise(self) -> tuple[float]:
        """Level of the noise around the latents."""
        return self.latent_noise

    @torch.jit.export
    def set_latent_noise(self, latent_noise: float) -> int:
        """Sets the level of the noise around the latents, from 0 to 1000; 1 is as RAVE draws it, 0 their mean.

        Returns:
            0, or -1 for a level that is refused.
        """
        if not (latent_noise >= 0.0 and latent_noise <= 1000.0):
            return -1
        self.latent_noise = (latent_noise,)
        return 0

    @torch.jit.export
    def get_seed(self) -> tuple[int]:
        """The seed of the noise."""
        return self.seed

    @torch.jit.export
    def set_seed(self, seed: int) -> int:
        """Sets the seed of the noise: two instances that should sound different need two seeds.

        Returns:
            0, or -1 for a negative seed.
        """
        if seed < 0:
            return -1
        self.seed = (seed,)
        return 0

    @torch.jit.export
    def get_sample_rate(self) -> int:
        """The model's sample rate in Hz, for hosts that compare it with their own."""
        return self.sr


class OfflineRave(ScriptedRave):
    """The offline export: everything above without memory, and bulk conversion."""

    def __init__(self, model: Any, *, fidelity: float = FIDELITY) -> None:
        super().__init__(model, fidelity=fidelity, streaming=False)

    @torch.jit.export
    def convert(self, x: Tensor, position: Tensor, seed: Tensor, noise: float, latent_noise: float = 0.0) -> Tensor:
        """A stretch of a longer sound through the model, with noise by absolute position.

        Equal to the same stretch of the whole sound's conversion wherever the receptive field does not reach past the
        stretch's ends, if ``position`` and T are multiples of the hop.

        Args:
            x: sound ``[B, C, T]`` at the model's rate; T a multiple of ``hop``.
            position: absolute index of each row's first sample, ``[B]``, multiples of ``hop``; on the CPU.
            seed: of each row's noise, ``[B]``.
            noise: level of the noise; 1 as trained, 0 none.
            latent_noise: level of the noise around the latents; 1 as RAVE plays, 0 their mean.

        Returns:
            ``[B, C, T]``.
        """
        z = self.encode_at(x, position, seed, latent_noise)
        return self.decode_at(z, position, seed, noise, latent_noise)

    @torch.jit.export
    def encode_at(self, x: Tensor, position: Tensor, seed: Tensor, latent_noise: float) -> Tensor:
        """The first half of `convert`: latents ``[B, latents, T / hop]`` of a stretch ``[B, C, T]`` of a longer sound."""
        if x.shape[-1] % self.hop != 0:
            raise ValueError("a conversion needs a length and a position that are multiples of the hop")
        return self.latents_at(self.analyse(x), position, seed, latent_noise)

    @torch.jit.export
    def latents_at(self, h: Tensor, position: Tensor, seed: Tensor, latent_noise: float) -> Tensor:
        """Latents ``[B, latents, F]`` of the network output ``[B, H, F]`` for a stretch."""
        if int((position % self.hop).sum()) != 0:
            raise ValueError("a conversion needs a length and a position that are multiples of the hop")
        z: Tensor = self.latents.encode(h, self._frames(position), seed, latent_noise)
        return z

    @torch.jit.export
    def decode_at(self, z: Tensor, position: Tensor, seed: Tensor, noise: float, latent_noise: float) -> Tensor:
        """The second half of `convert`: sound ``[B, C, F * hop]`` of latents ``[B, latents, F]``."""
        full = self.latents.decode(z, self._frames(position), seed, latent_noise, noise)
        return self.synthesise(full, position, seed, noise)


class ModulatedDecoder(nn.Module):
    """RAVE's ``GeneratorV2``: y = tanh(wave * sigmoid(amplitude) + noise)."""

    def __init__(self, decoder: Any) -> None:
        super().__init__()
        self.net = decoder.net
        self.waveform = nn.Identity() if decoder.waveform_module is None else decoder.waveform_module
        self.noise = NoNoise() if decoder.noise_module is None else filtered_noise(decoder.noise_module)
        self.amplitude_modulation: bool = decoder.amplitude_modulation

    def forward(self, z: Tensor, position: Tensor, seed: Tensor, noise: float) -> Tensor:
        """``[B, D, F]`` to ``[B, bands * C, T]``; ``position`` counts samples of the band domain."""
        x = self.net(z)
        y = self.waveform(x)
        if self.amplitude_modulation:
            y, amplitude = y.chunk(2, 1)
            y = y * torch.sigmoid(amplitude)
        return torch.tanh(y + self.noise(x, position, seed, noise))


class LoudnessDecoder(nn.Module):
    """RAVE v1's ``Generator``: y = tanh(wave) * mod_sigmoid(loudness) + noise, the noise from phase 2 on."""

    def __init__(self, decoder: Any) -> None:
        super().__init__()
        self.net = decoder.net
        branches = list(decoder.synth.branches)
        delays = list(getattr(decoder.synth, "paddings", [])) or [nn.Identity() for _ in branches]
        self.waveform = nn.Sequential(delays[0], branches[0])
        self.loudness = nn.Sequential(delays[1], branches[1])
        self.loud_stride: int = decoder.loud_stride
        plays_noise = decoder.use_noise and bool(decoder.warmed_up)
        self.noise_delay = delays[2] if plays_noise else nn.Identity()
        self.noise = filtered_noise(branches[2]) if plays_noise else NoNoise()

    def forward(self, z: Tensor, position: Tensor, seed: Tensor, noise: float) -> Tensor:
        """``[B, D, F]`` to ``[B, bands * C, T]``; ``position`` counts samples of the band domain."""
        x = self.net(z)
        loudness = 2 * torch.sigmoid(self.loudness(x)) ** 2.3 + 1e-7
        if self.loud_stride != 1:
            loudness = loudness.repeat_interleave(self.loud_stride, dim=-1)
        y: Tensor = torch.tanh(self.waveform(x)) * loudness
        y = y + self.noise(self.noise_delay(x), position, seed, noise)
        return y


def filtered_noise(generator: Any) -> FilteredNoise:
    """RAVE's ``NoiseGenerator`` or ``NoiseGeneratorV2`` with positional noise."""
    bands = generator.data_size * getattr(generator, "n_channels", 1)
    last = [m for m in generator.net if isinstance(m, nn.Conv1d)][-1]
    return FilteredNoise(generator.net, bands=bands, size=int(generator.target_size), amplitudes=last.out_channels // bands)


def fold_weight_norm(model: nn.Module) -> None:
    """Replaces weight normalisation by the weights that it gives."""
    for module in model.modules():
        if hasattr(module, "weight_g"):
            nn.utils.remove_weight_norm(module)


def kind_of(module: object) -> set[str]:
    """Names of a module's classes: gin makes nameless subclasses, and RAVE need not be imported to ask."""
    return {cls.__name__ for cls in type(module).__mro__}


def _decoder(decoder: Any) -> nn.Module:
    kinds = kind_of(decoder)
    if "GeneratorV2" in kinds:
        return ModulatedDecoder(decoder)
    if "Generator" in kinds:
        return LoudnessDecoder(decoder)
    raise ConfigurationError(f"a {type(decoder).__name__} decoder cannot be exported", fix="use v1's or v2's generator")


def _latents(model: Any, fidelity: float) -> tuple[nn.Module, int]:
    """The latent module of a model and how many dimensions it exposes."""
    encoder, kinds, size = model.encoder, kind_of(model.encoder), int(model.latent_size)
    if "VariationalEncoder" in kinds:
        exposed = exposed_latents(model.fidelity, at_least=fidelity)
        return GaussianLatents(model.latent_mean, model.latent_pca, exposed=exposed), exposed
    if "WasserteinEncoder" in kinds or ("DiscreteEncoder" in kinds and not bool(encoder.enabled)):
        return PlainLatents(augmentation=encoder.noise_augmentation), size
    if "DiscreteEncoder" in kinds:
        layers = list(encoder.rvq.layers)
        quantised = QuantisedLatents(
            torch.stack([layer.codebook for layer in layers]),
            project_in=[layer.project_in for layer in layers],
            project_out=[layer.project_out for layer in layers],
            augmentation=encoder.noise_augmentation,
        )
        return quantised, len(layers)
    if "SphericalEncoder" in kinds:
        return SphericalLatents(), size - 1
    raise ConfigurationError(
        f"a {type(encoder).__name__} cannot be exported", fix="use a variational, wasserstein, discrete or spherical encoder"
    )
