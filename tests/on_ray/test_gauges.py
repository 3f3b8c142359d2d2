"""What Prometheus collects of the runs, from Ray's own endpoint; and what the dashboard asks for."""

from __future__ import annotations

import json
import re
import time
import urllib.request
from pathlib import Path

import pytest
import ray

from rave_dist.records import Validation
from rave_dist.training.gauges import NAMES, Gauges
from tests.sample_records import run_record

DASHBOARD = Path(__file__).parents[2] / "deploy" / "grafana.json"
OF_RAY = {"ray_node_gpus_utilization"}


def collected() -> dict[tuple[str, str, str], float]:
    """The values of our metrics by name, instrument and state."""
    (node,) = ray.nodes()
    address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    with urllib.request.urlopen(address, timeout=30) as answer:
        text = answer.read().decode()
    found = {}
    for name, labels, value in re.findall(r"^(ray_rave_dist_\w+)\{(.*)\} (\S+)$", text, re.MULTILINE):
        label = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        found[name, label["instrument"], label.get("state", "")] = float(value)
    return found


@pytest.mark.usefixtures("ray_session")
def test_ray_exports_the_runs() -> None:
    gauges = Gauges()
    running = {"state": "running", "step": 30, "steps": 120, "seconds": 7.5, "steps_per_second": 4.0}
    records = [
        run_record(instrument="tabla", **running, validation=Validation(first=9.0, best=2.5, last=3.5)),
        run_record(instrument="rebana", state="failed", retries=3),
    ]
    gauges.set([record.model_copy(update={"state": "waiting"}) for record in records])
    gauges.set(records)
    deadline = time.monotonic() + 120
    while not (found := collected()).get(("ray_rave_dist_state", "rebana", "failed")):
        assert time.monotonic() < deadline, found
        time.sleep(1)
    assert {name for name, *_ in found} == set(NAMES)
    of_tabla = {
        name.removeprefix("ray_rave_dist_"): value
        for (name, who, state), value in found.items()
        if who == "tabla" and not state
    }
    assert of_tabla == {
        **{"step": 30, "steps": 120, "phase": 1, "held_out_distance": 3.5, "steps_per_second": 4.0},
        **{"training_seconds": 7.5, "retries": 0},
    }
    assert ("ray_rave_dist_held_out_distance", "rebana", "") not in found
    states = {(who, state): value for (name, who, state), value in found.items() if name == "ray_rave_dist_state"}
    assert {key for key, value in states.items() if value} == {("tabla", "running"), ("rebana", "failed")}


def test_the_dashboard_asks_for_what_is_exported() -> None:
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    asked = {
        name for panel in dashboard["panels"] for each in panel["targets"] for name in re.findall(r"ray_\w+", each["expr"])
    }
    assert asked == {*NAMES, *OF_RAY}
    import ray.dashboard.modules.metrics.dashboards.default_dashboard_panels as panels

    assert all(name in Path(panels.__file__).read_text(encoding="utf-8") for name in OF_RAY)
