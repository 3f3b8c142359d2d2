"""Checks that exported files reproduce their model, in a process that does not import RAVE.

Each check is a number and a bound; differences are relative to the peak of the expected output. They are computed in double
precision, where errors stand out from rounding: in single precision the output of a steep trained network can differ by more
than 1e-5 between two orders of the same sums.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rave_dist.errors import VerificationError
from rave_dist.rave.exportable_noise import place
from rave_dist.records import ExportFolder, ExportRecord

TOLERANCE = 1e-9
BLOCK = 2048
SEED = 7
METHODS = ("encode", "decode", "forward")
# A model that has learnt is neither silent nor much louder on its training material. One that has hardly learnt can be
# 100 dB too quiet; it is published all the same, and the report says so.
LOUDEST_DB = 30.0
QUIETEST_PEAK = 2.0**-23  # the smallest step of 24 bits

OUR_FAULT = "this is an error of the export; the run is kept: report the message with the model's configuration"
TRAIN_ON = "give the instrument a larger budget; if it happens again, change the seed"


class Checks:
    """Collects ``name: number`` and raises at the first one that is out of bounds."""

    def __init__(self, where: str) -> None:
        self.numbers: dict[str, float] = {}
        self._where = where

    def at_most(self, name: str, number: float, bound: float, what: str, fix: str = OUR_FAULT) -> None:
        """Records a number; raises VerificationError if it exceeds its bound."""
        self.numbers[name] = number
        if not number <= bound:  # NaN is out of bounds too
            raise VerificationError(f"{what}: {name} is {number:.3g}, allowed is {bound:.3g}", where=self._where, fix=fix)


@dataclass(frozen=True)
class _Probe:
    """Audio, the trained model's output for it without and with cached convolutions, and the class of its latents."""

    sound: Tensor
    offline: Tensor
    streaming: Tensor
    latents: str

    def whole_frames(self, hop: int) -> Tensor:
        """The audio up to its last complete frame."""
        return self.sound[..., : self.sound.shape[-1] // hop * hop]


def verify(out: Path, should_sound: bool) -> dict[str, float]:
    """Runs every check on an export folder.

    Args:
        out: the export's folder.
        should_sound: whether the output must be neither silent nor far louder than the input.

    Returns:
        The numbers, by name of check.

    Raises:
        VerificationError: the first check that fails, with its number and bound.
    """
    folder = ExportFolder(out, "")
    export = ExportRecord.model_validate_json(Path(folder.record).read_bytes())
    probe = _Probe(**torch.load(folder.probe, weights_only=True))
    offline, streaming = out / export.offline, out / export.streaming
    checks = Checks(out.name)
    with torch.no_grad():
        _offline(checks, _load(offline), export, probe, should_sound)
        # The other checks run each loaded model once: optimising it would cost more than running it.
        with torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
            whole, cached = _load(offline), _load(streaming)
            for kind, model in (("offline", whole), ("streaming", _fresh(cached))):
                check_attributes(checks, kind, model)
                _methods(checks, kind, model, export, probe)
            _equalities(checks, whole.double(), export, probe)
            _streaming(checks, cached.double(), export, probe)
    return checks.numbers


def _load(path: Path) -> Any:
    return torch.jit.load(str(path), map_location="cpu").eval()  # type: ignore[no-untyped-call]


def _fresh(cached: Any) -> Any:
    """A copy of a loaded model with empty caches; loading it again would take three times as long."""
    return copy.deepcopy(cached)


def _methods(checks: Checks, kind: str, model: Any, export: ExportRecord, probe: _Probe) -> None:
    """The requirements of nn~: methods, their shapes for one and for four rows, exact lengths, finite samples."""
    missing = set(METHODS) - set(model.get_methods())
    checks.at_most(f"{kind}/missing_methods", len(missing), 0, "nn~ would not find every method")
    channels, hop = probe.sound.shape[1], export.hop
    wrong = 0
    for method in METHODS:
        in_channels, in_ratio, out_channels, out_ratio = getattr(model, f"{method}_params").tolist()
        sides = {"encode": (1, hop), "decode": (hop, 1), "forward": (1, 1)}[method]
        widths = tuple(channels if ratio == 1 else export.latents for ratio in sides)
        wrong += (in_ratio, out_ratio, in_channels, out_channels) != (*sides, *widths)
        for rows in (1, 4):
            samples = -(-8192 // hop) * hop
            y = getattr(model, method)(torch.zeros(rows, in_channels, samples // in_ratio))
            wrong += y.shape != (rows, out_channels, samples // out_ratio) or y.dtype != torch.float32
            checks.at_most(f"{kind}/{method}_not_finite", _not_finite(y), 0, "silence gives NaN or infinite samples")
    checks.at_most(f"{kind}/wrong_shapes", wrong, 0, "a method's shape is not what it declares")


def check_attributes(checks: Checks, kind: str, model: Any) -> None:
    """Every attribute as nn~ gets and sets it: getters return a tuple of the declared types, setters 0 or a refusal."""
    types = {1: int, 2: float}
    wrong = 0
    for name in model.get_attributes():
        declared = [types[int(number)] for number in getattr(model, f"{name}_params").tolist()]
        get, put = getattr(model, f"get_{name}"), getattr(model, f"set_{name}")
        value = get()
        wrong += not isinstance(value, tuple | list) or [type(part) for part in value] != declared
        if wrong:
            break
        further = [part + 1 for part in value]
        wrong += put(*further) != 0 or list(get()) != further
        for refused in (-1.0, math.nan, math.inf) if float in declared else (-1,):
            wrong += put(*[refused] * len(declared)) == 0 or list(get()) != further
        wrong += put(*value) != 0 or get() != value
    checks.at_most(f"{kind}/wrong_attributes", wrong, 0, "nn~ could not get or set an attribute")
    checks.at_most(
        f"{kind}/wrong_sample_rate",
        abs(model.get_sample_rate() - int(model.sampling_rate)),
        0,
        "hosts would not agree on the sample rate",
    )


def _offline(checks: Checks, model: Any, export: ExportRecord, probe: _Probe, should_sound: bool) -> None:
    """Bulk conversion: exact length, finite output for normal and for loud input, plausible level."""
    x, hop = probe.whole_frames(export.hop), export.hop
    y = model.convert(x, *place(0, SEED), 1.0)
    checks.at_most("offline/wrong_length", abs(y.shape[-1] - x.shape[-1]), 0, "the output is not as long as the input")
    checks.at_most("offline/not_finite", _not_finite(y), 0, "the output has NaN or infinite samples", TRAIN_ON)
    loud = torch.sign(torch.sin(torch.arange(8 * hop) * 0.05)).expand(1, x.shape[1], -1)
    checks.at_most(
        "offline/loud_not_finite", _not_finite(model.convert(loud, *place(0, SEED), 1.0)), 0, "full scale overflows", TRAIN_ON
    )
    if should_sound:
        answer = model.convert(x, *place(0, SEED), 0.0).abs().max()  # without its noise generator
        checks.at_most(
            "offline/silent",
            float(answer < QUIETEST_PEAK),
            0,
            "the exported model is silent on its own training material",
            TRAIN_ON,
        )
        level = 10 * float(torch.log10(y.square().mean() / x.square().mean()))
        checks.at_most("offline/level_db", level, LOUDEST_DB, "the output is far louder than its training material", TRAIN_ON)


def _equalities(checks: Checks, model: Any, export: ExportRecord, probe: _Probe) -> None:
    """Bulk conversion without noise equals the trained model, and chunks with context equal the whole."""
    x = probe.whole_frames(export.hop).double()
    y = model.convert(x, *place(0, SEED), 0.0)
    expected = probe.offline[..., : x.shape[-1]]
    checks.at_most("offline/against_model", _apart(y, expected), TOLERANCE, "the export does not equal the trained model")
    whole = model.convert(x, *place(0, SEED), 1.0)
    parts = _in_chunks(model, x, hop=export.hop, context=export.receptive_field)
    checks.at_most("offline/chunks_against_whole", _apart(parts, whole), TOLERANCE, "chunks give other samples than the whole")


def _in_chunks(model: Any, x: Tensor, *, hop: int, context: tuple[int, int]) -> Tensor:
    """Conversion in three chunks, each with the model's receptive field around it."""
    chunk = x.shape[-1] // hop // 3 * hop
    left, right = (-(-samples // hop) * hop for samples in context)
    parts = []
    for start in range(0, x.shape[-1], chunk):
        stop = min(start + chunk, x.shape[-1])
        first, last = max(0, start - left), min(x.shape[-1], stop + right)
        y = model.convert(x[..., first:last], *place(first, SEED), 1.0)
        parts.append(y[..., start - first : stop - first])
    return torch.cat(parts, -1)


def _streaming(checks: Checks, cached: Any, export: ExportRecord, probe: _Probe) -> None:
    """Real time: blocks give the samples of one pass, which without noise are the cached model's output."""
    x, hop = probe.whole_frames(export.hop).double(), export.hop
    silent = _fresh(cached)
    silent.set_noise(0.0)
    silent.set_latent_noise(0.0)
    difference = _apart(silent.forward(x), probe.streaming[..., : x.shape[-1]])
    checks.at_most("streaming/against_model", difference, TOLERANCE, "the export does not equal the trained model")
    x = x[..., : 16 * max(BLOCK, hop)]
    z = _fresh(cached).encode(x)
    for method, whole, ratio in (("encode", x, 1), ("decode", z, hop), ("forward", x, 1)):
        once, model = getattr(_fresh(cached), method)(whole), _fresh(cached)
        blocks = [getattr(model, method)(block) for block in whole.split(max(BLOCK // hop, 1) * hop // ratio, -1)]
        turning = method == "encode" and probe.latents == "SphericalLatents"
        difference = _apart(torch.cat(blocks, -1), once, turning=turning)
        checks.at_most(f"streaming/{method}_in_blocks", difference, TOLERANCE, "blocks give other samples than one pass")


def _not_finite(x: Tensor) -> int:
    return int((~torch.isfinite(x)).sum())


def _apart(x: Tensor, y: Tensor, *, turning: bool = False) -> float:
    """The largest difference relative to the peak of y; for angles, -1 and 1 are equal."""
    if x.shape != y.shape:
        return float("inf")
    difference = (x - y).abs()
    if turning:
        difference = torch.minimum(difference, (2 - difference).abs())
    return float(difference.max() / y.abs().max().clamp_min(1e-30))


def verify_request(*, out: str, should_sound: bool) -> dict[str, float]:
    """`verify` with JSON arguments."""
    return verify(Path(out), should_sound)
