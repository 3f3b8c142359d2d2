"""Runs a command of stock RAVE on the installed versions: ``python stock_command.py export --run …``.

RAVE's commands themselves are untouched. Under Lightning 2, which renamed a hook and takes no ``accelerator=None``, the model
gets the new hook and the trainer the processor; under Lightning 1.9, for which RAVE was written, nothing is changed.
"""

from __future__ import annotations

import functools
import runpy
import sys
from pathlib import Path
from typing import Any

from rave_dist.rave.imports import install_repairs, repair_scipy


def adapt_to_lightning_2() -> None:
    import pytorch_lightning
    import rave

    class Trainer(pytorch_lightning.Trainer):
        def __init__(self, *, accelerator: str | None, devices: Any, **options: Any) -> None:
            super().__init__(accelerator=accelerator or "cpu", devices=devices or 1, **options)

    at_the_end, validate = rave.RAVE.validation_epoch_end, rave.RAVE.validation_step
    outputs: list[Any] = []

    @functools.wraps(validate)
    def validation_step(self: Any, x: Any, batch_idx: int) -> None:
        outputs.append(validate(self, x, batch_idx))

    def on_validation_epoch_end(self: Any) -> None:
        at_the_end(self, outputs)
        outputs.clear()

    pytorch_lightning.Trainer = Trainer
    rave.RAVE.validation_step = validation_step
    rave.RAVE.on_validation_epoch_end = on_validation_epoch_end
    del rave.RAVE.validation_epoch_end


if __name__ == "__main__":
    install_repairs()
    repair_scipy()
    import pytorch_lightning

    if sys.argv[1] == "train" and int(pytorch_lightning.__version__.partition(".")[0]) >= 2:
        adapt_to_lightning_2()
    sys.argv[0] = str(Path(sys.executable).with_name("rave"))
    runpy.run_path(sys.argv[0], run_name="__main__")
