"""The examples in the docstrings of the public names run; those that start Ray are in tests/examples/test_examples.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import public_examples as examples
import pytest

import rave_dist as rd
from rave_dist.records import ModelCard

pytestmark = pytest.mark.slow

WITHOUT_RAY = [name for name, _ in examples.documented() if name not in examples.NEED_RAY and examples.examples(name)]


@pytest.mark.parametrize("name", WITHOUT_RAY)
def test_the_example_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, publish_tiny: Callable[..., ModelCard]
) -> None:
    examples.prepare(tmp_path)
    publish_tiny(rd.Store(str(tmp_path / "store")), "rebana")
    monkeypatch.chdir(tmp_path)
    assert examples.run(name, tmp_path)
