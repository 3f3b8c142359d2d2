"""A trial export is made once for each configuration on a machine; one that failed is made again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rave_dist.errors import VerificationError
from rave_dist.registry import export
from tests.sample_records import training_spec


@pytest.fixture
def exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The configurations that were exported, into a cache of this test alone; "broken" cannot be."""
    texts: list[str] = []

    def export_run(run: Path, out: Path, **_: Any) -> None:
        texts.append((run / "config.gin").read_text())
        if texts[-1] == "broken":
            raise VerificationError("it differs from its model")

    monkeypatch.setenv("RAVE_DIST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(export, "export_run", export_run)
    return texts


def _try(folder: Path, text: str, **spec: Any) -> None:
    run = folder / "run"
    run.mkdir(exist_ok=True)
    (run / "config.gin").write_text(text)
    (run / "spec.json").write_text(training_spec(**spec).model_dump_json())
    export.try_export(run, folder / "out")


def test_each_configuration_is_exported_once(exported: list[str], tmp_path: Path) -> None:
    _try(tmp_path, "a")
    _try(tmp_path, "a", instrument="another", seed=9)
    assert exported == ["a"]
    _try(tmp_path, "b")
    _try(tmp_path, "a", channels=2)
    assert exported == ["a", "b", "a"]


def test_what_could_not_be_exported_is_tried_again(exported: list[str], tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(VerificationError, match="differs"):
            _try(tmp_path, "broken")
    assert exported == ["broken", "broken"]
