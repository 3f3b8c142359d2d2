"""Measurements of a run: TensorBoard events under RAVE's scalar names, and a selection for the page."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from torch.utils.tensorboard import SummaryWriter

from rave_dist.records import LossRow, RunFolder, RunMetrics, ValidationRow
from rave_dist.storage.store import Store

POINTS = 1000
_SYNC_SECONDS = 60.0


class MetricsLog:
    """Losses and held-out distances by step.

    Events are first written to a local folder, because TensorBoard appends to its files and a store has whole objects only;
    `sync` copies them. A resumed run writes a new events file; TensorBoard joins the files of a folder and discards the
    earlier values of repeated steps.

    Args:
        store: of the run.
        run: the run's folder in the store.
        folder: a local folder for the events of this process.
        state: from `state_dict`, for a run that is resumed.
        step: number of finished steps.
    """

    def __init__(
        self, store: Store, run: RunFolder, folder: Path, *, state: Mapping[str, Any] | None = None, step: int = 0
    ) -> None:
        self._store = store
        self._run = run
        self._folder = folder
        self._train = [LossRow(**row) for row in state["train"]] if state else []
        self._validation = [ValidationRow(**row) for row in state["validation"]] if state else []
        self._writer = SummaryWriter(str(folder), purge_step=step or None)
        self._synced = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._writer.close()

    def state_dict(self) -> dict[str, Any]:
        """The selection so far, as values for a checkpoint."""
        return {"train": [row.to_json() for row in self._train], "validation": [row.to_json() for row in self._validation]}

    def train(self, step: int, phase: int, values: Mapping[str, float], *, steps: int) -> None:
        """Records the losses of a step.

        Args:
            step: number of steps done.
            phase: 1 or 2.
            values: by RAVE's names.
            steps: total number of steps, which determines the selection for the page (TensorBoard receives all values).
        """
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        last = self._train[-1].step if self._train else -math.inf
        if step - last >= steps / POINTS:
            self._train.append(LossRow(step=step, phase=phase, values={name: _finite(v) for name, v in values.items()}))

    def validation(self, step: int, phase: int, values: Mapping[str, float]) -> None:
        """Records a validation: ``validation`` is the held-out distance, ``validation/training`` that of training audio."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        held_out, training = _finite(values["validation"]), _finite(values["validation/training"])
        self._validation.append(ValidationRow(step=step, phase=phase, held_out=held_out, training=training))

    def sync(self, *, steps: int, phase_1_steps: int, window: int, always: bool = False) -> None:
        """Copies events and the selection to the store; without ``always`` at most once per minute.

        Raises:
            StoreError: they cannot be written.
        """
        if not always and time.monotonic() - self._synced < _SYNC_SECONDS:
            return
        self._writer.flush()
        for path in sorted(self._folder.iterdir()):
            self._store.upload(path, f"{self._run.events}/{path.name}")
        metrics = RunMetrics(
            train=tuple(self._train),
            validation=tuple(self._validation),
            steps=steps,
            phase_1_steps=phase_1_steps,
            window=window,
        )
        metrics.save(self._store, self._run.metrics)
        self._synced = time.monotonic()


def _finite(value: float) -> float | None:
    """None for NaN and infinite values, which JSON does not support."""
    return value if math.isfinite(value) else None
