"""What a run measures on its way: TensorBoard events under RAVE's own scalar names, and curves for the page."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from torch.utils.tensorboard import SummaryWriter

from rave_dist.storage.store import Store

POINTS = 1000
_SYNC_SECONDS = 60.0


class MetricsLog:
    """Losses and held-out distances by step.

    Events go to a local folder first, as TensorBoard appends to its files and a store has whole objects only; `sync`
    copies them. A resumed run writes a new events file; TensorBoard joins those of a folder and forgets what the earlier
    one said of the steps that are done again.

    Args:
        store: where the run lies.
        run_key: the run's folder in the store.
        folder: a local folder for the events of this process.
        state: what `state_dict` gave, for a run that goes on.
        step: number of steps done.
    """

    def __init__(
        self, store: Store, run_key: str, folder: Path, *, state: Mapping[str, Any] | None = None, step: int = 0
    ) -> None:
        self._store = store
        self._run_key = run_key
        self._folder = folder
        self._train: list[dict[str, Any]] = list(state["train"]) if state else []
        self._validation: list[dict[str, Any]] = list(state["validation"]) if state else []
        self._writer = SummaryWriter(str(folder), purge_step=step or None)
        self._synced = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._writer.close()

    def state_dict(self) -> dict[str, Any]:
        """The curves so far."""
        return {"train": self._train, "validation": self._validation}

    def train(self, step: int, phase: int, values: Mapping[str, float], *, steps: int) -> None:
        """Notes the losses of a step.

        Args:
            step: number of steps done.
            phase: 1 or 2.
            values: by RAVE's names.
            steps: number of steps in all, which decides how many of the points the page gets (all go to TensorBoard).
        """
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        last = self._train[-1]["step"] if self._train else -math.inf
        if step - last >= steps / POINTS:
            self._train.append({"step": step, "phase": phase, "values": {name: _number(v) for name, v in values.items()}})

    def validation(self, step: int, phase: int, values: Mapping[str, float]) -> None:
        """Notes a validation; its ``validation`` is the held-out distance, ``validation/training`` the same measure of training
        audio."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        distances = {"value": _number(values["validation"]), "training": _number(values["validation/training"])}
        self._validation.append({"step": step, "phase": phase, **distances})

    def sync(self, *, steps: int, phase_1_steps: int, window: int, always: bool = False) -> None:
        """Copies events and curves into the store; without ``always`` only if that was not done for a minute.

        Raises:
            StoreError: they cannot be written.
        """
        if not always and time.monotonic() - self._synced < _SYNC_SECONDS:
            return
        self._writer.flush()
        for path in sorted(self._folder.iterdir()):
            self._store.upload(path, f"{self._run_key}/events/{path.name}")
        curves = {**self.state_dict(), "steps": steps, "phase_1_steps": phase_1_steps, "window": window}
        self._store.write_json(f"{self._run_key}/curves.json", curves)
        self._synced = time.monotonic()


def _number(value: float) -> float | None:
    """JSON has no word for NaN."""
    return value if math.isfinite(value) else None
