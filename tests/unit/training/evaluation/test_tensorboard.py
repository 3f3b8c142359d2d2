"""TensorBoard reads the events where they are: in a folder, and on S3 with the settings of the store."""

from __future__ import annotations

from pathlib import Path

import pytest
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer

from rave_dist.records import RunFolder
from rave_dist.storage.store import Store
from rave_dist.training.evaluation.metrics_log import MetricsLog

pytestmark = pytest.mark.slow


def test_the_runs_of_a_store_are_the_runs_of_tensorboard(any_store: Store, tmp_path: Path) -> None:
    for instrument in ("tabla", "bells"):
        (tmp_path / instrument).mkdir()
        with MetricsLog(any_store, RunFolder.of("band", instrument, "0123"), tmp_path / instrument) as log:
            log.train(1, 1, {"fullband_spectral_distance": 4.0}, steps=10)
            log.validation(10, 1, {"validation": 2.5, "validation/training": 2.0})
            log.sync(steps=10, phase_1_steps=5, window=4096, always=True)
    board = EventMultiplexer().AddRunsFromDirectory(any_store.address("runs"))
    board.Reload()
    assert set(board.Runs()) == {f"band/{instrument}/0123/events" for instrument in ("tabla", "bells")}
    (event,) = board.Tensors("band/bells/0123/events", "validation")
    assert (event.step, event.tensor_proto.float_val[0]) == (10, 2.5)
