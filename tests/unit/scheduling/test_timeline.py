"""The picture of a night: each attempt once, inside its row, never on another one."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from rave_dist.scheduling.admission import Candidate, Host, Need
from rave_dist.scheduling.simulation import Faults, simulate
from rave_dist.scheduling.timeline import draw_timeline

SVG = "{http://www.w3.org/2000/svg}"
GPUS = [Host(name, cpus=64, gpus=2, gpu_bytes=80 << 30) for name in ("one", "two")]
CORES = [Host("<laptop>", cpus=4)]


def bars(picture: str) -> list[tuple[str, float, float, float, float]]:
    """The bars with a title: it, x, y, width, height."""
    root = ElementTree.fromstring(picture)
    rects = [rect for rect in root.iter(f"{SVG}rect") if rect.find(f"{SVG}title") is not None]
    return [
        (rect.findtext(f"{SVG}title") or "", *(float(rect.attrib[n]) for n in ("x", "y", "width", "height"))) for rect in rects
    ]


@pytest.mark.parametrize("hosts", [GPUS, CORES], ids=["GPUs", "CPUs"])
def test_every_attempt_has_a_bar_and_none_covers_another(hosts: list[Host]) -> None:
    runs = [
        Candidate(f"run & {n}", Need(gpu_bytes=(8, 20, 40)[n % 3] << 30 if hosts is GPUS else None), 600.0 + 100 * (n % 7))
        for n in range(40)
    ]
    spans = simulate(runs, hosts, faults=Faults(deaths={"run & 3": [300.0]}))
    picture = draw_timeline(spans, hosts, deadline=10_000)
    drawn = bars(picture)
    assert len({title for title, *_ in drawn}) == len(spans)
    assert len({title for title, *_ in drawn if "process died" in title}) == 1
    assert max(x + width for _, x, _, width, _ in drawn) < 1000
    assert max(y + height for _, _, y, _, height in drawn) <= 10 + 60 * len(hosts) * max(1, hosts[0].gpus), "below the last row"
    for n, (_, x, y, width, height) in enumerate(drawn):
        for _, x2, y2, width2, height2 in drawn[:n]:
            overlap = min(x + width, x2 + width2) - max(x, x2), min(y + height, y2 + height2) - max(y, y2)
            assert min(overlap) < 0.2, "two bars on each other"


def test_a_night_without_runs_is_a_picture_too() -> None:
    assert bars(draw_timeline([], GPUS)) == []
