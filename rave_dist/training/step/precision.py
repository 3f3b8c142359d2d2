"""Named options that compute a training step faster than plain single precision. All are off by default.

=====================  ==================================================================================  ==========
option                 what it changes                                                                     needs
=====================  ==================================================================================  ==========
``tf32``               matrix products and convolutions on 10-bit mantissas, as ``rave train`` does        CUDA
``bf16-discriminator`` the discriminator under bfloat16 autocast; its weights and losses stay single
``bf16``               encoder, decoder and discriminator under bfloat16 autocast; PQMF and losses not
``fp16``               the same in half precision with loss scaling, for cards without bfloat16            CUDA
``compile``            the networks through ``torch.compile``: minutes at the start, other rounding        a C++ compiler
``cuda-graphs``        whole steps recorded once and replayed: the same kernels, no time between them      CUDA
``fused-adam``         Adam in one kernel: other rounding; on a CPU it always is
=====================  ==================================================================================  ==========

Without ``tf32`` PyTorch's default applies: TF32 in cuDNN's convolutions but not in matrix products.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from rave_dist.errors import ConfigurationError
from rave_dist.options import NEED_CUDA, ComputeOption


class Precision:
    """The precision and the speed options of a step.

    Args:
        options: any that can be combined (`rave_dist.options.EXCLUSIVE_OPTIONS`).
        device: of the step.

    Raises:
        ConfigurationError: an option that this device does not support.
    """

    def __init__(self, options: Collection[ComputeOption], device: torch.device) -> None:
        missing = sorted(NEED_CUDA & set(options)) if device.type != "cuda" else []
        if missing:
            raise ConfigurationError(
                f"{' and '.join(missing)} {'requires' if len(missing) == 1 else 'require'} an NVIDIA GPU",
                where="compute",
                fix=f"leave out {' and '.join(missing)}, or train on a machine with an NVIDIA GPU",
            )
        if (
            "bf16" in " ".join(options)
            and device.type == "cuda"
            and not torch.cuda.is_bf16_supported(including_emulation=False)
        ):
            raise ConfigurationError("this GPU does not support bfloat16", where="compute", fix="use fp16 instead")
        self.options = frozenset(options)
        if "compile" not in options:
            _spare_compiler()
        self._device = device
        everywhere = {"bf16": torch.bfloat16, "fp16": torch.float16}
        self._precision = next((dtype for name, dtype in everywhere.items() if name in options), None)
        self._discriminator_precision = torch.bfloat16 if "bf16-discriminator" in options else self._precision
        if device.type == "cuda":
            torch.backends.cudnn.benchmark = True  # as in rave train: all windows of a run have one shape
        if "tf32" in options:
            torch.backends.cuda.matmul.allow_tf32 = True
            torch.backends.cudnn.allow_tf32 = True

    def networks(self) -> AbstractContextManager[Any]:
        """The precision in which encoder and decoder run."""
        return self._autocast(self._precision)

    def discriminator(self) -> AbstractContextManager[Any]:
        """The precision in which the discriminator runs."""
        return self._autocast(self._discriminator_precision)

    def _autocast(self, dtype: torch.dtype | None) -> AbstractContextManager[Any]:
        return nullcontext() if dtype is None else torch.autocast(self._device.type, dtype=dtype)

    def compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The compiled network or function, if requested."""
        return torch.compile(function) if "compile" in self.options else function

    def optimizer(self, optimizer: torch.optim.Optimizer) -> Optimizer:
        """The optimizer (before its first step), with loss scaling if necessary."""
        for group in optimizer.param_groups:
            if "fused-adam" in self.options or self._device.type == "cpu":
                group.update(fused=True, foreach=False)
            if "cuda-graphs" in self.options:
                group.update(capturable=True, lr=torch.tensor(group["lr"], device=self._device))
        return Optimizer(optimizer, torch.amp.GradScaler(self._device.type) if "fp16" in self.options else None)


@functools.cache
def _spare_compiler() -> None:
    """Makes optimizers that are not differentiable work without PyTorch's compiler, in this process.

    They import it, for 1.7 CPU-seconds and 110 MB, to exclude themselves from what it compiles and to interrupt it before and
    after a step. Where it compiles no optimizer, neither does anything.
    """
    for name in ("add_param_group", "load_state_dict", "state_dict", "zero_grad"):
        method = getattr(getattr(torch.optim.Optimizer, name), "__wrapped__", None)
        if method is not None:
            method.__dynamo_disable = method  # torch._compile._disable_dynamo then calls it as it is
    torch.optim.Adam.step = torch.no_grad()(inspect.unwrap(torch.optim.Adam.step))  # type: ignore[method-assign]


def to_float32(value: Tensor) -> Tensor:
    """Converts the output of autocast to single precision; returns other values unchanged."""
    return value.float() if value.dtype in (torch.bfloat16, torch.float16) else value


class Optimizer:
    """An optimizer and, in half precision, the scale of its loss (P. Micikevicius et al., "Mixed Precision Training", 2018)."""

    def __init__(self, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler | None) -> None:
        self.inner = optimizer
        self._scaler = scaler

    def clear(self) -> None:
        """Clears all gradients."""
        self.inner.zero_grad()

    def add(self, loss: Tensor) -> None:
        """Adds the gradient of a loss to the present one, and frees its graph."""
        scaled = loss if self._scaler is None else self._scaler.scale(loss)
        scaled.backward()  # type: ignore[no-untyped-call]

    def gradients(self) -> list[Tensor]:
        """The gradients of all parameters that have one."""
        return [p.grad for group in self.inner.param_groups for p in group["params"] if p.grad is not None]

    def step(self) -> None:
        """One optimizer step; skipped if half precision overflowed."""
        if self._scaler is None:
            self.inner.step()
        else:
            self._scaler.step(self.inner)
            self._scaler.update()

    def state_dict(self) -> dict[str, Any]:
        """The optimizer's state, with the loss scale if there is one."""
        state = self.inner.state_dict()
        return state if self._scaler is None else {**state, "scaler": self._scaler.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores a `state_dict`."""
        self.inner.load_state_dict({key: value for key, value in state.items() if key != "scaler"})
        for group in self.inner.param_groups:
            if isinstance(group["lr"], Tensor):  # a checkpoint is loaded on the CPU, but a recorded step reads it on its device
                group["lr"] = group["lr"].to(group["params"][0].device)
        if self._scaler is not None:
            self._scaler.load_state_dict(state["scaler"])

    def take_over(self, state: dict[str, Any]) -> None:
        """Loads the moments of another optimizer of the same parameters, without its learning rate and options."""
        self.inner.load_state_dict({"state": state["state"], "param_groups": self.inner.state_dict()["param_groups"]})
