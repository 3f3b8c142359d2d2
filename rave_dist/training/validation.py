"""How good a RAVE is on audio that it was not trained on, and what its latent space is made of."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rave_dist import upstream
from rave_dist.errors import DatasetError
from rave_dist.training.batches import FULL_SCALE, PcmSegment, PcmStore
from rave_dist.training.window import latent_hop

_SEED = 20_221_102  # any fixed number: what is random in a validation is the same in all of them
_SECONDS_AT_ONCE = 60.0  # of audio in one call of the distance: bounds its memory
_WINDOWS_AT_ONCE = 8  # in one call of the model; fixed, for it decides which window gets which random numbers
_EXCERPT_WINDOWS = 16
_FRAMES_PER_LATENT = (10, 100)  # at least, at most


@contextmanager
def _measuring(model: Any) -> Iterator[None]:
    """The model in evaluation mode without gradients, random numbers from a fixed seed; all is put back afterwards."""
    training = model.training
    devices = {parameter.device for parameter in model.parameters() if parameter.device.type == "cuda"}
    model.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=list(devices)):
            torch.manual_seed(_SEED)
            yield
    finally:
        model.train(training)


def validate(model: Any, segments: Sequence[PcmSegment], *, window: int, device: torch.device | str) -> dict[str, float]:
    """RAVE's own distances between held-out audio and its reconstruction.

    Every held-out sample is heard: segments are tiled by windows, the last of a segment overlapping the one before it, and
    all windows are measured as one batch, so that a silent window does not divide by nothing. As in RAVE's validation the
    decoder gets a sampled latent; what is random is the same every time, and the global random state is left as it was.

    Args:
        model: a ``rave.RAVE``; its mode is left as it was.
        segments: held-out audio.
        window: samples per window.
        device: where the model is.

    Returns:
        ``validation``, the sum of RAVE's audio distances as RAVE logs it, each of them as ``validation/<name>``, and
        ``validation/multiband_<name>`` for those of the bands.

    Raises:
        DatasetError: there is no held-out audio.
    """
    tiles = PcmStore(segments, device="cpu").tiles(window)
    if not tiles:
        raise DatasetError("there is no held-out audio to validate on", fix="give more recordings")
    per_group = max(1, int(_SECONDS_AT_ONCE * model.sr) // window)
    sums: dict[str, float] = {}
    with _measuring(model):
        for start in range(0, len(tiles), per_group):
            group = tiles[start : start + per_group]
            batches = (group[i : i + _WINDOWS_AT_ONCE] for i in range(0, len(group), _WINDOWS_AT_ONCE))
            pairs = [_reconstruct(model, torch.stack(batch).to(device)) for batch in batches]
            x, y = (torch.cat(parts) for parts in zip(*pairs, strict=True))
            for name, value in _distances(model, x, y).items():
                sums[name] = sums.get(name, 0.0) + value * len(group) / len(tiles)
    return sums


@dataclass(frozen=True)
class Excerpt:
    """A stretch of a recording: ``pcm`` is int16, ``[C, samples]``."""

    pcm: npt.NDArray[np.int16]


def excerpt(segments: Sequence[PcmSegment], *, like: Sequence[PcmSegment], window: int) -> list[Excerpt]:
    """Windows of training audio, evenly spread over all of it: as many as there is held-out audio for, up to sixteen.

    `validate` measures them as it does held-out audio, so that the two distances differ only in what the model was trained on.

    Args:
        segments: training audio.
        like: the held-out audio.
        window: samples per window; of a shorter segment the whole is taken.
    """
    count = min(math.ceil(sum(segment.pcm.shape[-1] for segment in like) / window), _EXCERPT_WINDOWS)
    ends = np.cumsum([segment.pcm.shape[-1] for segment in segments])
    found = []
    for place in (np.arange(count) + 0.5) / max(count, 1) * ends[-1]:
        index = int(np.searchsorted(ends, place, side="right"))
        pcm = segments[index].pcm
        offset = int(place - ends[index]) + pcm.shape[-1] - window // 2
        offset = max(0, min(offset, pcm.shape[-1] - window))
        found.append(Excerpt(pcm[:, offset : offset + window]))
    return found


def _reconstruct(model: Any, pcm: Tensor) -> tuple[Tensor, Tensor]:
    parameter = next(model.parameters())
    x = pcm.to(parameter.dtype) / FULL_SCALE
    x = x + torch.rand(x.shape, device=x.device, dtype=x.dtype) / 2**16  # as in training: no window is digital silence
    y = model.decode(model.encoder.reparametrize(model.encode(x))[0])
    return x, y[..., : x.shape[-1]]


def _distances(model: Any, x: Tensor, y: Tensor) -> dict[str, float]:
    encode = upstream.rave_module("model")._pqmf_encode
    fullband = {name: float(value) for name, value in model.audio_distance(x, y).items()}
    multiband = model.multiband_audio_distance(encode(model.pqmf, x), encode(model.pqmf, y))
    return {
        "validation": sum(fullband.values()),
        **{f"validation/{name}": value for name, value in fullband.items()},
        **{f"validation/multiband_{name}": float(value) for name, value in multiband.items()},
    }


def fit_latent(model: Any, segments: Sequence[PcmSegment], *, window: int, device: torch.device | str) -> int:
    """Finds the latent space's principal axes, for exports that keep the few that matter.

    As RAVE at its validations: PCA of the latent means; ``latent_mean``, ``latent_pca`` (rows are axes, the strongest first)
    and ``fidelity`` (cumulative share of the variance) are set. RAVE takes them from 2 % of the data and fails when that gives
    fewer frames than latents; here windows come from all audio given, overlapping as much as ten frames for each latent
    need, and no more than a hundred, spread evenly. Models without a variational encoder have no such space and are left as
    they are.

    Args:
        model: a ``rave.RAVE``.
        segments: any audio of the instrument, training audio included.
        window: samples per window.
        device: where the model is.

    Returns:
        How many frames were looked at; 0 for models without a variational encoder.

    Raises:
        DatasetError: there is no audio.
    """
    if not isinstance(model.encoder, upstream.rave_module("blocks").VariationalEncoder):
        return 0
    pcm, parameter, size = PcmStore(segments, device="cpu"), next(model.parameters()), int(model.latent_size)
    frames_per_window = window // latent_hop(model)
    fewest, most = (math.ceil(n * size / frames_per_window) for n in _FRAMES_PER_LATENT)
    hop = window
    while len(tiles := pcm.tiles(window, hop=hop)) < fewest and hop > 1:
        hop //= 2
    if not tiles:
        raise DatasetError("there is no audio to fit the latent space on", fix="give more recordings")
    stride = max(1, len(tiles) // most)
    frames = []
    with _measuring(model):
        for tile in tiles[::stride]:
            x = tile[None].to(device).to(parameter.dtype) / FULL_SCALE
            frames.append(model.encode(x).chunk(2, 1)[0][0].T.double())  # the means, not the scales
        mean, axes, fidelity = principal_axes(torch.cat(frames))
        model.latent_mean.copy_(mean)
        model.latent_pca.copy_(axes)
        model.fidelity.copy_(fidelity)
    return len(frames) * frames_per_window


def principal_axes(frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean ``[L]``, principal axes ``[L, L]`` (rows, strongest first, largest entry positive), cumulative variance ``[L]``.

    Args:
        frames: ``[N, L]``, float64; also fewer frames than latents: the axes are orthonormal all the same.
    """
    mean = frames.mean(0)
    centred = frames - mean
    variance, axes = torch.linalg.eigh(centred.T @ centred / max(1, len(frames) - 1))
    variance, axes = variance.flip(0).clamp(min=0), axes.T.flip(0)
    axes = axes * axes.gather(1, axes.abs().argmax(1, keepdim=True)).sign()
    total = variance.sum()
    if total == 0:  # a network that says the same of everything: any one axis holds all there is
        return mean, axes, torch.ones_like(variance)
    return mean, axes, variance.cumsum(0) / total


def set_receptive_field(model: Any) -> tuple[int, int]:
    """Measures how far to the left and right one output sample looks, as RAVE does, and stores it in the model.

    RAVE crops its multiband distance by it from its first (sanity) validation on, so it belongs before the first step. Mode,
    gradients and the global random state are left as they were. For two channels RAVE's own measure mixes the sides: it
    is kept, for the crop depends on it.

    Returns:
        Samples to the left and to the right.
    """
    training = model.training
    gradients = [(parameter, parameter.grad) for parameter in model.parameters()]
    dtype = torch.get_default_dtype()
    devices = {parameter.device for parameter in model.parameters() if parameter.device.type == "cuda"}
    try:
        for parameter, _ in gradients:
            parameter.grad = None
        torch.set_default_dtype(next(model.parameters()).dtype)  # RAVE makes its probe in the default precision
        with torch.random.fork_rng(devices=list(devices)), contextlib.redirect_stdout(io.StringIO()):
            torch.manual_seed(_SEED)
            left, right = upstream.rave_module("core").get_rave_receptive_field(model, n_channels=model.n_channels)
    finally:
        torch.set_default_dtype(dtype)
        model.train(training)
        for parameter, gradient in gradients:
            parameter.grad = gradient
    model.receptive_field.copy_(torch.tensor([left, right]))
    return left, right
