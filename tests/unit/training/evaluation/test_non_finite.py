"""The step that made a value that is not finite is named exactly, whenever it is looked for."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from rave_dist.dataset.read import Segment
from rave_dist.records import WindowSource
from rave_dist.storage.store import Store
from rave_dist.training.evaluation.non_finite import NonFiniteMonitor, NotFinite, describe_windows
from tests.sample_records import dataset_manifest, source_record, training_spec

CPU = torch.device("cpu")
SPEC = training_spec(sample_rate=1000)


def _loss(value: float) -> dict[str, torch.Tensor]:
    return {"a": torch.tensor(value), "b": torch.tensor(1.0)}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["loss", "weight"])
@pytest.mark.parametrize("looks", [(), (3, 6)])
def test_the_first_bad_step_is_named_with_its_batch(value: float, where: str, looks: tuple[int, ...]) -> None:
    weight = torch.nn.Parameter(torch.zeros(4))
    monitor = NonFiniteMonitor([torch.nn.Parameter(torch.ones(2)), weight], CPU)
    for step in range(20):
        if step == 7 and where == "weight":
            with torch.no_grad():
                weight[2] = value
        monitor.record(step, _loss(value if step == 7 and where == "loss" else 2.0), [(step, 10 * step)])
        if step in looks:
            monitor.raise_if_bad()
    with pytest.raises(NotFinite) as caught:
        monitor.drain()
    assert caught.value.step == 7
    assert caught.value.places == [(7, 70)]


def test_large_values_are_finite() -> None:
    monitor = NonFiniteMonitor([torch.nn.Parameter(torch.full((3,), 1e18))], CPU)
    monitor.record(0, {"a": torch.tensor(3e38), "b": torch.tensor(3e38)}, [])
    assert monitor.drain() == pytest.approx({"a": 3e38, "b": 3e38})
    assert monitor.drain() == {}


def test_windows_are_told_by_recording_and_second(local_store: Store) -> None:
    silence = np.zeros((1, 5000), np.int16)
    segments = [Segment("first", 0, silence[:, :0]), Segment("first", 2000, silence), Segment("second", 0, silence[:, :100])]
    places = [(0, 500), (1, -300)]
    assert describe_windows(local_store, SPEC, segments, places) == [
        WindowSource(source="first", sample=2500, seconds=2.5),
        WindowSource(source="second", sample=0, seconds=0.0),
    ]

    source = source_record(source="/recordings/first take.wav", source_id="first", sample_rate=1000)
    manifest = dataset_manifest(id=SPEC.dataset, instrument=SPEC.instrument, sample_rate=1000, sources=(source,))
    manifest.save(local_store, manifest.folder.manifest)
    assert [w.source for w in describe_windows(local_store, SPEC, segments, places)] == [
        "/recordings/first take.wav",
        "second",
    ]
