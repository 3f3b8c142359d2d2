"""The examples of the public functions that start Ray run: ingest, train, publish, run.

They share one folder: what an earlier example has trained, the next one finds finished.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import public_examples as examples
import pytest

import rave_dist as rd
from rave_dist.progress import Silent


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_models) -> Path:
    """What the examples use, with a published model."""
    folder = tmp_path_factory.mktemp("examples")
    examples.prepare(folder)
    tiny_models[0].publish(rd.Store(str(folder / "store")), "rebana")
    return folder


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("name", sorted(examples.NEED_RAY))
def test_the_example_runs(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert examples.run(name, folder)


@pytest.mark.usefixtures("ray_session")
def test_the_readmes_example_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"^```python\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    exec(program, names)
    assert names["outcome"].complete
    assert names["audio"].shape == (1, 44100)
    assert (folder / "converted" / "kingfisher.wav").is_file()


@pytest.mark.usefixtures("ray_session")
def test_python_is_silent_unless_asked(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    rd.ingest(folder / "library.yaml")
    rd.convert(folder / "store", "rebana", folder / "field", folder / "silent")
    assert capfd.readouterr() == ("", "")
    rd.ingest(folder / "library.yaml", progress=True)
    shown = capfd.readouterr()
    assert shown.out == ""
    assert "recordings" in shown.err


@pytest.mark.usefixtures("ray_session")
def test_reports_go_to_an_object_of_the_callers(folder: Path) -> None:
    class Told(Silent):
        def __init__(self) -> None:
            self.counts: list[tuple[int, int, str, str]] = []

        def advance(self, done: int, total: int, unit: str, *, name: str = "") -> None:
            self.counts.append((done, total, unit, name))

    told = Told()
    rd.ingest(rd.Library.load(folder / "library.yaml"), "rebana", progress=told)
    assert told.counts[-1] == (2, 2, "recordings", "rebana")
