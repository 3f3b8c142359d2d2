"""Benchmarks that need a GPU, run small on a CPU so that they cannot rot."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import soundfile

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_both_sides_of_the_quality_benchmark_train_and_sound(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARKS / "gpu_quality.py"), "--small", "--json", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    document = json.loads(done.stdout)
    sides = {row["side"]: row for row in document["rows"]}
    assert set(sides) == {"stock", "ours"}
    assert all(row["steps"] > 1 and 0 < row["best"] <= row["at the end"] for row in sides.values())
    assert sides["stock"]["distance before"] == sides["ours"]["distance before"], "the same weights and the same held-out audio"
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert len({soundfile.info(tmp_path / f"{name}.flac").frames for name in ("original", "stock", "ours")}) == 1
