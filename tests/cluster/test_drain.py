"""A node that is to end: its run saves its state and continues on another one, to the same weights as an undisturbed run."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import soundfile
from ray.util.state import list_tasks

from rave_dist.cluster.notices import Notice
from rave_dist.cluster.spot import LocalNode, drain
from rave_dist.storage.store import Store
from rave_dist.training.heartbeat import read_records
from tests.cluster.undisturbed import has_undisturbed_weights

RATE = 44100
STEPS = 100

MANIFEST = """
name: drums
store: {store}
max_concurrent: 1
defaults:
  config: v2_small
  override: {{CAPACITY: 4, LATENT_SIZE: 8}}
  window: 65536
  batch: 1
  budget: {{steps: {steps}}}
instruments:
  drum: {{sources: ["{store}/recordings"], seed: 1}}
"""


def _node_of_the_run(two_nodes: Any) -> str:
    asked = {"address": two_nodes.dashboard, "timeout": 60}
    (running,) = [t for t in list_tasks(**asked) if t.name == "train_one" and t.state == "RUNNING"]
    return str(running.node_id)


def test_a_drained_node_s_run_goes_on_elsewhere(two_nodes: Any, s3_server: str, tmp_path: Path) -> None:
    sound = np.random.default_rng(1).uniform(-0.5, 0.5, 8 * RATE) * (np.arange(8 * RATE) % 11025 < 2000)
    recording = io.BytesIO()
    soundfile.write(recording, sound, RATE, format="WAV")
    store = Store(f"s3://rave-dist-tests/drain-{time.time_ns()}")
    store.write_bytes("recordings/drum.wav", recording.getvalue())
    (tmp_path / "library.yaml").write_text(MANIFEST.format(store=store.uri, steps=STEPS))
    command = [sys.executable, "-m", "rave_dist", "run", str(tmp_path / "library.yaml"), "--json"]
    process = subprocess.Popen(command, env=two_nodes.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        _drain_when_it_trains(two_nodes, process, store)
        stdout, stderr = process.communicate(timeout=600)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, f"{stdout}\n{stderr}"
    (instrument,) = json.loads(stdout)["instruments"]
    assert (instrument["state"], instrument["step"]) == ("done", STEPS)
    (record,) = read_records(store, "drums", ["drum"])
    assert has_undisturbed_weights(store, record, tmp_path)


def _drain_when_it_trains(two_nodes: Any, process: Any, store: Store) -> None:
    """Drains the run's node when it has done some steps; waits until another process trains."""
    deadline = time.monotonic() + 400
    before = ""
    while True:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        (record,) = read_records(store, "drums", ["drum"])
        if not before and record.step >= 5 and record.worker:
            before = record.worker
            node = _node_of_the_run(two_nodes)
            drain(LocalNode(node, two_nodes.address, psutil.Process()), Notice("spot", time.time() + 300))
        if before and record.worker != before and record.step > 5:
            assert _node_of_the_run(two_nodes) != node
            return
        time.sleep(0.5)
