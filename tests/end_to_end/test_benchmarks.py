"""Benchmarks that need a GPU, run small on a CPU so that they cannot rot."""

from __future__ import annotations

import json
import os
import re
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


def test_without_time_the_script_for_a_card_names_every_part_and_fails(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHON": sys.executable, "MINUTES": "0", "CUDA_VISIBLE_DEVICES": ""}
    command = ["bash", str(BENCHMARKS / "on_a_card.sh"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 3, done.stderr[-2000:]
    parts = [line.split("\t") for line in (tmp_path / "summary.tsv").read_text().splitlines()]
    assert {code for _, code, _ in parts} == {"no time left"}
    documented = set(re.findall(r"`(\w+)`", (BENCHMARKS.parent / "docs" / "gpu.md").read_text().partition("| part |")[2]))
    assert {name for name, _, _ in parts} - {"machine"} == documented - {"training_compile", "v2_small"}, "compile: on cards"
