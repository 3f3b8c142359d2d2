"""Exports a finished run to two TorchScript files, built and checked in separate processes.

RAVE's configuration and its kind of convolution are global to a process, so the files are built in a fresh process
(`rave_dist.registry.build`) and checked in another one that does not import RAVE (`rave_dist.registry.verify`), because
players do not have it. Nothing here imports torch.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rave_dist import isolated
from rave_dist.errors import InsufficientMemoryError, VerificationError
from rave_dist.extensions import EXPORT_FORMATS
from rave_dist.rave.presets import FIDELITY
from rave_dist.records import ExportFolder, ExportRecord, RunFolder, TrainingSpec
from rave_dist.storage.facts_cache import keep_facts, read_facts

TIMEOUT_SECONDS = 3600
_EXPORTED = {"exported": True}


def export_run(
    run: Path, out: Path, *, name: str, fidelity: float = FIDELITY, should_sound: bool = False, timeout: float = TIMEOUT_SECONDS
) -> ExportRecord:
    """Exports a run and checks the result, in fresh processes.

    Args:
        run: a local `RunFolder` with spec, configuration and weights, and optionally weights of phase 1 and a probe.
        out: the folder for the export, a local `ExportFolder`.
        name: of the model.
        fidelity: share of the latent variance to keep.
        should_sound: whether the model has learnt, so that its output for the probe must be neither silent nor far louder.
        timeout: time limit of each process in seconds.

    Raises:
        VerificationError: a file differs from its model, or a process failed; the export must not be published.
        InsufficientMemoryError: the system killed a process.
        StoreError: the disk for temporary files is full.
        ConfigurationError: this kind of model cannot be exported.
    """
    out.mkdir(parents=True, exist_ok=True)
    _in_fresh_process("rave_dist.registry.build:build_request", out, timeout, run=str(run), name=name, fidelity=fidelity)
    return check_export(out, should_sound=should_sound, timeout=timeout)


def try_export(run: Path, out: Path) -> None:
    """Exports a run whose model is discarded, unless one of its configuration has been exported on this machine.

    Args:
        run: as for `export_run`.
        out: the folder for the export.

    Raises:
        RaveDistError: as from `export_run`; it is not kept.
    """
    spec = TrainingSpec.model_validate_json(Path(RunFolder(run).spec).read_bytes())
    request = {"export": Path(RunFolder(run).config).read_text(encoding="utf-8"), "channels": spec.channels}
    if read_facts(request) != _EXPORTED:
        export_run(run, out, name="dry_run")
        keep_facts(request, _EXPORTED)


def check_export(out: Path, *, should_sound: bool = False, timeout: float = TIMEOUT_SECONDS) -> ExportRecord:
    """Checks an export folder in a fresh process and returns its record; raises the errors of `export_run`."""
    checks = _in_fresh_process("rave_dist.registry.verify:verify_request", out, timeout, should_sound=should_sound)
    exported = ExportRecord.model_validate_json(Path(ExportFolder(out, "").record).read_bytes())
    return exported.model_copy(update={"checks": checks})


def export_further(out: Path, exported: ExportRecord, formats: Sequence[str], *, name: str) -> dict[str, Path]:
    """Writes the files of further export formats, each in a fresh process, and returns their paths by format.

    Args:
        out: a checked export folder.
        exported: its record.
        formats: names in `rave_dist.extensions.EXPORT_FORMATS`.
        name: of the model.

    Raises:
        VerificationError: the extension failed, or wrote no file.
    """
    files: dict[str, Path] = {}
    for format_name in formats:
        files[format_name] = out / f"{name}_{format_name}{EXPORT_FORMATS[format_name].suffix}"
        request = {"name": format_name, "offline": exported.offline, "target": files[format_name].name}
        _in_fresh_process("rave_dist.registry.formats:write_request", out, TIMEOUT_SECONDS, **request)
    return files


def _in_fresh_process(function: str, out: Path, timeout: float, **request: Any) -> Any:
    # One thread unless the environment says otherwise: on a shared machine, threads that wait for each other cost several
    # times the work.
    environment = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    try:
        return isolated.run(function, {"out": str(out), **request}, environment=environment, timeout=timeout)
    except isolated.TimedOut as error:
        raise VerificationError(f"the export did not end within {timeout:.0f} s", where=str(out)) from error
    except isolated.ProcessDied as error:
        if error.exit_code < 0:
            what = f"the export failed: its process was killed by signal {-error.exit_code}"
            raise InsufficientMemoryError(what, where=str(out), fix="free memory and try again") from error
        raise VerificationError(f"the export failed: {error.last_words}", where=str(out)) from error
