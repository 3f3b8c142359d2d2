"""Signals to commands that have a Ray of their own: it ends with them, at every moment."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from rave_dist.records import RunRecord
from rave_dist.signals import STOPPED
from rave_dist.storage.store import Store
from rave_dist.training.heartbeat import read_records
from rave_dist.training.on_ray import STOP_SECONDS
from tests.marked_command import BOUND_SECONDS, CODES, READY_SECONDS, command


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """A library of one instrument with ten minutes of noise, in files enough to keep ingest busy."""
    noise = np.random.default_rng(0).integers(-3000, 3000, 44100 * 60).astype(np.int16)
    (tmp_path / "noise").mkdir()
    for number in range(10):
        soundfile.write(tmp_path / "noise" / f"{number}.flac", np.roll(noise, number), 44100)
    path = tmp_path / "library.yaml"
    path.write_text(
        f"name: small\nstore: {tmp_path / 'store'}\ninstruments:\n"
        f"  noise: {{sources: [{tmp_path / 'noise'}], config: v2_small, budget: {{steps: 16}}}}\n"
    )
    return path


MOMENTS: dict[str, tuple[str, Callable[[str], bool]]] = {
    "while the model is measured": ("check", lambda line: "rave_dist.training.preflight" in line),
    "while Ray starts": ("ingest", lambda line: "/gcs_server" in line),
    "when Ray has just started": ("ingest", lambda line: "RuntimeEnvAgent" in line),
    "in the midst of the work": ("ingest", lambda line: "ray::" in line and "Agent" not in line),
}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_command_ends_with_all_its_processes(moment: str, number: signal.Signals, manifest: Path, tmp_path: Path) -> None:
    verb, sign = MOMENTS[moment]
    with command("-m", "rave_dist", verb, str(manifest), RAVE_DIST_CACHE=str(tmp_path / "cache")) as started:
        started.wait_for(sign)
        assert STOPPED in started.stopped_by(number)
        assert started.process.returncode == CODES[number]
        assert started.processes() == []


def test_a_run_ends_before_its_first_step_and_saves_itself_after(tmp_path: Path, manifest: Path) -> None:
    store = Store(str(tmp_path / "store"))
    for recording in sorted((tmp_path / "noise").iterdir())[1:]:  # no need to keep ingest busy
        recording.unlink()
    manifest.write_text(
        manifest.read_text().replace(
            "budget: {steps: 16}", "override: {CAPACITY: 4, LATENT_SIZE: 8}, window: 65536, batch: 2, budget: {steps: 1000000}"
        )
    )

    def stopped_when(begun: Callable[[RunRecord], bool], seconds: float) -> RunRecord:
        """Starts the run, stops it when its record says so, and returns the record that is left."""
        with command("-m", "rave_dist", "run", str(manifest)) as started:
            deadline = time.monotonic() + READY_SECONDS
            while not begun(read_records(store, "small", ["noise"])[0]):
                assert time.monotonic() < deadline
                assert started.process.poll() is None, started.process.communicate()[1]
                time.sleep(0.2)
            started.stopped_by(signal.SIGTERM, within=seconds)
            assert started.process.returncode == CODES[signal.SIGTERM]
            assert started.processes() == []
        while read_records(store, "small", ["noise"])[0].state == "running":  # if it was ended before it could say so
            assert time.monotonic() < deadline + READY_SECONDS
            time.sleep(1)
        return read_records(store, "small", ["noise"])[0]

    before = stopped_when(lambda record: record.activity == "dry run", BOUND_SECONDS)
    assert (before.state, before.step) == ("waiting", 0)
    after = stopped_when(lambda record: record.step > 0, STOP_SECONDS + BOUND_SECONDS)
    assert after.state == "waiting"
    saved = {entry.key.rpartition("/")[2] for entry in store.list("runs") if "/checkpoints/" in entry.key}
    assert f"step-{after.step:09d}.json" in saved, "its last step is saved, though no checkpoint is due for ten minutes"


def test_a_start_that_fails_is_tried_three_times() -> None:
    """With storage that Ray does not know, its head dies at once; Ray notices after half a minute."""
    program = """
import json
from rave_dist.cluster import connected
from rave_dist.errors import ClusterError

said = []
try:
    with connected(say=said.append):
        pass
except ClusterError as error:
    print(json.dumps([*said, error.what]), flush=True)
    input()
"""
    with command("-c", program, RAY_gcs_storage="unknown") as started:
        assert started.process.stdout is not None
        said = json.loads(started.process.stdout.readline())
        assert len(started.processes()) == 1, "the process itself, and nothing of the three attempts"
    assert [text.rpartition("; ")[2] for text in said[:-1]] == ["trying again, 2 of 3", "trying again, 3 of 3"]
    assert said[-1].startswith("Ray did not start in time")


def test_an_embedded_ray_is_private() -> None:
    """All its ports are on loopback, and nobody without its token may use it."""
    program = """
import os, sys
from rave_dist.cluster import connected

with connected(dashboard=True):
    import psutil
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        for connection in process.net_connections(kind="inet"):
            if connection.status == psutil.CONN_LISTEN:
                print(connection.laddr.ip, file=sys.stderr)
    print(os.environ["RAY_AUTH_MODE"], file=sys.stderr)
"""
    with command("-c", program) as started:
        _, stderr = started.process.communicate(timeout=READY_SECONDS)
    *addresses, mode = stderr.split()
    assert mode == "token"
    assert len(addresses) > 5
    assert set(addresses) <= {"127.0.0.1", "::ffff:127.0.0.1"}
