"""``ray up`` with `cluster.yaml` as it is: three hosts over SSH, a worker that fails, a host that is lost, ``ray down``.

The hosts are namespaces of this machine: `separate_hosts` says what is real and what stands in. Above all, the packages of
the hosts are those of this environment: `tools/install.py` runs on each of them and finds all installed, without a network,
except rave-dist, which it builds and installs from the copied files. The laptop also has the S3 server. A host is lost
with all its processes and its network at once; its disk stays.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import yaml
from seaweedfs import server_command
from separate_hosts import LAPTOP, SeparateHosts, why_not

ROOT = Path(__file__).resolve().parents[2]
HEAD, WORKER, OTHER = "192.0.2.10", "192.0.2.11", "192.0.2.12"  # as in cluster.yaml
RATE = 44100
SSH = "-q -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"
SPOT = "rave_dist.cluster.spot"

STORE = f"""
AWS_ACCESS_KEY_ID=testkey
AWS_SECRET_ACCESS_KEY=testsecret
AWS_REGION=us-east-1
AWS_ENDPOINT_URL=http://{LAPTOP}:8333
AWS_REQUEST_CHECKSUM_CALCULATION=when_required
AWS_RESPONSE_CHECKSUM_VALIDATION=when_required
"""

LIBRARY = """
name: drums
store: s3://band/store
defaults:
  config: v2_small
  override: {CAPACITY: 4, LATENT_SIZE: 8}
  window: 65536
  batch: 1
  budget: {steps: 120}
  placement: {labels: {role: worker}}
instruments:
  low: {sources: [low]}
  high: {sources: [high]}
"""

pytestmark = pytest.mark.slow


def _tones(pitch: float, seed: int) -> np.ndarray:
    """Decaying tones, four a second; float32 [samples]."""
    rng = np.random.default_rng(seed)
    time_axis = np.arange(RATE // 4) / RATE
    tones = [np.exp(-12 * time_axis) * np.sin(2 * np.pi * pitch * rng.choice([1, 1.5]) * time_axis) for _ in range(24)]
    return (0.4 * np.concatenate(tones) + 1e-3 * rng.standard_normal(24 * len(time_axis))).astype(np.float32)


def _fill(laptop: Path) -> None:
    """The laptop's home: a copy of this code, the settings of the store, a library with its recordings."""
    excluded = yaml.safe_load((ROOT / "cluster.yaml").read_text(encoding="utf-8"))["rsync_exclude"]
    options = [f"--exclude={pattern}" for pattern in excluded]
    subprocess.run(["rsync", "-a", *options, f"{ROOT}/", str(laptop / "rave-dist")], check=True)
    (laptop / ".rave-dist.env").write_text(STORE)
    (laptop / ".rave-dist.env").chmod(0o600)
    for name, pitch in (("low", 110.0), ("high", 330.0)):
        (laptop / "music" / name).mkdir(parents=True)
        for index in range(2):
            soundfile.write(laptop / "music" / name / f"{index}.wav", _tones(pitch, index), RATE, subtype="PCM_16")
    (laptop / "music" / "library.yaml").write_text(LIBRARY)


@pytest.fixture(scope="module")
def hosts() -> Iterator[SeparateHosts]:
    """A laptop with a tunnel to the head, which has no Ray yet, and an S3 server."""
    reason = why_not()
    if reason:
        warnings.warn(f"cluster.yaml was NOT tried over SSH: {reason}", stacklevel=1)
        pytest.skip(reason)
    hosts = SeparateHosts(Path(tempfile.mkdtemp(prefix="rd-", dir="/var/tmp")), (HEAD, WORKER, OTHER))
    try:
        hosts.start()
        _fill(hosts.own("laptop") / "home")
        s3 = hosts.folder / "s3"
        s3.mkdir()
        hosts.keep_running(shlex.join(server_command(s3, LAPTOP, s3=8333, master=9333, volume=8080, filer=8888)))
        made = """python -c 'import boto3; boto3.client("s3").create_bucket(Bucket="band")'"""
        _until(lambda: _on_laptop(hosts, made).returncode == 0, "the S3 server stores")
        for address in hosts.running:
            _until(partial(_succeeds, hosts, f"ssh {SSH} ubuntu@{address} true"), f"{address} has SSH")
        assert hosts.run("ray get-auth-token --generate").returncode == 0
        hosts.keep_running(f"ssh {SSH} -N -L 8265:127.0.0.1:8265 ubuntu@{HEAD}")
        yield hosts
    finally:
        hosts.close()


def _until(holds: Callable[[], Any], what: str, seconds: float = 400.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(1)
    return found


def _music(command: str) -> str:
    """A command in the folder of the library, with the tunnel and the store, as docs/cluster.md has it."""
    exports = "PYTHONPATH=~/rave-dist RAY_AUTH_MODE=token RAY_API_SERVER_ADDRESS=http://127.0.0.1:8265 OMP_NUM_THREADS=1"
    return f"cd ~/music && set -a && . ~/.rave-dist.env && {exports} && set +a && {command}"


def _on_laptop(hosts: SeparateHosts, command: str) -> subprocess.CompletedProcess[str]:
    return hosts.run(_music(command))


def _states(hosts: SeparateHosts, *codes: int) -> dict[str, dict[str, Any]]:
    """What ``rave-dist hosts`` says of each; empty if it ends with another exit code."""
    done = _on_laptop(hosts, "rave-dist hosts --json")
    if done.returncode not in codes:
        return {}
    return {host["address"]: host for host in json.loads(done.stdout)["hosts"]}


def _bring_up(hosts: SeparateHosts, *workers: str) -> None:
    """``ray up``, again if need be: Ray's starts have time limits that a busy machine exceeds."""
    said = ""
    for _ in range(3):
        done = hosts.run("ray up --yes cluster.yaml")
        said = f"{done.stdout[-4000:]}\n{done.stderr[-2000:]}"
        if done.returncode != 0:
            continue
        states = _until(lambda: _settled(hosts, workers), "no host is being set up any more")
        if all(states[address]["state"] == "alive" for address in workers):
            for address in workers:
                _until(partial(hosts.processes, address, SPOT), f"the watcher of {address}")
            return
        said += json.dumps(states, indent=2)
    raise AssertionError(said)


def _settled(hosts: SeparateHosts, workers: tuple[str, ...]) -> dict[str, dict[str, Any]] | None:
    for _ in range(20):  # cheaper than asking the cluster: the watcher is what starts last on a worker
        if all(hosts.processes(address, SPOT) for address in workers):
            break
        time.sleep(1)
    states = _states(hosts, 0, 3)
    is_settled = len(states) == 3 and all(host["state"] in ("alive", "failed") for host in states.values())
    return states if is_settled else None


def _succeeds(hosts: SeparateHosts, command: str) -> bool:
    return hosts.run(command).returncode == 0


def _runs_no(hosts: SeparateHosts, address: str, program: str) -> bool:
    return not hosts.processes(address, program)


def test_a_worker_whose_set_up_fails_is_named_with_its_reason(hosts: SeparateHosts) -> None:
    """Its environment is one without packages, and it cannot download any."""
    environment = hosts.own(OTHER) / "home" / "rave-dist" / ".venv"
    environment.unlink()
    (environment / "bin").mkdir(parents=True)
    (environment / "bin" / "python").symlink_to(Path(sys.executable).resolve())
    _bring_up(hosts, WORKER)
    states = _states(hosts, 3)
    assert {address: host["state"] for address, host in states.items()} == {HEAD: "alive", WORKER: "alive", OTHER: "failed"}
    failed = states[OTHER]
    assert failed["reason"] == "its set-up failed"
    assert failed["command"] == "python3 ~/rave-dist/tools/install.py ~/rave-dist/.venv"
    assert "error: uv could not be installed:" in failed["output"]
    assert "ray up" in failed["fix"]
    shown = _on_laptop(hosts, "rave-dist hosts")
    assert shown.returncode == 3
    assert OTHER in shown.stderr
    assert "| error: uv could not be installed:" in shown.stderr


def test_the_same_command_again_adds_the_repaired_worker(hosts: SeparateHosts) -> None:
    environment = hosts.own(OTHER) / "home" / "rave-dist" / ".venv"
    (environment / "bin" / "python").unlink()
    (environment / "bin").rmdir()
    environment.rmdir()
    environment.symlink_to(sys.prefix)
    _bring_up(hosts, WORKER, OTHER)
    states = _states(hosts, 0)
    assert {(address, host["role"], host["state"]) for address, host in states.items()} == {
        (HEAD, "head", "alive"),
        (WORKER, "worker", "alive"),
        (OTHER, "worker", "alive"),
    }
    for address in (HEAD, WORKER, OTHER):
        assert len(hosts.processes(address, "raylet/raylet")) == 1
        assert len(hosts.processes(address, SPOT)) == (address != HEAD)
    where = "~/rave-dist/.venv/bin/python -c 'import rave_dist; print(rave_dist.__file__)'"
    assert hosts.run(f"ssh {SSH} ubuntu@{WORKER} {shlex.quote(where)}").stdout.startswith(f"{hosts.home}/rave-dist/")
    for address in (WORKER, OTHER):
        *_, log = sorted((hosts.own(address) / "tmp" / "ray").glob("session_2*/logs/spot.log"))
        assert "watching over" in log.read_text()


def test_a_library_survives_a_host_that_is_lost_in_its_middle(hosts: SeparateHosts) -> None:
    submitted = subprocess.Popen(
        hosts.command(_music("rave-dist submit library.yaml --json")),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    watched = subprocess.Popen(
        hosts.command(_music("while ! rave-dist status library.yaml --watch --json; do sleep 1; done")),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert submitted.stdout is not None
    assert watched.stdout is not None
    try:
        lost = next(filter(None, map(_trains_on, watched.stdout)))
        hosts.lose(lost[1])
        said = submitted.stdout.read()
        assert submitted.wait() == 0, said[-4000:]
    finally:
        for process in (submitted, watched):
            process.kill()
            process.wait()
        submitted.stdout.close()
        watched.stdout.close()
    document = json.loads(said[said.index("\n{\n") :])
    runs = {run["name"]: run for run in document["instruments"]}
    assert {name: (run["state"], run["step"]) for name, run in runs.items()} == {"low": ("done", 120), "high": ("done", 120)}
    assert runs[lost[0]]["retries"] >= 1
    states = _until(lambda: _states(hosts, 3), "the loss is seen")
    assert [(address, host["state"]) for address, host in states.items() if host["state"] != "alive"] == [(lost[1], "lost")]
    models = json.loads(_on_laptop(hosts, "rave-dist models --store s3://band/store --json").stdout)["models"]
    assert {model["name"] for model in models} == {"low", "high"}
    verified = _on_laptop(hosts, "rave-dist verify --store s3://band/store --read-data")
    assert verified.returncode == 0, verified.stdout


def _trains_on(line: str) -> tuple[str, str] | None:
    """Instrument and host of a run that is in its middle, from a document of ``rave-dist status --watch``."""
    for run in json.loads(line)["instruments"]:
        if run["activity"] == "training" and run["step"] > 0 and run["worker"]:
            return run["name"], run["worker"].partition(":")[0].replace("host-", "192.0.2.")
    return None


def test_ray_down_ends_ray_on_all_hosts(hosts: SeparateHosts) -> None:
    done = hosts.run("ray down --yes cluster.yaml")
    assert done.returncode == 0, done.stdout[-4000:]
    for address in hosts.running:
        _until(partial(_runs_no, hosts, address, "raylet/raylet"), f"Ray has ended on {address}")
        _until(partial(_runs_no, hosts, address, SPOT), f"the watcher has ended on {address}")
    assert not hosts.processes(HEAD, "gcs_server")
