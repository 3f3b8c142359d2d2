"""Commands that only read a little answer at once: what they import, and the CPU seconds that they take."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

MANIFEST = "name: band\nstore: ./store\ninstruments:\n  drums: {sources: x.wav}\n"
MOST_CPU_SECONDS = 0.6
REFERENCE = "total = 0\nfor number in range(3_000_000): total += number * number % 7"
REFERENCE_SECONDS = 0.24
"""CPU seconds of the reference where the commands may take `MOST_CPU_SECONDS`; a machine that others use is slower for both."""

SLACK = 1.5

# The folder `{0}` has a manifest, one with a misspelt key, and an empty store.
COMMANDS = {
    "help": "--help",
    "version": "--version",
    "help of a command": "check --help",
    "help of encode": "encode --help",
    "help of decode": "decode --help",
    "a misspelt option": "check --nope",
    "a misspelt key": "check {0}/misspelt.yaml",
    "an absent manifest": "train {0}/absent.yaml",
    "status": "status {0}/library.yaml --json",
    "models": "models --store {0}/store",
}
HEAVY = {"torch", "ray", "matplotlib", "rave", "boto3", "scipy", "fastapi", "pyarrow"}

command = pytest.mark.parametrize("arguments", COMMANDS.values(), ids=COMMANDS.keys())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the commands find what they name."""
    (tmp_path / "library.yaml").write_text(MANIFEST)
    (tmp_path / "misspelt.yaml").write_text(MANIFEST.replace("store:", "stroe:"))
    (tmp_path / "store").mkdir()
    return tmp_path


def _run(arguments: str, folder: Path, *interpreter: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *interpreter, "-m", "rave_dist", *arguments.format(folder).split()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@command
def test_nothing_heavy_is_imported(arguments: str, folder: Path) -> None:
    done = _run(arguments, folder, "-X", "importtime")
    assert done.returncode in (0, 1, 2)
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines() if "|" in line}
    assert "typer" in imported
    assert not HEAVY & imported


@pytest.mark.slow
@command
def test_the_answer_costs_little(arguments: str, folder: Path) -> None:
    def cost(run: Callable[[], object]) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        run()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    def answer() -> float:
        return cost(lambda: _run(arguments, folder))

    def reference() -> float:
        return cost(lambda: subprocess.run([sys.executable, "-c", REFERENCE], check=True, timeout=120))

    answer()  # the first one also compiles and fills the disk's cache
    measured = [(answer(), reference()) for _ in range(3)]
    unit = min(reference for _, reference in measured) / REFERENCE_SECONDS
    assert min(answer for answer, _ in measured) <= SLACK * MOST_CPU_SECONDS * max(1.0, unit)
