"""The benchmark of check on S3 runs, so that its numbers can be had where an S3 server is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from rave_dist.storage.store import Store

BENCHMARK = Path(__file__).resolve().parents[3] / "benchmarks" / "check_s3.py"


def test_requests_and_bytes_are_counted_on_both_sides(s3_store: Store) -> None:
    command = [sys.executable, str(BENCHMARK), "--store", s3_store.uri, "--json", "--recordings", "4", "--megabytes", "2"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-2000:]
    document = json.loads(ran.stdout)
    before, after = document["rows"]
    assert before["MB"] > 6, "whole files"
    assert 0 < after["MB"] < before["MB"] / 2
    assert document["ratios"]["bytes"] > 2
    assert list(s3_store.list()) == []
