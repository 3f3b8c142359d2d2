"""The facts of a model are measured once for each configuration and machine, and a bad cache only costs time."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from rave_dist.options import Budget
from rave_dist.storage.cache import cache_folder
from rave_dist.storage.facts_cache import keep_facts, read_facts
from rave_dist.training.preflight.model_facts import measure_model
from tests.sample_records import training_spec

FACTS = {
    **{"parameters": 5, "latent_size": 8, "hop": 512, "receptive_field": [7, 9], "window_bytes": 11},
    **{"phase_1_seconds": 1.5, "phase_2_seconds": 2.5},
}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of this test alone."""
    monkeypatch.setenv("RAVE_DIST_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.slow
def test_facts_are_measured_once(cache: Path) -> None:
    measured = measure_model(training_spec())
    (entry,) = (path for path in cache.rglob("*") if path.is_file())
    kept = json.loads(entry.read_bytes())
    assert kept["parameters"] == measured.parameters
    # Whatever does not change the model or its step is the same entry; that it is read shows in a number that is changed there.
    entry.write_text(json.dumps({**kept, "parameters": 5}))
    again = measure_model(training_spec(instrument="harp", seed=3, budget=Budget(hours=2), batch=4))
    assert again.parameters == 5
    assert again.receptive_field == measured.receptive_field


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["", "{", '{"parameters": 5}', "[1]", "null"])
def test_a_damaged_entry_is_measured_again_and_replaced(cache: Path, damage: str) -> None:
    measured = measure_model(training_spec())
    (entry,) = (path for path in cache.rglob("*") if path.is_file())
    whole = json.loads(entry.read_bytes())
    entry.write_text(damage)
    assert measure_model(training_spec()) == measured  # this process has not forgotten what it measured
    assert json.loads(entry.read_bytes()) == whole


def test_another_model_is_another_entry(cache: Path) -> None:
    keep_facts({"config": ["v2"], "window": 65536}, FACTS)
    assert read_facts({"config": ["v2"], "window": 65536}) == FACTS
    assert read_facts({"config": ["v2"], "window": 131072}) is None
    assert read_facts({"config": ["v2", "causal"], "window": 65536}) is None


def test_a_cache_that_cannot_be_written_is_no_error(cache: Path) -> None:
    cache.write_text("a file where the folder would be")
    keep_facts({"config": ["v2"]}, FACTS)
    assert read_facts({"config": ["v2"]}) is None


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RAVE_DIST_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
    monkeypatch.delenv("RAVE_DIST_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "shared"))
    assert cache_folder() == tmp_path / "shared" / "rave-dist"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path(os.path.expanduser("~")) / ".cache" / "rave-dist"
