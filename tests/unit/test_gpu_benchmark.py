"""The benchmark of training on a GPU runs in every part on a CPU, so that it still runs when a card is there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

BENCHMARK = Path(__file__).resolve().parents[2] / "benchmarks" / "gpu_training.py"


def test_every_variant_is_measured_in_both_phases() -> None:
    command = [sys.executable, str(BENCHMARK), "--small", "--json", "--configs", "v2_small"]
    command += ["--options", "fused-adam", "tf32", "--parts", "2", "--packed", "1", "2", "--streams", "2"]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    ran = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=900)
    assert ran.returncode == 0, ran.stderr[-3000:]
    document = json.loads(ran.stdout)
    rows = {(row["preset"], row["phase"]): row for row in document["rows"]}
    measured = ["stock", "ours", "ours, fused-adam", "ours, 2 parts", "ours, 2 streams", "ours, 2 processes"]
    for preset in measured:
        for phase in ("phase 1", "phase 2"):
            row = rows.pop((preset, phase))
            assert row["steps/s"] > 0
            assert row["MiB"] > 0
    ((refused, row),) = rows.items()
    assert refused == ("ours, tf32", "phase 1")
    assert "tf32" in row["steps/s"]
    assert set(document["ratios"]) == {
        f"v2_small, {phase}, {preset}" for phase in ("phase 1", "phase 2") for preset in measured[1:]
    }
    assert document["name"] == "training on one CPU"
