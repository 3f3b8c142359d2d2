"""The subject of a check: one instrument, or the joint base, with its facts so far."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from rave_dist.audio.io.sources import AudioSource
from rave_dist.checks.findings import Finding
from rave_dist.checks.results import InstrumentCheck
from rave_dist.dataset.read import Segment
from rave_dist.dataset.split import Split, split
from rave_dist.library.manifest import Library
from rave_dist.rave.step_config import StepConfig
from rave_dist.records import DryRunResult, PassedOver, TrainingSpec
from rave_dist.training.continuation import PlannedRun
from rave_dist.training.preflight.model_facts import ModelFacts

if TYPE_CHECKING:
    from rave_dist.training.state.initialization import InitialWeights


@dataclass(frozen=True)
class Recording:
    """The header values of a recording; ``error`` describes damage, with its ``fix``, ``notes`` oddities of an intact file."""

    source: AudioSource
    seconds: float = 0.0
    sample_rate: int | None = None
    error: str | None = None
    fix: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The size and the needs of a run; the fields are those of `InstrumentCheck`."""

    parameters: int
    latents: int
    hop: int
    steps: int
    phase_1_steps: int
    hours: float
    memory_bytes: int
    disk_bytes: int
    local_disk_bytes: int


@dataclass(kw_only=True)
class Candidate:
    """One instrument, or the joint base, to be trained.

    Attributes:
        library: the library.
        spec: the run, without a dataset.
        recordings: its recordings; empty if they cannot be listed.
        passed_over: files and folders with them that are not used.
        notes: remarks about the patterns of its sources.
        is_joint_base: whether it is the joint base, which keeps no copy of the audio.
        joint_base: the check of the joint base that it starts from, if any.
        initial_weights: its initial weights, once they are found.
        facts: of its model, once they are measured.
        tested: the result of a dry run of its step on this machine's CPUs; None if there is none.
        plan: of its run, derived from both.
        free_bytes: free space in the store; None if unknown.
        next_run: its run in view of its earlier ones; None if it was never ingested.
    """

    library: Library
    spec: TrainingSpec
    recordings: Sequence[Recording] = ()
    passed_over: tuple[PassedOver, ...] = ()
    notes: tuple[str, ...] = ()
    is_joint_base: bool = False
    joint_base: InstrumentCheck | None = None
    initial_weights: InitialWeights | None = None
    facts: ModelFacts | None = None
    tested: DryRunResult | None = None
    plan: Plan | None = None
    free_bytes: int | None = None
    next_run: PlannedRun | None = None

    @property
    def seconds(self) -> float:
        """Duration of all recordings that can be opened."""
        return sum(recording.seconds for recording in self.recordings)

    @cached_property
    def step(self) -> StepConfig:
        """The configuration of its training step."""
        return StepConfig.of(self.spec)

    @cached_property
    def division(self) -> Split:
        """Training and held-out audio by the rule of training; the choice of held-out files, by content, may differ.

        Raises:
            DatasetError: there are fewer than two windows of audio.
        """
        rate, silence = self.spec.sample_rate, np.int16(0)
        segments = [
            Segment(r.source.fingerprint + r.source.uri, 0, np.broadcast_to(silence, (1, round(r.seconds * rate))))
            for r in self.recordings
            if r.seconds
        ]
        return split(segments, sample_rate=rate, window=self.step.window)

    def seconds_of(self, segments: Sequence[Segment]) -> float:
        """Duration of a part of `division`."""
        return sum(int(segment.pcm.shape[1]) for segment in segments) / self.spec.sample_rate


Check = Callable[[Candidate], Iterable[Finding]]
"""A check: yields its findings; a `RaveDistError` that it raises becomes an error of the candidate."""
