"""Importing any module changes nothing: no Ray, no threads of work, no files, gradients on, no signal handler, no print."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

PROBE = """
import importlib, os, signal, sys, threading

import numpy
import ray  # puts an excepthook of its own in place

numpy.random.seed(0)
random_state = numpy.random.get_state()[1].tobytes()
environment = dict(os.environ)
handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
hook = sys.excepthook
for name in sys.argv[1:]:
    importlib.import_module(name)

import torch
problems = []
if not torch.is_grad_enabled() or torch.is_inference_mode_enabled():
    problems.append("gradients were turned off")
if torch.get_default_dtype() is not torch.float32:
    problems.append("the default dtype was changed")
if ray.is_initialized():
    problems.append("Ray was started")
if {"rave", "gin", "torchaudio"} & set(sys.modules):
    problems.append("RAVE was imported")
if numpy.random.get_state()[1].tobytes() != random_state:
    problems.append("random numbers were drawn")
if any(signal.getsignal(number) is not handler for number, handler in handlers.items()) or sys.excepthook is not hook:
    problems.append("a handler was put in place")
ours = {k: v for k, v in os.environ.items() if environment.get(k) != v and not k.startswith(("RAY_", "KMP_", "TORCH"))}
if ours:
    problems.append(f"the environment was changed: {sorted(ours)}")
print("\\n".join(problems), end="")
"""


def _run(program: str, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)


def test_importing_everything_does_nothing(modules: tuple[Any, ...], tmp_path: Path) -> None:
    names = [module.name for module in modules]
    assert len(names) > 20
    done = _run(PROBE, *names, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_the_command_line_is_there_before_anything_heavy(tmp_path: Path) -> None:
    program = "import sys, rave_dist.cli; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    done = _run(program, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not {"torch", "ray", "matplotlib", "rave", "boto3", "scipy", "fastapi"} & set(done.stdout.split())


def test_records_know_neither_torch_nor_ray_nor_arrow(tmp_path: Path) -> None:
    program = "import sys, rave_dist.records; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    done = _run(program, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not {"torch", "ray", "numpy", "pyarrow", "boto3"} & set(done.stdout.split())
