"""Results of the checks, of an instrument and of a library."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from rave_dist.checks.findings import Finding, Severity
from rave_dist.rave.engine import installed_engine
from rave_dist.records import Engine, PassedOver, Problem


@dataclass(frozen=True)
class InstrumentCheck:
    """The planned run of an instrument, and the findings.

    Attributes:
        name: the instrument.
        findings: errors and warnings, in the order of the checks.
        sources: number of recordings found.
        passed_over: files and folders with them that are not used, counted per reason and extension.
        seconds: duration of the recordings that can be opened.
        windows: number of whole training windows in them.
        train_seconds: duration of the part used for training.
        validation_seconds: duration of the held-out part.
        parameters: number of weights of the model, discriminator included.
        latents: dimensions of the latent space.
        hop: samples per latent frame.
        window: samples per training window.
        batch: windows per step.
        steps: steps of the run; for a budget in hours an estimate for one of this machine's cores.
        phase_1_steps: steps of phase 1, without the discriminator.
        hours: duration of the training; for a budget in steps an estimate for one of this machine's cores.
        memory_bytes: memory of a training step.
        disk_bytes: size in the store of dataset, checkpoints and exports.
        local_disk_bytes: size of the copy of the dataset on the disk of each machine that trains on it.
    """

    name: str
    findings: tuple[Finding, ...] = ()
    sources: int = 0
    passed_over: tuple[PassedOver, ...] = ()
    seconds: float = 0.0
    windows: int = 0
    train_seconds: float = 0.0
    validation_seconds: float = 0.0
    parameters: int | None = None
    latents: int | None = None
    hop: int | None = None
    window: int | None = None
    batch: int | None = None
    steps: int | None = None
    phase_1_steps: int | None = None
    hours: float | None = None
    memory_bytes: int | None = None
    disk_bytes: int | None = None
    local_disk_bytes: int | None = None

    @property
    def ok(self) -> bool:
        """Whether it can be trained."""
        return not self.problems

    @property
    def problems(self) -> tuple[Problem, ...]:
        """The findings that prevent training."""
        return self._of("error")

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """The findings that do not prevent training."""
        return self._of("warning")

    def _of(self, severity: Severity) -> tuple[Problem, ...]:
        return tuple(finding.problem for finding in self.findings if finding.severity == severity)

    def to_json(self) -> dict[str, Any]:
        """The instrument's entry in the document of ``rave-dist check``."""
        lists = {
            key: [entry.to_json() for entry in getattr(self, key)]
            for key in ("findings", "problems", "warnings", "passed_over")
        }
        return {**asdict(self), "ok": self.ok, **lists}


@dataclass(frozen=True)
class LibraryCheck:
    """The check of a library: its instruments, the joint base that is trained before them, if any, warnings and the engine."""

    instruments: tuple[InstrumentCheck, ...]
    base: InstrumentCheck | None = None
    warnings: tuple[Problem, ...] = ()
    engine: Engine = field(default_factory=installed_engine)

    @property
    def in_order(self) -> tuple[InstrumentCheck, ...]:
        """The joint base and the instruments, in the order of training."""
        return self.instruments if self.base is None else (self.base, *self.instruments)

    @property
    def ok(self) -> bool:
        """Whether everything can be trained."""
        return all(check.ok for check in self.in_order)

    def to_json(self) -> dict[str, Any]:
        """The document of ``rave-dist check`` without the library's name."""
        return {
            "instruments": [check.to_json() for check in self.instruments],
            "base": self.base and self.base.to_json(),
            "warnings": [warning.to_json() for warning in self.warnings],
            "engine": self.engine.to_json(),
        }
