"""Recordings on a real S3 server are checked by a part of their bytes, and each once."""

from __future__ import annotations

import uuid
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from rave_dist.audio.io.sources import list_sources
from rave_dist.checks import check_library
from rave_dist.checks.recordings import open_recordings
from rave_dist.library.manifest import load_library
from rave_dist.storage.store import Store
from tests.conftest import BUCKET
from tests.failing_server import FailingServer

RATE = 44100


def record(path: Path, seconds: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, (round(seconds * RATE), 2)), RATE)
    return path


def test_recordings_on_s3_cost_some_requests_and_a_part_of_their_bytes(
    s3_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(f"s3://{BUCKET}/{uuid.uuid4().hex[:12]}")
    files = [record(tmp_path / "takes" / f"take {n}.{suffix}", 60) for n in range(3) for suffix in ("wav", "flac")]
    for path in files:
        store.upload(path, f"takes/{path.name}")
    with FailingServer(s3_server).running() as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.address)
        listed = list_sources([store.address("takes")])
        server.requests, server.sent_bytes = [], 0
        found = open_recordings(listed)
    assert [(r.seconds, r.sample_rate, r.error, r.notes) for r in found] == [(60, RATE, None, ())] * len(files)
    assert max(Counter(server.requests).values()) <= 6
    assert all(request.startswith("GET ") for request in server.requests)
    assert server.sent_bytes < len(files) * 800_000 < sum(path.stat().st_size for path in files) / 6


def test_a_recording_of_two_instruments_is_opened_once(s3_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(f"s3://{BUCKET}/{uuid.uuid4().hex[:12]}")
    store.upload(record(tmp_path / "short.wav", 0.5), "takes/short.wav")
    (tmp_path / "library.yaml").write_text(
        "name: band\nstore: ./store\ndefaults: {config: v2_tiny, budget: {steps: 300}}\n"
        f"instruments:\n  drums: {{sources: [{store.uri}/takes]}}\n  bells: {{sources: [{store.uri}/takes]}}\n"
    )
    with FailingServer(s3_server).running() as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.address)
        checked = check_library(load_library(tmp_path / "library.yaml"))
    assert [(i.seconds, [f.severity for f in i.findings]) for i in checked.instruments] == [(0.5, ["error"])] * 2
    assert len([r for r in server.requests if r.startswith("GET ") and r.split("?")[0].endswith("short.wav")]) == 1
