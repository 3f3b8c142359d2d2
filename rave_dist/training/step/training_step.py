"""One optimizer step of RAVE, without work that does not affect its result.

With ``x`` a batch, ``E`` encoder, ``G`` decoder, ``D`` discriminator (which returns the features of its layers, the last one
being its score), ``Q`` the PQMF analysis, ``d`` RAVE's spectral distances, and every weight ``w`` applied twice as
RAVE 2.3.1 does, `RAVE.training_step` computes

    generator step      w_m² d(Qx, QG(z)) + w_f² d(x, G(z)) + beta reg(z) [+ w_fm² |D(x) - D(G(z))| + w_a² adv(D(G(z)))]
    discriminator step  gan(D(x), D(G(z)))                                 [phase 2, every ``update_discriminator_every``]

and back-propagates each through all networks involved. Omitted here:

- gradients of ``x``, of the PQMF's filters, and of the discriminator in a generator step: they are never used;
- in a discriminator step the distances, the feature matching and all gradients of the generator: cleared before use;
- in phase 2 the encoder's graph, where RAVE detaches the encoder (its batch statistics are still updated);
- in a generator step the graph of ``D(x)``: it is a constant there;
- the graph of the spectral distances: their gradient is computed with their value (`rave_dist.training.step.spectral_loss`);
- two-dimensional convolutions over independent columns (`rave_dist.training.step.discriminators`);
- returning memory to the system between operations, and Adam's separate passes over all weights, on a CPU
  (`rave_dist.allocator`, `rave_dist.training.step.precision`);
- every synchronisation of host and device (``.item()``, ``bool`` of device tensors).

Random numbers are drawn in RAVE's order, so equal seeds give equal steps.

Gradients can be accumulated over equal parts of the batch before one update, which needs the memory of one part. Means over
windows are unchanged: the discriminator step, the adversarial loss, the latent regularisation. Values that RAVE computes from
the whole batch become means over the parts: the spectral distances and v2's feature matching are normalised by all targets;
batch normalisation (v1) and codebooks (discrete) use the statistics of a part. Random numbers are drawn part by part. The
windows of each part can be divided among several processes (`rave_dist.training.step.division`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from rave_dist.allocator import hold_freed_memory
from rave_dist.errors import ConfigurationError
from rave_dist.extensions import LOSSES
from rave_dist.options import ComputeOption
from rave_dist.rave.imports import rave_module
from rave_dist.rave.models import BetaWarmup
from rave_dist.rave.window import band_crop
from rave_dist.training.step.cuda_graph import CudaGraphStep
from rave_dist.training.step.discriminators import lean_discriminator
from rave_dist.training.step.division import Division
from rave_dist.training.step.precision import Optimizer, Precision, to_float32
from rave_dist.training.step.spectral_loss import lean_distance

Losses = dict[str, Tensor]


class TrainingStep:
    """RAVE's training step, optimizers and schedules over one model.

    Args:
        model: a ``rave.RAVE``; it is moved to the device and put into training mode, its PQMF frozen.
        phase_1_steps: steps of phase 1, without the discriminator (RAVE's ``phase_1_duration``); at least 1.
        warmup_steps: steps over which the weight of the latent regularisation rises.
        device: ``cpu`` or ``cuda``.
        quantize: for discrete models: enable the quantizer in the first step, as RAVE's configuration intends. RAVE 2.3.1
            never does, because its hook has a misspelt name; False reproduces this.
        fused_distances: compute the spectral distances with their gradient; False calls RAVE's own modules, which are slower
            and round in another order.
        compute: precision and speed options (`rave_dist.training.step.precision`).
        accumulation_steps: equal parts of the batch whose gradients are added up in a step; at most one per window.
        losses: weights of further losses of the generator, by their names in `rave_dist.extensions.LOSSES`.
        freeze_encoder: train only the decoder; also the statistics and codebooks of the encoder stay as they are.
        division: how the batch is divided, for several workers; None for ``accumulation_steps`` in this process.

    Raises:
        ConfigurationError: phase 1 has no step, the device does not support ``compute``, or several workers not this step.
    """

    def __init__(
        self,
        model: Any,
        *,
        phase_1_steps: int,
        warmup_steps: int,
        device: torch.device | str,
        quantize: bool = False,
        fused_distances: bool = True,
        compute: Collection[ComputeOption] = (),
        accumulation_steps: int = 1,
        losses: Mapping[str, float] | None = None,
        freeze_encoder: bool = False,
        division: Division | None = None,
    ) -> None:
        if phase_1_steps < 1:
            raise ConfigurationError("phase 1 needs at least one step", fix="give a larger budget")
        blocks = rave_module("blocks")
        self.model = model.to(device).train()
        self.device = torch.device(device)
        if self.device.type == "cpu":
            hold_freed_memory()
        self.phase_1_steps = phase_1_steps
        self.warmup_steps = warmup_steps
        self._division = division or Division(accumulation_steps)
        self._division.check(model, compute)
        self._feature_distance = self._division.matching(model.feature_matching_fun)
        self._further_losses = {name: (LOSSES[name].compute, weight) for name, weight in sorted((losses or {}).items())}
        self._beta: BetaWarmup = model.beta_warmup
        self._fullband, self._multiband = (
            lean_distance(module, self._division.pooled) if fused_distances else module
            for module in (model.audio_distance, model.multiband_audio_distance)
        )
        self._compute = Precision(compute, self.device)
        self._encoder, self._decoder, self._discriminator = (
            self._compute.compiled(network)
            for network in (model.encoder, model.decoder, lean_discriminator(model.discriminator))
        )
        self._freezes_encoder = freeze_encoder
        self._detaches_encoder = isinstance(model.encoder, blocks.VariationalEncoder | blocks.WasserteinEncoder)
        self._crop: tuple[int, int] | None = None

        model.warmup = phase_1_steps
        generator, discriminator = model.configure_optimizers()
        self.generator_optimizer: torch.optim.Optimizer = generator["optimizer"]
        self.discriminator_optimizer: torch.optim.Optimizer = discriminator["optimizer"]
        self._scheduler: torch.optim.lr_scheduler.LRScheduler = generator["lr_scheduler"]["scheduler"]
        self._generators_descent = self._compute.optimizer(self.generator_optimizer)
        self._discriminators_descent = self._compute.optimizer(self.discriminator_optimizer)
        self._records = "cuda-graphs" in compute
        self._recorded: dict[bool, CudaGraphStep] = {}
        self._beta_on_device = torch.zeros((), device=self.device)
        self._discriminator_parameters = list(model.discriminator.parameters())
        model.pqmf.requires_grad_(False)
        if freeze_encoder:
            model.encoder.requires_grad_(False)
        if quantize and isinstance(model.encoder, blocks.DiscreteEncoder):
            model.encoder.enabled.fill_(1)
        _keep_flags_on_host(model)

    def phase(self, step: int) -> int:
        """The phase of a step: 1 without the discriminator, then 2; ``step`` counts from 0."""
        return 1 if step < self.phase_1_steps else 2

    def beta(self, step: int) -> float:
        """Weight of the latent regularisation in a step, as RAVE's ``BetaWarmupCallback`` sets it before the step."""
        beta, done = self._beta, step + 1
        if done >= self.warmup_steps:
            return beta.target
        ratio = done / self.warmup_steps
        if beta.logarithmic:
            return math.exp(math.log(beta.initial) * (1 - ratio) + math.log(beta.target) * ratio)
        return min(ratio * (beta.target - beta.initial) + beta.initial, beta.target)

    def reschedule(self, *, phase_1_steps: int, warmup_steps: int) -> None:
        """Changes the lengths of phase 1 and of the warm-up, with the learning rate as if they had been so from the start."""
        self.phase_1_steps, self.warmup_steps = phase_1_steps, warmup_steps
        self.model.warmup = phase_1_steps
        scheduler: Any = self._scheduler
        scheduler.total_iters = phase_1_steps
        share = min(scheduler.last_epoch, phase_1_steps) / phase_1_steps
        factor = scheduler.start_factor + (scheduler.end_factor - scheduler.start_factor) * share
        for group, base in zip(self.generator_optimizer.param_groups, scheduler.base_lrs, strict=True):
            group["lr"] = group["lr"].fill_(base * factor) if isinstance(group["lr"], Tensor) else base * factor

    def scale_learning_rate(self, factor: float) -> None:
        """Multiplies the learning rates of both optimizers by a factor, also for the rest of the schedule."""
        for optimizer in (self.generator_optimizer, self.discriminator_optimizer):
            for group in optimizer.param_groups:
                group["lr"] *= factor
        scheduler: Any = self._scheduler
        scheduler.base_lrs = [base * factor for base in scheduler.base_lrs]

    def is_discriminator_step(self, step: int) -> bool:
        """Whether a step trains the discriminator."""
        return self.phase(step) == 2 and step % int(self.model.update_discriminator_every) == 0

    def __call__(self, batch: Tensor, step: int) -> Losses:
        """Runs step ``step`` (from 0) on a batch.

        Args:
            batch: ``[B, C, T]`` on the step's device; of several workers, this one's windows.
            step: number of the step.

        Returns:
            RAVE's logged values by their names, detached, on the device; for a discriminator step only those that it computes.
        """
        self._enter(step)
        of_discriminator = self.is_discriminator_step(step)
        do: Callable[[Tensor], Losses] = self._discriminator_step if of_discriminator else self._generator_step
        if self._records:
            do = self._recorded.setdefault(of_discriminator, CudaGraphStep(do))
        losses = do(batch)
        self._scheduler.step()
        losses["beta_factor"] = torch.tensor(self.beta(step))
        return losses

    def state_dict(self) -> dict[str, Any]:
        """The state of both optimizers and the learning-rate schedule, without that of the model."""
        return {
            "generator_optimizer": self._generators_descent.state_dict(),
            "discriminator_optimizer": self._discriminators_descent.state_dict(),
            "scheduler": self._scheduler.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores a `state_dict`."""
        self._generators_descent.load_state_dict(state["generator_optimizer"])
        self._discriminators_descent.load_state_dict(state["discriminator_optimizer"])
        self._scheduler.load_state_dict(state["scheduler"])

    def resume(self, generator: dict[str, Any], discriminator: dict[str, Any], *, step: int) -> None:
        """Restores the optimizers of another run after ``step`` steps; the learning rate follows this schedule."""
        self._generators_descent.take_over(generator)
        self._discriminators_descent.take_over(discriminator)
        self._scheduler.last_epoch = step
        self.reschedule(phase_1_steps=self.phase_1_steps, warmup_steps=self.warmup_steps)

    # ------------------------------------------------------------ parts of a step

    def _enter(self, step: int) -> None:
        model, warmed_up = self.model, self.phase(step) == 2
        model.beta_factor = self.beta(step)
        if self._freezes_encoder:
            model.encoder.eval()  # after a validation, too
        if self._records:  # a recorded step reads it in place
            model.beta_factor = self._beta_on_device.fill_(model.beta_factor)
        if model.warmed_up != warmed_up or self._crop is None:
            self._recorded.clear()  # frees the memory of phase 1's recording
            model.warmed_up = warmed_up
            model.encoder.set_warmed_up(warmed_up)
            model.decoder.set_warmed_up(warmed_up)
            _keep_flags_on_host(model)
            self._crop = band_crop(model)

    def _encode(self, batch: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Latent ``[B, L, T / hop]``, its regularisation, and the batch in bands ``[B, C · bands, T / bands]``."""
        model, bands = self.model, self.multiband(batch)
        source = {"pqmf": bands, "raw": batch}.get(model.input_mode)
        if source is None:
            with torch.no_grad():
                source = model._mel_encode(batch)
        constant = self._freezes_encoder or (model.warmed_up and self._detaches_encoder)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not constant):
            with self._compute.networks():
                encoded = self._encoder(source)
            with self._division.draws():
                latent, regularisation = model.encoder.reparametrize(to_float32(encoded))[:2]
        return latent, regularisation, bands

    def multiband(self, audio: Tensor) -> Tensor:
        """Audio ``[B, C, T]`` in RAVE's bands ``[B, C · bands, T / bands]``."""
        bands: Tensor = rave_module("model")._pqmf_encode(self.model.pqmf, audio)
        return bands

    def _decode(self, latent: Tensor, length: int) -> tuple[Tensor, Tensor | None]:
        """Audio ``[B, C, length]``, and its bands if the decoder outputs bands."""
        model = self.model
        with self._compute.networks(), self._division.draws():
            output = self._decoder(latent)
        output = to_float32(output)
        if model.output_mode != "pqmf":
            return output[..., :length], None
        audio = rave_module("model")._pqmf_decode(model.pqmf, output, batch_size=latent.shape[:-2], n_channels=model.n_channels)
        return audio[..., :length], output

    def _distances(self, x: Tensor, y: Tensor, x_bands: Tensor, y_bands: Tensor) -> Losses:
        model = self.model
        left, right = self._crop or (0, 0)
        y_bands = y_bands[..., : x_bands.shape[-1]]
        x_bands, y_bands = (bands[..., left : bands.shape[-1] - right] for bands in (x_bands, y_bands))
        multiband = self._multiband(x_bands, y_bands)
        fullband = self._fullband(x, y)
        return {
            **{f"multiband_{name}": model.weights["multiband_audio_distance"] * d for name, d in multiband.items()},
            **{f"fullband_{name}": model.weights["audio_distance"] * d for name, d in fullband.items()},
        }

    def _discriminate(self, audio: Tensor) -> list[list[Tensor]]:
        with self._compute.discriminator():
            features = self._discriminator(audio)
        return [[to_float32(feature) for feature in scale] for scale in features]

    def _generator_step(self, batch: Tensor) -> Losses:
        with _constant(self._discriminator_parameters):
            return self._descend(self._generators_descent, batch, self._generator_losses)

    def _discriminator_step(self, batch: Tensor) -> Losses:
        return self._descend(self._discriminators_descent, batch, self._discriminator_losses)

    def _descend(self, optimizer: Optimizer, batch: Tensor, evaluate: Callable[[Tensor], tuple[Tensor, Losses]]) -> Losses:
        """One optimizer step on the gradients of all parts, weighted, like the logged values, by their share of the windows.

        Only the gradients and losses of a part are kept while the next one is computed.
        """
        optimizer.clear()
        logged: Losses = {}
        for part, share in self._division.parts(batch):
            total, losses = evaluate(part)
            optimizer.add(total * share)
            for name, value in losses.items():
                logged[name] = logged.get(name, 0.0) + value * share
        logged = self._division.collect(optimizer.gradients(), logged)
        optimizer.step()
        return logged

    def _generator_losses(self, x: Tensor) -> tuple[Tensor, Losses]:
        """The loss of a generator step, and its logged values."""
        model = self.model
        latent, regularisation, x_bands = self._encode(x)
        y, y_bands = self._decode(latent, x.shape[-1])
        losses = self._distances(x, y, x_bands, self.multiband(y) if y_bands is None else y_bands)
        if regularisation.requires_grad or self._detaches_encoder:  # zero for the other encoders
            losses["regularization"] = regularisation * model.beta_factor
        extra: Losses = {}
        if model.warmed_up:
            with torch.no_grad():
                real = self._discriminate(x)
            matching, adversarial, extra = self._judge(real, self._discriminate(y))
            losses["feature_matching"] = model.weights["feature_matching"] * matching
            losses["adversarial"] = model.weights["adversarial"] * adversarial
        for name, (compute, weight) in self._further_losses.items():
            losses[f"extension_{name}"] = weight * compute(x, y, int(model.sr))
        total: Any = sum(loss * model.weights.get(name, 1.0) for name, loss in losses.items())
        return total, {name: value.detach() for name, value in {**losses, **extra}.items()}

    def _judge(self, real: list[Any], fake: list[Any]) -> tuple[Any, Any, Losses]:
        """Feature matching, adversarial loss, and RAVE's logged values of the scores."""
        skipped = self.model.num_skipped_features
        matching: Any = 0.0
        for real_scale, fake_scale in zip(real, fake, strict=True):
            pairs = list(zip(real_scale[skipped:], fake_scale[skipped:], strict=True))
            matching = matching + sum(self._feature_distance(r, f) for r, f in pairs) / len(pairs)
        _, adversarial, extra = self._score(real, fake)
        return matching / len(real), adversarial, extra

    def _score(self, real: list[Any], fake: list[Any]) -> tuple[Any, Any, Losses]:
        loss: Any = 0.0
        adversarial: Any = 0.0
        pred_real: Any = 0.0
        pred_fake: Any = 0.0
        for real_scale, fake_scale in zip(real, fake, strict=True):
            scale_loss, scale_adversarial = self.model.gan_loss(real_scale[-1], fake_scale[-1])
            loss, adversarial = loss + scale_loss, adversarial + scale_adversarial
            pred_real, pred_fake = pred_real + real_scale[-1].mean(), pred_fake + fake_scale[-1].mean()
        return loss, adversarial, {"loss_dis": loss, "pred_real": pred_real, "pred_fake": pred_fake}

    def _discriminator_losses(self, x: Tensor) -> tuple[Tensor, Losses]:
        """The loss of a discriminator step, and its logged values."""
        model = self.model
        with torch.no_grad():
            latent, _, _ = self._encode(x)
            y, _ = self._decode(latent, x.shape[-1])
        real, fake = model.split_features(self._discriminate(torch.cat([x, y], 0)))
        loss, adversarial, losses = self._score(real, fake)
        losses["adversarial"] = model.weights["adversarial"] * adversarial
        return loss, {name: value.detach() for name, value in losses.items()}


@contextmanager
def _constant(parameters: list[nn.Parameter]) -> Iterator[None]:
    """Excludes parameters from differentiation in the context."""
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


def _keep_flags_on_host(model: nn.Module) -> None:
    """Moves buffers that RAVE's forward pass reads as Python values to the CPU, where reading does not wait for a device."""
    for module in model.modules():
        for name in ("warmed_up", "enabled", "target_size"):
            buffer = module._buffers.get(name)
            if buffer is not None:
                module._buffers[name] = buffer.cpu()
