"""Checks of the recordings, which are opened but not decoded, so silence and duplicates still count."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from rave_dist.audio.io.open import Decoder, open_audio
from rave_dist.audio.io.sources import MISSING_FIX, AudioSource, partial_copy
from rave_dist.checks.candidate import Candidate, Check, Recording
from rave_dist.checks.findings import Finding, error, warning
from rave_dist.errors import AudioError, DatasetError, StoreError
from rave_dist.storage.parallel import at_once


def open_recordings(sources: Sequence[AudioSource]) -> list[Recording]:
    """Reads the headers of recordings, several at once; of those in a store, only the bytes that are needed are fetched."""
    return at_once(_open, sources)


def _open(source: AudioSource) -> Recording:
    try:
        with partial_copy(source) as path, open_audio(path) as decoder:
            samples, damage, fix = decoder.declared_samples, None, ""
            if samples is None or decoder.is_cut:  # the headers do not give the length, so the file is decoded
                samples, damage, fix = _decode(decoder)
            seconds = samples / decoder.sample_rate
            return Recording(source, seconds, decoder.sample_rate, error=damage, fix=fix, notes=decoder.notes)
    except (AudioError, StoreError) as problem:
        return Recording(source, error=problem.what, fix=problem.fix)


def _decode(decoder: Decoder) -> tuple[int, str | None, str]:
    """The samples that can be read, the damage behind them, and its fix."""
    samples = 0
    try:
        for block in decoder.blocks():
            samples += block.shape[1]
    except AudioError as problem:
        return samples, problem.what, problem.fix
    return samples, None, ""


def unreadable_recordings(candidate: Candidate) -> Iterator[Finding]:
    """Recordings that cannot be read to their end: warnings, or an error if none can be read at all."""
    damaged = [r for r in candidate.recordings if r.error is not None]
    nothing = len(damaged) == len(candidate.recordings) and not any(r.seconds for r in damaged)
    report = error if nothing else warning
    for recording in damaged:
        yield report(
            str(recording.error),
            fix=recording.fix or "replace the file with an intact copy, or leave it out",
            where=recording.source.name,
        )


def missing_recordings(candidate: Candidate) -> Iterator[Finding]:
    """Dangling links with names of recordings, and folders that cannot be read."""
    for entry in candidate.passed_over:
        if entry.missing:
            others = f" and {entry.count - 1} more" if entry.count > 1 else ""
            yield warning(f"not used: {entry.reason}", fix=MISSING_FIX, where=f"{entry.names[0]}{others}")


def oddities(candidate: Candidate) -> Iterator[Finding]:
    """Brackets that were taken as wildcards, wrong headers, further tracks."""
    for note in candidate.notes:
        yield warning(note)
    for recording in candidate.recordings:
        for note in recording.notes:
            yield warning(note, where=recording.source.name)


def other_sample_rates(candidate: Candidate) -> Iterator[Finding]:
    """Recordings that will be resampled."""
    rate = candidate.spec.sample_rate
    others = Counter(r.sample_rate for r in candidate.recordings if r.sample_rate not in (None, rate))
    if others:
        counts = ", ".join(f"{count} at {other} Hz" for other, count in sorted(others.items(), key=lambda item: item[0] or 0))
        yield warning(f"recordings will be resampled to {rate} Hz: {counts}")


def too_little_audio(candidate: Candidate) -> Iterator[Finding]:
    """Less audio than training and validation need."""
    if not candidate.seconds:
        return
    try:
        _ = candidate.division
    except DatasetError as problem:
        least = 2 * candidate.step.window / candidate.spec.sample_rate
        yield error(problem.what, fix=f"add recordings until there are at least {least:.1f} s of sound")


CHECKS: tuple[Check, ...] = (unreadable_recordings, missing_recordings, oddities, other_sample_rates, too_little_audio)
"""The checks of an instrument; for the joint base only the total length matters."""
