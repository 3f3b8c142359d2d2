"""Freed memory: kept where the next tensors need it, and returned at the end."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import resource
import sys

import numpy as np
import psutil

from rave_dist.allocator import holding_freed_memory

MEBIBYTE = 1 << 20


def faults() -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        np.ones(100 * MEBIBYTE // 8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


without = faults()
with holding_freed_memory():
    faults()
    held = faults()
    inside = psutil.Process().memory_info().rss
after = psutil.Process().memory_info().rss
print(without, held, inside // MEBIBYTE, after // MEBIBYTE)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc")
def test_freed_memory_is_used_again_and_returned_at_the_end() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    without, held, inside, after = map(int, done.stdout.split())
    assert held < without / 10, "no page is cleared again"
    assert after < inside - 90, "100 MiB are returned"
