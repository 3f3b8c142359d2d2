"""cluster.yaml is what Ray's launcher takes, and guards what it must: the token on every node, the dashboard on loopback."""

from __future__ import annotations

import importlib.util
import re
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def written() -> dict[str, Any]:
    value = yaml.safe_load((ROOT / "cluster.yaml").read_text(encoding="utf-8"))
    assert isinstance(value, dict)
    return value


def _starts(config: dict[str, Any]) -> list[str]:
    """The two commands that start Ray: on the head, on a worker."""
    commands = [*config["head_start_ray_commands"], *config["worker_start_ray_commands"]]
    return [command for command in commands if "ray start" in command]


def test_rays_own_launcher_takes_it(written: dict[str, Any]) -> None:
    config = prepare_config(written)
    validate_config(config)
    (node_type,) = config["available_node_types"].values()
    assert node_type["min_workers"] == node_type["max_workers"] == len(written["provider"]["worker_ips"])


def test_the_schema_refuses_what_is_misspelt(written: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        validate_config(prepare_config({**written, "head_start_ray_command": []}))


def test_only_what_the_repository_has_is_copied(written: dict[str, Any], tmp_path: Path) -> None:
    """An environment has gigabytes, and there may be several."""
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").split()
    for name in (".git", ".venv", *(pattern.strip("/").replace("*", "x") for pattern in ignored if pattern != "*.pyc")):
        for folder in (tmp_path, tmp_path / "rave_dist"):
            (folder / name).mkdir(parents=True)
            (folder / name / "file").touch()
    excluded = [f"--exclude={pattern}" for pattern in written["rsync_exclude"]]
    listed = subprocess.run(
        ["rsync", "--recursive", "--dry-run", "--out-format=%n", *excluded, f"{tmp_path}/", f"{tmp_path}/copy"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    # A folder of that name in the package is not the one that a command makes.
    inside = {f"rave_dist/{name}/file" for name in ("demo", "store", "build", "dist")}
    assert {name for name in listed if name.endswith("/file")} == inside


def test_every_node_demands_the_token(written: dict[str, Any]) -> None:
    head, worker = _starts(written)
    for command in (head, worker):
        assert "RAY_AUTH_MODE=token" in command
        assert "RAY_AUTH_TOKEN_PATH=$HOME/.ray/auth_token" in command
    assert written["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"


def test_the_dashboard_listens_on_loopback(written: dict[str, Any]) -> None:
    head, worker = _starts(written)
    assert "--dashboard-host=127.0.0.1" in head
    assert "--include-dashboard=false" not in head.lower()
    assert "--dashboard-host" not in worker


def test_nodes_say_their_role(written: dict[str, Any]) -> None:
    head, worker = _starts(written)
    assert "--labels=role=head" in head
    assert "--labels=role=worker" in worker


def test_the_head_starts_the_workers(written: dict[str, Any]) -> None:
    head, _ = _starts(written)
    assert "RAY_enable_autoscaler_v2=0" in head  # the second one leaves a local provider's workers unstarted
    assert "--autoscaling-config=~/ray_bootstrap_config.yaml" in head


def test_workers_start_the_watcher_after_ray(written: dict[str, Any]) -> None:
    commands = written["worker_start_ray_commands"]
    assert "ray start" in commands[-2]
    assert " -m rave_dist.cluster.spot" in commands[-1]
    assert importlib.util.find_spec("rave_dist.cluster.spot") is not None
    assert "RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$HOME/.ray/auth_token" in commands[-1]
    assert "spot" not in " ".join(written["head_start_ray_commands"])


def test_options_exist_in_this_ray(written: dict[str, Any]) -> None:
    from ray.scripts.scripts import start

    known = {option for parameter in start.params for option in parameter.opts}
    for command in _starts(written):
        assert set(re.findall(r"(?<=\s)--[a-z-]+", command.partition("ray start")[2])) <= known


def test_nodes_install_the_pinned_versions(written: dict[str, Any]) -> None:
    (install,) = (command for command in written["setup_commands"] if "install" in command)
    program, folder = install.removeprefix("python3 ").split()
    assert (ROOT / program.removeprefix("~/rave-dist/")).is_file()
    assert all(
        commands[0] == f"{folder}/bin/ray stop"
        for commands in (written["head_start_ray_commands"], written["worker_start_ray_commands"])
    )
    assert "constraints.txt" in (ROOT / "tools" / "install.py").read_text(encoding="utf-8")


def test_ray_down_finds_ray_on_the_head(written: dict[str, Any], tmp_path: Path) -> None:
    """Ray runs `ray stop` there in a shell that reads ``~/.bashrc``, and continues if there is no such program."""
    programs = tmp_path / "rave-dist" / ".venv" / "bin"
    programs.mkdir(parents=True)
    (programs / "ray").symlink_to("/bin/true")
    environment = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    for _ in range(2):
        subprocess.run(["bash", "-c", written["setup_commands"][-1]], env=environment, check=True)
    assert (tmp_path / ".bashrc").read_text().count("PATH=") == 1
    subprocess.run(["bash", "-c", "source ~/.bashrc; ray stop"], env=environment, check=True)


def test_ports_are_those_that_the_document_opens(written: dict[str, Any]) -> None:
    document = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
    for command in _starts(written):
        for port in re.findall(r"-port=(\d+)", command):
            assert port in document, f"docs/cluster.md does not speak of port {port}"
