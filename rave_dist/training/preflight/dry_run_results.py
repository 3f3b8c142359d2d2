"""Results of dry runs in the store: found for the admission of runs, corrected by runs that use more memory."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from contextlib import suppress
from typing import Protocol

from rave_dist.errors import StoreError
from rave_dist.records import DRY_RUNS, DryRunResult, TrainingSpec
from rave_dist.scheduling.admission import MEMORY_MARGIN
from rave_dist.scheduling.cards import CPU, Card, is_kind
from rave_dist.storage.parallel import at_once
from rave_dist.storage.store import Store

_TOLERANCE = 1.05  # a result is not written again for less
_ROUNDING = 1.01  # of a part of a GPU


class Peak(Protocol):
    """Peak memory so far (`rave_dist.training.step.memory.PeakMemory`)."""

    @property
    def device_bytes(self) -> int:
        """Of the device."""
        ...

    @property
    def host_bytes(self) -> int:
        """Of the process."""
        ...


def find_results(store: Store, specs: Iterable[TrainingSpec], card: Card | None) -> dict[str, DryRunResult]:
    """For each step (`TrainingSpec.worker_step_id`) that has been tested on a kind of device, the result with the most memory.

    Only those of whole batches count: a step in parts needs less, and is taken only where a device has no more.

    Args:
        store: of the results; one listing, and a read for each result of these steps.
        specs: the runs.
        card: the type of GPU; None for CPUs.

    Raises:
        StoreError: the store cannot be read.
    """
    wanted = {spec.worker_step_id for spec in specs}
    keys = [entry.key for entry in store.list(DRY_RUNS) if DryRunResult.step_of(entry.key) in wanted]
    results = [result for result in at_once(lambda key: DryRunResult.find(store, key), keys) if result is not None]
    counted = (result for result in results if is_kind(result.device, card) and result.accumulation_steps == 1)
    return {result.step_id: result for result in sorted(counted, key=lambda result: (result.device_bytes, result.host_bytes))}


def find_result(store: Store, test_id: str, limit_bytes: int) -> DryRunResult | None:
    """The result of a dry run that need not be repeated on a device of its kind.

    That is one under the same limit, or of a whole batch that fits: it was tested under a lower limit, or it is on a GPU and
    used so little that runs are admitted to such a part of one.

    Args:
        store: of the results.
        test_id: the beginning of the result's id, without the limit.
        limit_bytes: the memory of the device that the run can use.

    Raises:
        StoreError: the store cannot be read.
    """
    keys = [entry.key for entry in store.list(DRY_RUNS) if entry.key.startswith(f"{DRY_RUNS}/{test_id}-")]
    found = [result for key in keys if (result := DryRunResult.find(store, key)) is not None]

    def fits(result: DryRunResult) -> bool:
        admitted = result.device != CPU and MEMORY_MARGIN * result.device_bytes <= _ROUNDING * limit_bytes
        return result.accumulation_steps == 1 and (admitted or result.limit_bytes <= limit_bytes)

    same = next((result for result in found if result.limit_bytes == limit_bytes), None)
    return same or next(filter(fits, found), None)


class Correction:
    """Corrects the result of a dry run while its run trains, so that the next run is admitted with what this one needs.

    Args:
        store: of the result.
        result: the result.
        peak: the memory of the run.
    """

    def __init__(self, store: Store, result: DryRunResult, peak: Peak) -> None:
        self._store, self._result, self._peak = store, result, peak
        self._lock = threading.Lock()
        self._deleted = False

    def update(self) -> None:
        """Raises the memory in the store if the run has used more; if the store is not available now, at the next call."""
        with self._lock, suppress(StoreError):
            self._raise_to(self._peak.device_bytes, self._peak.host_bytes)

    def out_of_memory(self, limit: int | None) -> None:
        """Records that the run needs more than it could use.

        Args:
            limit: what it could use of a device; None if that was all there is, so that the next run is tested again.

        Raises:
            StoreError: the store is not available.
        """
        with self._lock:
            if limit is None:
                self._store.delete(self._result.key)
                self._deleted = True
            else:
                self._raise_to(limit, self._peak.host_bytes)

    def _raise_to(self, device_bytes: int, host_bytes: int) -> None:
        if self._deleted:
            return
        if device_bytes <= _TOLERANCE * self._result.device_bytes and host_bytes <= _TOLERANCE * self._result.host_bytes:
            return
        stored = DryRunResult.find(self._store, self._result.key) or self._result  # another run may have raised it
        fields = {
            "device_bytes": max(device_bytes, stored.device_bytes),
            "host_bytes": max(host_bytes, stored.host_bytes),
        }
        raised = stored.model_copy(update=fields)
        raised.save(self._store, raised.key)
        self._result = raised
