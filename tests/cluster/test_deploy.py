"""The files of deploy/: structure, and the schemas that Ray, botocore and nbformat have; others in `test_deploy_schemas`."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import botocore.session
import jsonschema
import nbformat
import pytest
import ray
import typer
import yaml
from botocore.validate import ParamValidator
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.serve._private.api import call_user_app_builder_with_args_if_necessary
from ray.serve.schema import ServeDeploySchema

from rave_dist.cli import app
from rave_dist.exit_codes import FAILED
from rave_dist.library.manifest import load_library
from rave_dist.serving.app import build_from

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
LAUNCHED = ("aws-spot.yaml", "gcp-spot.yaml")
KUBERNETES = ("kuberay-job.yaml", "kuberay-service.yaml")


def _text(name: str) -> str:
    return (DEPLOY / name).read_text(encoding="utf-8")


def _read(name: str) -> dict[str, Any]:
    value = yaml.safe_load((ROOT / name if name == "cluster.yaml" else DEPLOY / name).read_text(encoding="utf-8"))
    assert isinstance(value, dict)
    return value


def _cluster_spec(name: str) -> dict[str, Any]:
    spec = _read(name)["spec"]
    cluster: dict[str, Any] = spec["rayClusterSpec"] if name == "kuberay-job.yaml" else spec["rayClusterConfig"]
    return cluster


def _pods(name: str) -> list[dict[str, Any]]:
    cluster = _cluster_spec(name)
    return [group["template"]["spec"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]


def test_every_file_says_when_what_it_costs_and_how_it_fails() -> None:
    files = {path.name for path in DEPLOY.iterdir()} - {"README.md", "Dockerfile.dockerignore"}
    for name in files:
        text = _text("README.md" if name.endswith(".json") else name)
        for word in ("When:", "To try:", "Failure:"):
            assert re.search(rf"^(# |- | +\"\*\*){word}", text, re.MULTILINE), f"{name}: {word}"
    named = _text("README.md").partition("## How far")[2]
    assert {name for name in files if f"`{name}`" not in named} == set()


@pytest.mark.parametrize("name", LAUNCHED)
def test_rays_launcher_takes_them_and_refuses_what_is_misspelt(name: str) -> None:
    validate_config(prepare_config(_read(name)))
    with pytest.raises(jsonschema.ValidationError):
        validate_config(prepare_config({**_read(name), "max_worker": 1}))


@pytest.mark.parametrize("name", LAUNCHED)
def test_nodes_are_set_up_and_started_as_in_the_file_that_was_tried(name: str) -> None:
    shared = ("file_mounts", "rsync_exclude", "setup_commands", "head_start_ray_commands", "worker_start_ray_commands")
    assert {key: _read(name)[key] for key in shared} == {key: _read("cluster.yaml")[key] for key in shared}


@pytest.mark.parametrize("name", LAUNCHED)
def test_the_number_of_workers_is_fixed(name: str) -> None:
    """A waiting run asks Ray for nothing, so that an autoscaler never starts a host for it."""
    config = _read(name)
    worker = config["available_node_types"]["worker"]
    assert worker["min_workers"] == worker["max_workers"] == config["max_workers"]


def test_only_workers_are_spot_hosts() -> None:
    aws, gcp = (_read(name)["available_node_types"] for name in LAUNCHED)
    assert aws["worker"]["node_config"]["InstanceMarketOptions"]["MarketType"] == "spot"
    assert "InstanceMarketOptions" not in aws["head"]["node_config"]
    assert gcp["worker"]["node_config"]["scheduling"]["provisioningModel"] == "SPOT"
    assert "scheduling" not in gcp["head"]["node_config"]


def _ec2_problems(node_config: dict[str, Any]) -> str:
    shape = botocore.session.get_session().get_service_model("ec2").operation_model("RunInstances").input_shape
    report: str = ParamValidator().validate({**node_config, "MinCount": 1, "MaxCount": 1}, shape).generate_report()
    return report


def test_ec2_knows_every_parameter_of_the_aws_nodes() -> None:
    for node_type in _read("aws-spot.yaml")["available_node_types"].values():
        assert _ec2_problems(node_type["node_config"]) == ""
        assert 'Unknown parameter in input: "Instancetype"' in _ec2_problems({**node_type["node_config"], "Instancetype": "x"})


@pytest.mark.parametrize("name", KUBERNETES)
def test_pods_have_the_image_the_store_and_the_token(name: str) -> None:
    cluster = _cluster_spec(name)
    assert cluster["rayVersion"] == ray.__version__
    assert cluster["authOptions"] == {"mode": "token"}
    for pod in _pods(name):
        (container,) = pod["containers"]
        assert container["image"] == "example/rave-dist:1"
        assert container["envFrom"] == [{"secretRef": {"name": "rave-dist-store"}}]
        assert container["resources"]["limits"] == container["resources"]["requests"]


def test_a_training_pod_drains_before_it_is_killed() -> None:
    pod = _pods("kuberay-job.yaml")[1]
    (drain,) = pod["containers"][0]["env"]
    assert drain["name"] == "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"
    assert hasattr(ray._private.ray_constants, drain["name"])
    assert float(drain["value"]) < pod["terminationGracePeriodSeconds"]


def test_the_job_runs_a_library_and_ends_with_its_cluster() -> None:
    spec = _read("kuberay-job.yaml")["spec"]
    python, _, module, library = spec["entrypoint"].split()
    assert (python, library) == ("python", "/library/library.yaml")
    assert (ROOT / f"{module.replace('.', '/')}.py").is_file()
    assert spec["shutdownAfterJobFinishes"] is True
    assert spec["activeDeadlineSeconds"] > 0


def test_the_service_is_one_that_serve_builds() -> None:
    config = ServeDeploySchema.model_validate(yaml.safe_load(_read("kuberay-service.yaml")["spec"]["serveConfigV2"]))
    (application,) = config.applications
    assert application.import_path == f"{build_from.__module__}:{build_from.__name__}"
    built = call_user_app_builder_with_args_if_necessary(build_from, application.args)
    assert built._bound_deployment.name == "ingress"
    with pytest.raises(TypeError, match="num_gpu"):
        call_user_app_builder_with_args_if_necessary(build_from, {**application.args, "num_gpu": 1})


def test_the_image_is_pinned_and_has_what_it_copies() -> None:
    text = _text("Dockerfile")
    assert re.findall(r"^FROM (.+)$", text, re.MULTILINE) == ["nvidia/cuda:13.0.1-base-ubuntu24.04"]
    assert re.findall(r"^COPY (.+)$", text, re.MULTILINE) == [". /opt/rave-dist"]
    (program,) = re.findall(r"python3 /opt/rave-dist/(\S+)", text)
    assert (ROOT / program).is_file()
    assert "TORCH=cu130" in text  # as the base


def test_docker_builds_the_image() -> None:
    if shutil.which("docker") is None or subprocess.run(["docker", "info"], capture_output=True, check=False).returncode:
        warnings.warn("deploy/Dockerfile was NOT built: docker does not run here", stacklevel=1)
        pytest.skip("docker does not run here")
    command = ["docker", "build", "--file", str(DEPLOY / "Dockerfile"), str(ROOT)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr[-4000:]


def test_sky_falls_over_between_regions_and_clouds() -> None:
    task = _read("skypilot.yaml")
    resources = task["resources"]
    assert len({choice["infra"] for choice in resources["any_of"]}) >= 3
    assert all("/" not in choice["infra"] for choice in resources["any_of"])  # a region would rule out the others
    assert resources["job_recovery"]["strategy"] == "EAGER_NEXT_REGION"
    assert resources["use_spot"] is True
    assert (ROOT / task["setup"].split()[1]).is_file()
    assert set(task["secrets"]) == {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"}
    assert set(task["secrets"].values()) == {None}


def test_vertex_machines_have_cards_and_the_image() -> None:
    job = _read("vertex-custom-job.yaml")
    (pool,) = job["workerPoolSpecs"]
    assert pool["machineSpec"]["acceleratorCount"] >= 1
    assert job["scheduling"]["strategy"] == "SPOT"
    cluster = json.loads(_text("vertex-ray-cluster.json"))
    pools = {pool["id"] for pool in cluster["resourcePools"]}
    spec = cluster["resourceRuntimeSpec"]["raySpec"]
    assert set(spec["resourcePoolImages"]) == pools
    assert spec["headNodeResourcePoolId"] in pools


@pytest.mark.parametrize(
    ("limit", "code", "reason"),
    [("10m", FAILED, "failed; the reason is above"), ("0.1s", 124, "the limit of 0.1s was reached")],
)
def test_a_vertex_job_ends_with_its_reason(limit: str, code: int, reason: str, tmp_path: Path) -> None:
    (pool,) = _read("vertex-custom-job.yaml")["workerPoolSpecs"]
    container = pool["containerSpec"]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "LIBRARY": str(tmp_path / "library.yaml"), "LIMIT": limit}
    command = [*container["command"], *container["args"]]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == code
    assert ended.stdout.splitlines()[-1].startswith(f"rave-dist ended with exit code {code}: {reason}")
    assert set(re.findall(r"\$([A-Z]+)", container["args"][0])) <= {entry["name"] for entry in container["env"]}


def test_the_notebook_is_one_and_its_manifest_and_commands_exist(tmp_path: Path) -> None:
    notebook = nbformat.read(DEPLOY / "colab_t4.ipynb", as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata["accelerator"] == "GPU"
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    for source in code:
        compile("\n".join("" if line.startswith("!") else line for line in source.splitlines()), "cell", "exec")
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    used = re.findall(r"^!rave-dist (\w+)", "\n".join(code), re.MULTILINE)
    assert used == ["check", "run", "models"]
    assert set(used) <= set(commands)
    (tmp_path / "recordings" / "rebana").mkdir(parents=True)
    (cell,) = (source for source in code if "manifest = " in source)
    exec(cell, {"FOLDER": str(tmp_path), "STORE": str(tmp_path / "store"), "HOURS": 4})
    library = load_library(tmp_path / "library.yaml")
    assert list(library.instruments) == ["rebana"]
