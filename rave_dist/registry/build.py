"""Builds an export; `rave_dist.registry.export` calls this in a fresh process.

The trained model is built twice, with plain and with cached convolutions. The output of each for a probe is stored before it
is compiled.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rave_dist.errors import ConfigurationError
from rave_dist.rave.exportable import OfflineRave, ScriptedRave, exposed_latents, fold_weight_norm, kind_of
from rave_dist.rave.exportable_latents import PlainLatents, QuantisedLatents
from rave_dist.rave.exportable_noise import place
from rave_dist.rave.models import build_model, use_streaming
from rave_dist.rave.presets import FIDELITY
from rave_dist.records import ExportFolder, ExportRecord, RunFolder, TrainingSpec
from rave_dist.registry.delay import streaming_delay
from rave_dist.registry.levels import played_levels


def build(out: Path, run: Path, name: str, fidelity: float = FIDELITY) -> ExportRecord:
    """Builds both files, and a probe for the checks: audio, and the trained model's output for it.

    Args:
        out: the folder for the export.
        run: as in `rave_dist.registry.export.export_run`.
        name: of the model.
        fidelity: share of the latent variance to keep.

    Returns:
        The export's record, which is also written to the folder.
    """
    source, target = RunFolder(run), ExportFolder(out, name)
    spec = TrainingSpec.model_validate_json(Path(source.spec).read_bytes())
    text = Path(source.config).read_text(encoding="utf-8")
    sound = _probe(Path(source.probe), spec.channels, spec.sample_rate)
    probe: dict[str, Any] = {"sound": sound}
    for streaming, file in ((False, target.offline), (True, target.streaming)):
        use_streaming(streaming)
        model = _trained(text, Path(source.weights), channels=spec.channels)
        scripted: ScriptedRave
        with torch.no_grad():
            # In double precision a difference is an error and not rounding by steep nonlinearities.
            expected = eager_render(model.double(), sound.double(), fidelity)
            model.float()
            if streaming:
                probe["streaming"] = expected
                scripted = stream = ScriptedRave(model, fidelity=fidelity, streaming=True)
            else:
                probe["offline"] = expected
                scripted = offline = OfflineRave(model, fidelity=fidelity)
        scripted.export_to_ts(file)
    phase_1 = Path(source.weights_phase_1)
    if phase_1.exists():
        use_streaming(False)
        with torch.no_grad():
            before = OfflineRave(_trained(text, phase_1, channels=spec.channels), fidelity=fidelity)
        before.export_to_ts(target.phase_1)
    field = receptive_field(offline)
    delay = streaming_delay(offline, stream, field)
    exported = ExportRecord(
        offline=Path(target.offline).name,
        streaming=Path(target.streaming).name,
        phase_1=Path(target.phase_1).name if phase_1.exists() else None,
        latents=offline.latent_size,
        latent_size=offline.full_latent_size,
        hop=offline.hop,
        receptive_field=field,
        delay=delay,
        levels=played_levels(offline, stream, sound, delay),
    )
    torch.save({**probe, "latents": type(offline.latents).__name__}, target.probe)
    Path(target.record).write_text(exported.model_dump_json())
    return exported


def _trained(text: str, weights: Path, *, channels: int) -> Any:
    """A configuration's model with these weights, weight normalisation folded."""
    model = build_model(text, channels=channels)
    model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    fold_weight_norm(model.eval())
    return model


def _probe(path: Path, channels: int, sample_rate: int) -> Tensor:
    """Test audio ``[1, C, T]`` with energy in every band: the run's probe, or a falling tone in noise with silences."""
    length = 3 << 15
    if path.exists():
        sound = torch.from_numpy(np.load(path)).float()
        return sound.tile(1, -(-length // sound.shape[-1]))[:, :length].unsqueeze(0)
    time = torch.arange(length, dtype=torch.float64) / sample_rate
    phase = 2 * torch.pi * sample_rate * 0.2 * (1 - torch.exp(-time / 2))
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(channels, length, generator=generator, dtype=torch.float64)
    beats = (time * 4 % 1 < 0.7).double() * torch.exp(-3 * (time * 4 % 1))
    return ((0.4 * torch.sin(phase) + 0.05 * noise) * beats).float().unsqueeze(0)


def eager_render(model: Any, x: Tensor, fidelity: float) -> Tensor:
    """The deterministic output of RAVE's own modules, the reference for the exports.

    Mean latents, only the exposed principal components kept, silent noise generator, noise dimensions at zero.
    """
    kinds = kind_of(model.encoder)
    h = model.encode(x)
    if "VariationalEncoder" in kinds:
        kept = model.latent_pca[: exposed_latents(model.fidelity, at_least=fidelity)]
        mean = model.latent_mean.reshape(-1, 1)
        z = kept.T @ (kept @ (h.chunk(2, 1)[0] - mean)) + mean
    elif "SphericalEncoder" in kinds:
        norm = torch.linalg.vector_norm(h, dim=1, keepdim=True)
        pole = torch.nn.functional.one_hot(torch.tensor(0), h.shape[1]).to(h).reshape(1, -1, 1)
        z = torch.where(norm > 0, h / norm, pole)  # silence has no direction: RAVE would divide 0 by 0
    else:
        z = model.encoder.rvq(h)[0] if "DiscreteEncoder" in kinds and bool(model.encoder.enabled) else h
        z = torch.cat([z, z.new_zeros(z.shape[0], model.encoder.noise_augmentation, z.shape[2])], 1)
    generators = [m for m in model.decoder.modules() if kind_of(m) & {"NoiseGenerator", "NoiseGeneratorV2"}]
    silencers = [m.register_forward_hook(lambda _module, _input, noise: torch.zeros_like(noise)) for m in generators]
    y: Tensor = model.decode(z)
    for silencer in silencers:
        silencer.remove()
    return y[..., : x.shape[-1]]


def receptive_field(model: Any) -> tuple[int, int]:
    """The number of samples before and after a latent frame that affect its output.

    Found from the gradient of one output frame with respect to the input, with longer and longer inputs until both ends have no
    effect. An excerpt that starts on a frame and has this context on each side, rounded up to the hop, is converted exactly.

    Args:
        model: an `OfflineRave`, not yet compiled.

    Raises:
        ConfigurationError: the receptive field exceeds 2^20 samples.
    """
    latents = model.latents
    if _quantised(model):  # choosing a codeword has no derivative, and depends on one frame only
        model.latents = PlainLatents(augmentation=latents.augmentation)
    try:
        for exponent in range(16, 21):
            length = max(1 << exponent, 32 * model.hop)
            middle = length // 2 // model.hop * model.hop
            generator = torch.Generator().manual_seed(0)
            x = torch.randn(1, model.n_channels, length, generator=generator).mul_(0.1).requires_grad_()
            y = model.convert(x, *place(0, 0), 1.0)[..., middle : middle + model.hop]
            (gradient,) = torch.autograd.grad((y * torch.randn(y.shape, generator=generator)).sum(), x)
            affecting = gradient[0].abs().amax(0).nonzero().flatten()
            first, last = int(affecting[0]), int(affecting[-1])
            if first > 0 and last < length - 1:
                # At least one sample, hence one frame, on the right: a causal model does not depend on the next frame, but its
                # transposed convolutions need one.
                return max(0, middle - first), max(1, last - (middle + model.hop - 1))
    finally:
        model.latents = latents
    raise ConfigurationError(
        "the receptive field exceeds a million samples: the model cannot convert audio in chunks",
        fix="use a configuration without a recurrent layer",
    )


def _quantised(model: nn.Module) -> bool:
    return isinstance(model.latents, QuantisedLatents)


def build_request(*, out: str, run: str, name: str, fidelity: float) -> dict[str, Any]:
    """`build` with JSON values."""
    return build(Path(out), Path(run), name, fidelity).to_json()
