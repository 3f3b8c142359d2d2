"""The files of deploy/ for tools that Ray does not have the schema of, against those in the tools' own packages."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.deploy_schemas import CHECKS

pytestmark = pytest.mark.slow

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
PROGRAM = Path(__file__).with_name("deploy_schemas.py")
PACKAGES = (
    *("skypilot==0.14.1", "google-cloud-compute==1.57.0", "google-cloud-aiplatform==2.7.0"),
    *("kubernetes-validate==1.37.0", "jsonschema", "pyyaml"),
)

MISTAKES = {
    "gcp-spot.yaml": ("provisioningModel", "provisioningModle"),
    "kuberay-job.yaml": ("containers:", "contianers:"),
    "kuberay-service.yaml": ("containers:", "contianers:"),
    "skypilot.yaml": ("file_mounts", "file_monuts"),
    "vertex-custom-job.yaml": ("acceleratorCount", "acceleratorCuont"),
    "vertex-ray-cluster.json": ("raySpec", "raySpecs"),
}


def test_the_tools_own_schemas_take_the_files_and_refuse_a_misspelt_key(tmp_path: Path) -> None:
    uv, python = [sys.executable, "-m", "uv"], tmp_path / "environment" / "bin" / "python"
    subprocess.run([*uv, "venv", "--quiet", "--python", sys.executable, str(tmp_path / "environment")], check=True)
    subprocess.run([*uv, "pip", "install", "--quiet", "--python", str(python), *PACKAGES], check=True)
    for name, (right, wrong) in MISTAKES.items():
        text = (DEPLOY / name).read_text(encoding="utf-8")
        assert right in text
        (tmp_path / name).write_text(text.replace(right, wrong), encoding="utf-8")

    files = [str(folder / name) for name in CHECKS for folder in (DEPLOY, tmp_path)]
    said = json.loads(subprocess.check_output([python, PROGRAM, *files], text=True).splitlines()[-1])
    for name, (_, wrong) in MISTAKES.items():
        assert said[str(DEPLOY / name)] == ""
        assert wrong.strip(":") in said[str(tmp_path / name)]
    assert MISTAKES.keys() == CHECKS.keys()
