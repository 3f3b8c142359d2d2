"""Seconds of a training step: those of earlier runs of the same configuration on the same device, otherwise an estimate."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rave_dist.errors import ConfigurationError
from rave_dist.rave.step_config import StepConfig
from rave_dist.records import RunRecord, TrainingSpec
from rave_dist.scheduling.admission import Host
from rave_dist.scheduling.cards import CARDS, Card, find_card, is_kind
from rave_dist.storage.parallel import at_once
from rave_dist.storage.store import Store
from rave_dist.training.heartbeat import read_records
from rave_dist.training.preflight.model_facts import ModelFacts, measure_model
from rave_dist.training.schedule import StepTimes

Source = Literal["measured", "estimated"]

_UNKNOWN = CARDS["T4"]  # a card without a label: the slowest one


@dataclass(frozen=True)
class _Past:
    """What a run has measured."""

    spec: TrainingSpec
    record: RunRecord


class Speeds:
    """The seconds of a step of each phase, per configuration, on one type of device.

    Args:
        store: of earlier runs.
        library: its name.
        instruments: whose runs count.
        card: the type of GPU; None for CPUs.

    Raises:
        StoreError: the store cannot be read.
    """

    def __init__(self, store: Store, library: str, instruments: Sequence[str], card: Card | None) -> None:
        self.card = card
        records = [record for record in read_records(store, library, instruments) if self._counts(record)]
        specs = at_once(lambda record: TrainingSpec.find(store, record.folder.spec), records)
        self._past = [_Past(spec, record) for spec, record in zip(specs, records, strict=True) if spec is not None]

    def of(self, spec: TrainingSpec, *, cpus: int) -> tuple[StepTimes, Source]:
        """The seconds of a step of each phase, and where they are from.

        Raises:
            ConfigurationError: the configuration is invalid.
        """
        estimate = self._estimate(measure_model(spec), spec, cpus)
        for past in self._past:
            if past.spec.step_id == spec.step_id:
                done, phase_1 = past.record.step, past.record.phase_1_steps or past.record.step
                in_phase_1 = min(done, phase_1)
                # With its own numbers of workers and threads.
                then = self._estimate(measure_model(spec), past.spec, past.record.threads or cpus)
                expected = in_phase_1 * then.phase_1 + (done - in_phase_1) * then.phase_2
                return estimate.scaled(estimate.phase_1 * past.record.seconds / expected), "measured"
        return estimate, "estimated"

    def _estimate(self, facts: ModelFacts, spec: TrainingSpec, cpus: int) -> StepTimes:
        on_core = facts.step_times(StepConfig.of(spec).of_one_worker().batch)
        if self.card is None:
            return StepTimes(on_core.phase_1 / cpus, on_core.phase_2 / cpus)
        return StepTimes(self.card.step_seconds(on_core.phase_1), self.card.step_seconds(on_core.phase_2))

    def _counts(self, record: RunRecord) -> bool:
        if not record.step or not record.seconds or not record.device:
            return False
        return is_kind(record.device, self.card)


def slowest_card(hosts: Sequence[Host]) -> Card | None:
    """The slowest type of GPU among hosts, by their labels; None if they have none."""
    cards = []
    for host in hosts:
        if host.gpus:
            cards.append(_UNKNOWN)
            with contextlib.suppress(ConfigurationError):
                cards[-1] = find_card(host.accelerator)
    return min(cards, key=lambda card: card.tflops, default=None)
