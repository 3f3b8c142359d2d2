"""Every stage on two nodes, with recordings, store and results on S3 alone; and one stage as a submitted job."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from ray.job_submission import JobStatus, JobSubmissionClient
from ray.util.state import list_actors, list_tasks

from rave_dist.storage.store import Store

RATE = 44100

MANIFEST = """
name: drums
store: {store}
defaults:
  config: v2_small
  override: {{CAPACITY: 4, LATENT_SIZE: 8}}
  window: 65536
  batch: 1
  budget: {{steps: 6}}
instruments:
  low: {{sources: ["{recordings}/low"]}}
  high: {{sources: ["{recordings}/high"], batch: 2}}
"""


def _strokes(seconds: float, *, pitch: float, seed: int) -> np.ndarray:
    """Decaying tones at random times: something with an onset to learn; float32 [samples]."""
    rng = np.random.default_rng(seed)
    time_axis = np.arange(RATE // 2) / RATE
    sound = np.zeros(round(seconds * RATE) + RATE)
    for start in np.arange(0, seconds, 0.25):
        at = round((start + rng.uniform(0, 0.1)) * RATE)
        stroke = np.exp(-12 * time_axis) * np.sin(2 * np.pi * pitch * rng.choice([1, 1.5]) * time_axis)
        sound[at : at + len(stroke)] += 0.4 * stroke
    return (sound[: round(seconds * RATE)] + 1e-3 * rng.standard_normal(round(seconds * RATE))).astype(np.float32)


def _put_sound(store: Store, key: str, samples: np.ndarray) -> None:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, RATE, format="WAV", subtype="PCM_16")
    store.write_bytes(key, buffer.getvalue())


@pytest.fixture(scope="module")
def place(s3_server: str) -> Store:
    """A prefix with two instruments' recordings, four files each."""
    place = Store(f"s3://rave-dist-tests/two-nodes-{time.time_ns()}")
    for name, pitch in (("low", 110.0), ("high", 330.0)):
        for index in range(4):
            _put_sound(place, f"recordings/{name}/{index}.wav", _strokes(6.0, pitch=pitch, seed=index))
    return place


@pytest.fixture(scope="module")
def folder(place: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The laptop's folder: the manifest and nothing else."""
    folder = tmp_path_factory.mktemp("laptop")
    (folder / "library.yaml").write_text(MANIFEST.format(store=f"{place.uri}/store", recordings=f"{place.uri}/recordings"))
    return folder


def _command(two_nodes: Any, folder: Path, *arguments: str) -> Any:
    """The document of a ``rave-dist`` command that ends well, run as on a laptop with ``RAY_ADDRESS`` set."""
    command = [sys.executable, "-m", "rave_dist", *arguments, "--json"]
    done = subprocess.run(command, cwd=folder, env=two_nodes.env, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    return json.loads(done.stdout)


def _submit(client: JobSubmissionClient, **options: Any) -> str:
    """Submits a job; a node's agent for jobs may come up a while after the node on a busy machine."""
    deadline = time.monotonic() + 180
    while True:
        try:
            return client.submit_job(**options)
        except RuntimeError as error:
            if "No available agent" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(2)


def _finish(client: JobSubmissionClient, job: str) -> tuple[JobStatus, str]:
    """Waits for a job; its status and what it printed."""
    deadline = time.monotonic() + 300
    while not client.get_job_status(job).is_terminal() and time.monotonic() < deadline:
        time.sleep(1)
    return client.get_job_status(job), client.get_job_logs(job)


def _workers(two_nodes: Any) -> Counter[tuple[str, str]]:
    """What trained or converted, by kind and node."""
    asked = {"address": two_nodes.dashboard, "limit": 10_000, "timeout": 60}
    runs = [(task.name, task.node_id) for task in list_tasks(**asked) if task.name == "train_one" and task.node_id]
    found = [(actor.class_name.partition("(")[0], actor.node_id) for actor in list_actors(**asked) if actor.node_id]
    return Counter([*runs, *(worker for worker in found if worker[0].startswith("MapWorker"))])


def test_a_submitted_job_does_what_its_command_does(two_nodes: Any, folder: Path, place: Store) -> None:
    client = JobSubmissionClient(two_nodes.dashboard)
    entrypoint = f"{sys.executable} -m ray_jobs.ingest library.yaml --json"
    job = _submit(client, entrypoint=entrypoint, submission_id="ingest-1", runtime_env={"working_dir": str(folder)})
    with pytest.raises(RuntimeError, match="ingest-1"):
        _submit(client, entrypoint=entrypoint, submission_id="ingest-1")
    status, logs = _finish(client, job)
    assert status is JobStatus.SUCCEEDED, logs
    document = json.loads(logs[logs.index("{\n") : logs.rindex("}") + 1])
    assert document["library"] == "drums"
    for instrument in document["instruments"]:
        assert instrument["used_seconds"] + sum(r["seconds"] for r in instrument["rejected"]) == pytest.approx(24.0, abs=1e-3)
        assert place.exists(f"store/datasets/{instrument['name']}/{instrument['dataset']}/manifest.json")


def test_a_job_that_fails_says_so_and_why(two_nodes: Any, folder: Path) -> None:
    client = JobSubmissionClient(two_nodes.dashboard)
    job = _submit(
        client, entrypoint=f"{sys.executable} -m ray_jobs.train no-such.yaml", runtime_env={"working_dir": str(folder)}
    )
    status, logs = _finish(client, job)
    assert status is JobStatus.FAILED
    assert "no such file" in logs


def test_the_command_ingests_nothing_again(two_nodes: Any, folder: Path, place: Store) -> None:
    parts = {e.key: e.tag for e in place.list("store/datasets") if e.key.endswith(".parquet")}
    assert parts
    document = _command(two_nodes, folder, "ingest", "library.yaml")
    assert {e.key: e.tag for e in place.list("store/datasets") if e.key.endswith(".parquet")} == parts
    assert all(i["used_seconds"] > 20 for i in document["instruments"])


def test_both_instruments_train_at_once_on_both_nodes_and_are_published(two_nodes: Any, folder: Path, place: Store) -> None:
    document = _command(two_nodes, folder, "train", "library.yaml")
    assert {i["name"]: (i["state"], i["phase"], i["step"]) for i in document["instruments"]} == {
        "low": ("done", 2, 6),
        "high": ("done", 2, 6),
    }
    models = _command(two_nodes, folder, "models", "--store", f"{place.uri}/store")["models"]
    assert {model["name"] for model in models} == {"low", "high"}
    for model in models:
        for file in model["files"].values():
            assert file.startswith(f"{place.uri}/store/models/{model['name']}/{model['version']}/")


def test_an_archive_on_s3_is_converted_to_s3(two_nodes: Any, folder: Path, place: Store) -> None:
    sources = {e.key: e.tag for e in place.list("recordings")}
    store, output = f"{place.uri}/store", f"{place.uri}/converted"
    arguments = ("convert", "--store", store, "--model", "low", f"{place.uri}/recordings/high", output)
    document = _command(two_nodes, folder, *arguments)
    assert (document["converted"], document["skipped"], document["failed"]) == (4, 0, [])
    for index in range(4):
        with place.open(f"converted/{index}.wav") as file:
            samples, rate = soundfile.read(io.BytesIO(file.read()))
        assert (rate, len(samples)) == (RATE, 6 * RATE)
    again = _command(two_nodes, folder, *arguments)
    assert (again["converted"], again["skipped"]) == (0, 4)
    assert {e.key: e.tag for e in place.list("recordings")} == sources


def test_work_was_done_on_both_nodes_and_nothing_lies_beside_the_store(two_nodes: Any, folder: Path) -> None:
    workers = _workers(two_nodes)
    assert {kind for kind, _ in workers} == {"train_one", "MapWorker"}
    assert {node for _, node in workers} == set(two_nodes.nodes), workers
    assert [path.name for path in folder.iterdir()] == ["library.yaml"]


def test_a_laptop_submits_its_recordings_once_and_may_close(two_nodes: Any, folder: Path, place: Store, tmp_path: Path) -> None:
    """The same recordings as files of the laptop are the same datasets, so that nothing is trained again."""
    for entry in place.list("recordings"):
        place.download(entry.key, tmp_path / entry.key)
    manifest = (folder / "library.yaml").read_text().replace(f"{place.uri}/recordings", "recordings")
    (tmp_path / "library.yaml").write_text(manifest)
    command = [sys.executable, "-m", "rave_dist", "submit", "library.yaml", "--json"]
    laptop = subprocess.Popen(command, cwd=tmp_path, env=two_nodes.env, stderr=subprocess.PIPE, text=True)
    assert laptop.stderr is not None
    try:
        said = []
        for line in laptop.stderr:
            said.append(line)
            if "started the job" in line:
                laptop.send_signal(signal.SIGINT)
        assert laptop.wait(60) == 130, said
    finally:
        laptop.kill()
        laptop.wait()
        laptop.stderr.close()
    assert "continues" in said[-1], said
    uploads = {entry.key for entry in place.list("store/recordings/objects")}
    assert len(uploads) == 8
    document = _command(two_nodes, tmp_path, "submit", "library.yaml")
    assert (document["state"], document["is_new"]) == ("succeeded", False)
    assert document["job"] in "".join(said)
    assert {i["name"]: (i["state"], i["step"]) for i in document["instruments"]} == {"low": ("done", 6), "high": ("done", 6)}
    assert not any(i["outdated"] for i in document["instruments"])
    assert place.exists("store/report/drums/index.html")
    models = _command(two_nodes, tmp_path, "models", "--store", f"{place.uri}/store")["models"]
    assert len(models) == 2  # of one version each
    jobs = [job.submission_id for job in JobSubmissionClient(two_nodes.dashboard).list_jobs()]
    assert [job for job in jobs if job and job.startswith("drums-")] == [document["job"]]


@pytest.mark.parametrize("address", ["named", "auto"])
def test_the_doctor_joins_it(address: str, two_nodes: Any) -> None:
    with tempfile.TemporaryDirectory(prefix="rd-", dir="/tmp") as folder:  # where `ray start` notes what "auto" means
        os.mkdir(f"{folder}/ray")
        Path(folder, "ray", "ray_current_cluster").write_text(two_nodes.address)
        environment = two_nodes.env | {"RAY_TMPDIR": folder}
        if address == "auto":
            environment["RAY_ADDRESS"] = "auto"
        asked = subprocess.run(
            [sys.executable, "-m", "rave_dist", "doctor", "--json"],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    (ray,) = (check for check in json.loads(asked.stdout)["checks"] if check["name"] == "Ray")
    assert ray["state"] == "ok", ray
    expected = f"joined the Ray at {two_nodes.address}" if address == "auto" else f"answers at {two_nodes.address}"
    assert expected in ray["what"]
