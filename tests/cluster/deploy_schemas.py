"""Checks files of deploy/ against the schemas in their tools' own packages: ``python deploy_schemas.py FILE...``.

A program, for an environment of its own, because the requirements of these packages exclude those of rave-dist. Prints a JSON
object: what each tool says of each file.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml


def _sky(document: dict[str, Any]) -> None:
    import jsonschema
    from sky.utils.schemas import get_task_schema

    jsonschema.validate(document, get_task_schema())


def _kubernetes(document: dict[str, Any]) -> None:
    """The pods of all groups; the fields around them are in no package."""
    import kubernetes_validate

    spec = document["spec"]
    cluster = spec.get("rayClusterSpec") or spec["rayClusterConfig"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        template = group["template"]
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": template.get("metadata") or {"name": "pod"},
            "spec": template["spec"],
        }
        kubernetes_validate.validate(pod, "1.37", strict=True)


def _google(document: dict[str, Any], message: Any) -> None:
    from google.protobuf.json_format import ParseDict

    ParseDict(document, message.pb(message()))


def _compute_engine(document: dict[str, Any]) -> None:
    from google.cloud.compute_v1 import Instance

    for node in document["available_node_types"].values():
        _google(node["node_config"], Instance)


def _vertex_job(document: dict[str, Any]) -> None:
    from google.cloud.aiplatform_v1.types import CustomJobSpec

    _google(document, CustomJobSpec)


def _vertex_cluster(document: dict[str, Any]) -> None:
    from google.cloud.aiplatform_v1.types import PersistentResource

    _google(document, PersistentResource)


CHECKS: dict[str, Callable[[dict[str, Any]], None]] = {
    "gcp-spot.yaml": _compute_engine,
    "kuberay-job.yaml": _kubernetes,
    "kuberay-service.yaml": _kubernetes,
    "skypilot.yaml": _sky,
    "vertex-custom-job.yaml": _vertex_job,
    "vertex-ray-cluster.json": _vertex_cluster,
}


def said(file: Path) -> str:
    """The tool's error; empty if it takes the file."""
    content = file.read_text(encoding="utf-8")
    try:
        CHECKS[file.name](json.loads(content) if file.suffix == ".json" else yaml.safe_load(content))
    except Exception as error:  # noqa: BLE001 (each tool has its own)
        return f"{type(error).__name__}: {error}"
    return ""


if __name__ == "__main__":
    print(json.dumps({path: said(Path(path)) for path in sys.argv[1:]}))
