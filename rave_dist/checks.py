"""What a library would train, what is wrong with it and the smallest fix, before any work.

Recordings are only opened, not decoded, so silence and duplicates, which ingest leaves out, still count here. Models are
measured in processes of their own; see `rave_dist.training.preflight.model_facts`.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil

from rave_dist.audio.io.open import open_audio
from rave_dist.audio.io.sources import AudioSource, list_sources, local_copy
from rave_dist.dataset.read import Segment
from rave_dist.dataset.split import split
from rave_dist.errors import AudioError, ConfigurationError, DatasetError, LibraryError, ModelNotFoundError, StoreError
from rave_dist.initial_weights import find_initial_weights, joint_base_problem
from rave_dist.library.manifest import Library
from rave_dist.options import NEED_CUDA
from rave_dist.rave.engine import installed_engine
from rave_dist.rave.presets import accumulation_choices, smaller_batch, window_and_batch
from rave_dist.records import Engine, Problem, TrainingSpec
from rave_dist.storage.store import Store
from rave_dist.training.preflight.model_facts import ModelFacts, has_gpu, measure_model
from rave_dist.training.schedule import first_schedule

if TYPE_CHECKING:
    from rave_dist.training.state.initialization import InitialWeights

_OPENED_AT_ONCE = 8
_CHECKPOINT_BYTES = 20  # on disk, per parameter: it, what Adam keeps of it, and its best value of each phase
_MODEL_BYTES = 5 * 4  # the weights of both phases, and in two exports


@dataclass(frozen=True)
class InstrumentCheck:
    """What one instrument would be.

    Attributes:
        name: the instrument.
        sources: recordings found.
        seconds: of audio in those that can be opened.
        windows: whole windows of this configuration in them.
        train_seconds: of them trained on.
        validation_seconds: of them held out.
        problems: what must be mended before it can be trained.
        warnings: what it may be good to know; nothing fails for it.
        parameters: of the network, both halves and the discriminator.
        latents: dimensions of the latent space.
        hop: samples per latent frame.
        window: samples per training window.
        batch: windows per step.
        steps: in all; for a budget in hours an estimate from this machine's cores.
        phase_1_steps: those before the discriminator takes part.
        hours: of training: the budget's, or for one in steps those of one of this machine's cores.
        memory_bytes: of a training step.
        disk_bytes: in the store, for dataset, checkpoints and exports.
    """

    name: str
    sources: int = 0
    seconds: float = 0.0
    windows: int = 0
    train_seconds: float = 0.0
    validation_seconds: float = 0.0
    problems: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()
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

    @property
    def ok(self) -> bool:
        """Whether it can be trained."""
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        """The instrument's entry in the document of ``rave-dist check``."""
        problems = {key: [p.to_json() for p in getattr(self, key)] for key in ("problems", "warnings")}
        return {**asdict(self), "ok": self.ok, **problems}


@dataclass(frozen=True)
class _Recording:
    source: AudioSource
    seconds: float = 0.0
    sample_rate: int | None = None
    error: str | None = None


@dataclass(frozen=True)
class LibraryCheck:
    """What a library would train, and with what: its instruments, before them their joint base, if any, and the engine."""

    instruments: tuple[InstrumentCheck, ...]
    base: InstrumentCheck | None = None
    engine: Engine = field(default_factory=installed_engine)

    @property
    def in_order(self) -> tuple[InstrumentCheck, ...]:
        """All, in the order of the work."""
        return self.instruments if self.base is None else (self.base, *self.instruments)

    def to_json(self) -> dict[str, Any]:
        """What the document of ``rave-dist check`` has beside the library's name."""
        return {
            "instruments": [c.to_json() for c in self.instruments],
            "base": self.base and self.base.to_json(),
            "engine": self.engine.to_json(),
        }


@dataclass(frozen=True)
class _Recordings:
    """An instrument's recordings, and what was found of them alone."""

    files: list[_Recording]
    problems: list[Problem]
    warnings: list[Problem]


def check_library(library: Library, only: Sequence[str] | None = None) -> LibraryCheck:
    """Checks the named instruments, or all, and the base that is trained on them.

    Raises:
        LibraryError: an instrument that the manifest does not have.
        StoreError: the store cannot be written.
    """
    names = library.select(list(only) if only else None)
    library.store.check_writable()
    free = _free_bytes(library.store)
    found = {name: _recordings(library, name) for name in names}
    base = _check_base(library, found, free)
    checks = [] if base is None else [base]
    for name in names:
        if free is not None and checks:
            free -= checks[-1].disk_bytes or 0
        checks.append(_check(library, name, found[name], base, free))
    return LibraryCheck(tuple(checks[-len(names) :]), base)


def _check_base(library: Library, found: Mapping[str, _Recordings], free: int | None) -> InstrumentCheck | None:
    """The library's own base: it hears what its instruments have, and keeps no copy of that."""
    spec = library.base_spec(dataset="")
    if spec is None:
        return None
    specs = {name: library.training_spec(name, dataset="") for name in found}
    heard = [name for name in found if (specs[name].sample_rate, specs[name].channels) == (spec.sample_rate, spec.channels)]
    files = {file.source.uri: file for name in heard for file in found[name].files}
    return _judge(spec, _Recordings(list(files.values()), [], []), None, free, keeps_audio=False)


def _recordings(library: Library, name: str) -> _Recordings:
    problems: list[Problem] = []
    warnings: list[Problem] = []
    files: list[_Recording] = []
    try:
        files = _open_all(list_sources(library.sources(name)))
    except (AudioError, StoreError) as error:
        problems.append(Problem.of(error))
    else:
        _judge_recordings(files, library.training_spec(name, dataset=""), problems, warnings)
    return _Recordings(files, problems, warnings)


def _check(library: Library, name: str, found: _Recordings, base: InstrumentCheck | None, free: int | None) -> InstrumentCheck:
    spec = library.training_spec(name, dataset="")
    own = library.base(name)
    if base is not None and own is not None and own.train:
        different = joint_base_problem(library, name)
        if different is not None:
            found.problems.append(different)
        elif not base.ok:
            why = base.problems[0]
            found.problems.append(Problem(what=f"the library's base cannot be trained: {why.what}", fix=why.fix))
    try:
        start = find_initial_weights(library, name)
    except (ConfigurationError, ModelNotFoundError, LibraryError, StoreError) as error:
        found.problems.append(Problem.of(error))
        start = None
    if start is not None and start.sample_rate not in (None, spec.sample_rate):
        what = f"its base, {start.origin}, was trained at {start.sample_rate} Hz: here it sounds at another pitch"
        found.warnings.append(Problem(what=what))
    return _judge(spec, found, start, free)


def _judge(
    spec: TrainingSpec, found: _Recordings, start: InitialWeights | None, free: int | None, *, keeps_audio: bool = True
) -> InstrumentCheck:
    """What a run would be, with what is wrong with it beside what was found already."""
    window, batch = window_and_batch(spec)
    problems, warnings = found.problems, found.warnings
    seconds = sum(r.seconds for r in found.files)
    train_seconds, validation_seconds = _split_seconds(found.files, spec, window, problems)
    if spec.budget.until is not None:
        warnings.append(
            Problem(what="it ends when validation no longer improves: its steps and hours are the most that it may take")
        )
    missing = sorted(NEED_CUDA & set(spec.compute))
    if missing and not os.environ.get("RAY_ADDRESS") and not has_gpu():
        problems.append(
            Problem(
                what=f"compute: {' and '.join(missing)} cannot be had on the CPU, and this machine has no NVIDIA GPU",
                fix=f"leave out {' and '.join(missing)}, or name a Ray cluster with GPUs in RAY_ADDRESS",
            )
        )
    facts: dict[str, Any] = {}
    try:
        kept_seconds = seconds if keeps_audio else 0.0
        facts = _plan(spec, measure_model(spec, start), start, kept_seconds, problems, warnings)
    except ConfigurationError as error:
        problems.append(Problem.of(error))
    if free is not None and facts.get("disk_bytes", 0) > free:
        problems.append(
            Problem(
                what=f"it needs about {_in_words(facts['disk_bytes'])} in the store, and {_in_words(max(free, 0))} are left",
                fix="free space on that disk, or put the store elsewhere",
            )
        )
    return InstrumentCheck(
        name=spec.instrument,
        sources=len(found.files),
        seconds=round(seconds, 3),
        windows=int(seconds * spec.sample_rate) // window,
        train_seconds=round(train_seconds, 3),
        validation_seconds=round(validation_seconds, 3),
        problems=tuple(problems),
        warnings=tuple(warnings),
        window=window,
        batch=batch,
        **facts,
    )


def _open_all(sources: Sequence[AudioSource]) -> list[_Recording]:
    with ThreadPoolExecutor(_OPENED_AT_ONCE) as pool:
        return list(pool.map(_open, sources))


def _open(source: AudioSource) -> _Recording:
    try:
        with local_copy(source.uri) as path, open_audio(path) as decoder:
            samples = decoder.declared_samples
            if samples is None:  # the headers do not say, so it has to be walked through
                samples = sum(block.shape[1] for block in decoder.blocks())
            return _Recording(source, samples / decoder.sample_rate, decoder.sample_rate)
    except (AudioError, StoreError) as error:
        return _Recording(source, error=error.what)


def _judge_recordings(
    recordings: Sequence[_Recording], spec: TrainingSpec, problems: list[Problem], warnings: list[Problem]
) -> None:
    damaged = [r for r in recordings if r.error is not None]
    named = [
        Problem(what=f"{r.source.name}: {r.error}", fix="replace the file with an intact copy, or leave it out")
        for r in damaged
    ]
    (problems if len(damaged) == len(recordings) else warnings).extend(named)
    others = Counter(r.sample_rate for r in recordings if r.sample_rate not in (None, spec.sample_rate))
    if others:
        rates = ", ".join(f"{count} at {rate} Hz" for rate, count in sorted(others.items(), key=lambda item: item[0] or 0))
        warnings.append(Problem(what=f"recordings will be resampled to {spec.sample_rate} Hz: {rates}"))


def _split_seconds(
    recordings: Sequence[_Recording], spec: TrainingSpec, window: int, problems: list[Problem]
) -> tuple[float, float]:
    """Seconds to train on and seconds held out, by training's own rule (which picks by content where names are known here)."""
    silence = np.int16(0)
    segments = [
        Segment(r.source.fingerprint + r.source.uri, 0, np.broadcast_to(silence, (1, round(r.seconds * spec.sample_rate))))
        for r in recordings
        if r.seconds
    ]
    if not segments:
        return 0.0, 0.0
    try:
        parts = split(segments, sample_rate=spec.sample_rate, window=window)
    except DatasetError as error:
        least = 2 * window / spec.sample_rate
        problems.append(Problem(what=error.what, fix=f"add recordings until there are at least {least:.1f} s of sound"))
        return 0.0, 0.0
    train, held = (sum(s.pcm.shape[1] for s in part) / spec.sample_rate for part in (parts.train, parts.validation))
    return train, held


def _plan(
    spec: TrainingSpec,
    found: ModelFacts,
    start: InitialWeights | None,
    seconds: float,
    problems: list[Problem],
    warnings: list[Problem],
) -> dict[str, Any]:
    batch = window_and_batch(spec)[1]
    step_times = found.step_times(batch)
    resume_point = None if start is None else start.resume_point
    schedule = first_schedule(spec.budget, step_times=step_times, override=spec.override, resume_point=resume_point)
    spent = schedule.phase_1_steps * step_times.phase_1 + (schedule.steps - schedule.phase_1_steps) * step_times.phase_2
    part = batch if os.environ.get("RAY_ADDRESS") else _judge_memory(spec, found, problems, warnings)
    # One more checkpoint than are kept: the one that is being written.
    per_parameter = (spec.checkpoint.keep + 1) * _CHECKPOINT_BYTES + _MODEL_BYTES
    return {
        "parameters": found.parameters,
        "latents": found.latent_size,
        "hop": found.hop,
        "steps": schedule.steps,
        "phase_1_steps": schedule.phase_1_steps,
        "hours": round(spent / 3600, 4) if spec.budget.hours is None else spec.budget.hours,
        "memory_bytes": found.step_bytes(part),
        "disk_bytes": per_parameter * found.parameters + int(2 * spec.channels * spec.sample_rate * seconds),
    }


def _judge_memory(spec: TrainingSpec, found: ModelFacts, problems: list[Problem], warnings: list[Problem]) -> int:
    """Holds a training step against this machine; how many windows of it are computed at once."""
    batch, memory = window_and_batch(spec)[1], psutil.virtual_memory().total
    if found.step_bytes(batch) <= memory:
        return batch
    needs = f"a training step needs {_in_words(found.step_bytes(batch))} of memory, this machine has {_in_words(memory)}"
    parts = next((parts for parts in accumulation_choices(batch) if found.step_bytes(batch // parts) <= memory), None)
    if spec.batch == "auto" and parts is not None:
        warnings.append(Problem(what=f"{needs}: it will be computed in {parts} parts of {batch // parts} windows"))
        return batch // parts
    fitting = next((size for size in range(batch, 0, -1) if found.step_bytes(size) <= memory), 0)
    problems.append(Problem(what=needs, fix=smaller_batch(spec, fitting)))
    return batch


def _free_bytes(store: Store) -> int | None:
    """Free bytes of a local store's disk; None on S3."""
    if not store.is_local:
        return None
    place = Path(store.uri)
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def _in_words(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
