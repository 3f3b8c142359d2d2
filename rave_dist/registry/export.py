"""From a finished run to two TorchScript files, built and then checked in processes of their own.

RAVE's configuration and its kind of convolution belong to a whole process, so that the files are built in a fresh one
(`rave_dist.registry.build`) and checked in another (`rave_dist.registry.verify`), which has never seen RAVE, as nobody who
plays them will have. Nothing here imports torch.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import Field

import rave_dist
from rave_dist import errors
from rave_dist.errors import RaveDistError, VerificationError
from rave_dist.rave.presets import FIDELITY
from rave_dist.records import Record

TIMEOUT_SECONDS = 3600


class Exported(Record):
    """What an export says of its model; the files are ``offline`` and ``streaming`` in the same folder, and ``phase_1``, the
    offline export of the best weights of that phase, of runs that went on to phase 2: to be measured, not to be published."""

    offline: str
    streaming: str
    phase_1: str | None = None
    latents: int
    latent_size: int
    hop: int
    receptive_field: tuple[int, int]
    checks: dict[str, float] = Field(default_factory=dict)


def export_run(
    run: Path, out: Path, *, name: str, fidelity: float = FIDELITY, should_sound: bool = False, timeout: float = TIMEOUT_SECONDS
) -> Exported:
    """Exports a run and checks the result, in fresh processes.

    Args:
        run: a folder with ``spec.json``, ``config.gin``, ``weights.pt``, and maybe ``weights_phase_1.pt`` and ``probe.npy``, a
            sound ``[C, T]`` to try.
        out: a folder for ``<name>.ts`` and ``<name>_streaming.ts``.
        fidelity: share of the latent variance to keep.
        should_sound: whether the model has learnt, so that it must answer the probe neither with silence nor far louder.

    Raises:
        VerificationError: a file that does not do what its model does, or a process that died; nothing is to be published.
        ConfigurationError: a model of a kind that cannot be exported.
    """
    out.mkdir(parents=True, exist_ok=True)
    _run_module("rave_dist.registry.build", [str(run), str(out), name, str(fidelity)], out, timeout)
    return check_export(out, should_sound=should_sound, timeout=timeout)


def check_export(out: Path, *, should_sound: bool = False, timeout: float = TIMEOUT_SECONDS) -> Exported:
    """Checks the files of an export folder in a fresh process and returns what is in it; raises as `export_run` does."""
    checks = _run_module("rave_dist.registry.verify", [str(out), str(int(should_sound))], out, timeout)
    exported = Exported.model_validate_json((out / "export.json").read_bytes())
    return exported.model_copy(update={"checks": checks})


def _run_module(module: str, arguments: list[str], out: Path, timeout: float) -> dict[str, Any]:
    """Runs one of this package's modules; its answer, or its error, comes back through ``answer.json``."""
    answer = out / "answer.json"
    answer.unlink(missing_ok=True)
    package = str(Path(rave_dist.__file__).parents[1])
    path = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))
    # One thread unless told otherwise: beside other runs, threads that wait for one another burn several times the work.
    environment = {"OMP_NUM_THREADS": "1", **os.environ, "PYTHONPATH": path}
    try:
        process = subprocess.run(
            [sys.executable, "-m", module, *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise VerificationError(f"{module} did not end in {timeout:.0f} s", where=str(out)) from error
    if not answer.exists():
        last = (process.stderr.strip() or "it said nothing").splitlines()[-1]
        raise VerificationError(
            f"{module} died (exit code {process.returncode}): {last}",
            where=str(out),
            fix="free memory and try again" if process.returncode < 0 else "",
        )
    told: dict[str, Any] = json.loads(answer.read_text())
    if "error" in told:
        kind, what, where, fix = told["error"]
        raised = getattr(errors, kind)(what, where=where, fix=fix)
        raise raised
    return told


def answer(out: Path, work: Callable[..., dict[str, Any]], *arguments: Any) -> int:
    """In the child process: does the work and leaves its answer, or its error, for the parent; returns the exit code."""
    try:
        told = work(out, *arguments)
        code = 0
    except RaveDistError as error:
        told, code = {"error": [type(error).__name__, error.what, error.where, error.fix]}, 1
    except (RuntimeError, ValueError, TypeError, AttributeError, KeyError, OSError) as error:
        traceback.print_exc()
        said = str(error).strip() or type(error).__name__
        what = f"{type(error).__name__}: {said.splitlines()[0]}"
        told, code = {"error": ["VerificationError", f"the export failed: {what}", str(out), ""]}, 1
    (out / "answer.json").write_text(json.dumps(told))
    return code
