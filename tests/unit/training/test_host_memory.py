"""The peak memory of processes, which they measure themselves."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="the peak cannot be reset elsewhere")]

MIB = 1 << 20


def sizes(program: str) -> list[int]:
    """The MiB that a program in a fresh process prints."""
    preface = "from rave_dist.training.host_memory import peak_bytes, reset_peak\n"
    command = [sys.executable, "-c", preface + program]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return [int(word) // MIB for word in done.stdout.split()]


def test_a_peak_is_that_since_it_was_reset_and_has_no_mapped_files() -> None:
    program = """
import mmap, sys, tempfile
present = peak_bytes()
held = bytearray(200 << 20)
most = peak_bytes()
del held
after = peak_bytes()
reset_peak()
print(present, most, after, peak_bytes())
with tempfile.TemporaryFile() as file:
    file.truncate(300 << 20)
    with mmap.mmap(file.fileno(), 0) as mapped:
        print(sum(mapped[:: mmap.PAGESIZE]) + peak_bytes())
"""
    present, most, after, fresh, mapped = sizes(program)
    assert most == pytest.approx(present + 200, abs=5)
    assert after == pytest.approx(most, abs=5)
    assert fresh == pytest.approx(present, abs=5)
    assert mapped == pytest.approx(present, abs=20)


def test_a_process_does_not_inherit_the_peak_of_the_one_that_started_it() -> None:
    held = bytearray(300 << 20)
    (own,) = sizes("print(peak_bytes())")
    assert own < 100
    assert held
