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
import soundfile
import torch
from ray.util.state import list_tasks

from rave_dist.storage.store import Store
from rave_dist.training.heartbeat import read_records

RATE = 44100
STEPS = 120

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


def _weights(store: Store, folder: Path, name: str) -> dict[str, torch.Tensor]:
    record = read_records(store, "drums", ["drum"])[0]
    weights: dict[str, torch.Tensor] = torch.load(store.download(record.folder.weights, folder / name), weights_only=True)
    return weights


def _node_of_the_run(two_nodes: Any) -> str:
    asked = {"address": two_nodes.dashboard, "timeout": 60}
    (running,) = [t for t in list_tasks(**asked) if t.name == "train_one" and t.state == "RUNNING"]
    return str(running.node_id)


def test_a_drained_node_s_run_goes_on_elsewhere(two_nodes: Any, s3_server: str, tmp_path: Path) -> None:
    sound = np.random.default_rng(1).uniform(-0.5, 0.5, 8 * RATE) * (np.arange(8 * RATE) % 11025 < 2000)
    recording = io.BytesIO()
    soundfile.write(recording, sound, RATE, format="WAV")
    stores = {name: Store(f"s3://rave-dist-tests/drain-{time.time_ns()}-{name}") for name in ("drained", "calm")}
    weights = {}
    for name, store in stores.items():
        store.write_bytes("recordings/drum.wav", recording.getvalue())
        (tmp_path / "library.yaml").write_text(MANIFEST.format(store=store.uri, steps=STEPS))
        command = [sys.executable, "-m", "rave_dist", "run", str(tmp_path / "library.yaml"), "--json"]
        process = subprocess.Popen(command, env=two_nodes.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            if name == "drained":
                _drain_when_it_trains(two_nodes, process, store)
            stdout, stderr = process.communicate(timeout=600)
        finally:
            process.kill()
            process.wait()
        assert process.returncode == 0, f"{name}\n{stdout}\n{stderr}"
        (instrument,) = json.loads(stdout)["instruments"]
        assert (instrument["state"], instrument["step"]) == ("done", STEPS)
        weights[name] = _weights(store, tmp_path, name)
    assert all(torch.equal(weights["drained"][key], weights["calm"][key]) for key in weights["calm"])


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
            options = [
                "--reason",
                "DRAIN_NODE_REASON_PREEMPTION",
                "--reason-message",
                "spot",
                "--deadline-remaining-seconds",
                "300",
            ]
            drain = [
                sys.executable,
                "-m",
                "ray.scripts.scripts",
                "drain-node",
                "--address",
                two_nodes.address,
                "--node-id",
                node,
            ]
            subprocess.run([*drain, *options], check=True, env=two_nodes.env, capture_output=True)
        if before and record.worker != before and record.step > 5:
            assert _node_of_the_run(two_nodes) != node
            return
        time.sleep(0.5)
