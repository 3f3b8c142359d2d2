"""Whatever a store does at a single operation, the same command ends with the same store: `tests/fault_sweep.py` tries all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import TinyModel
from tests.fault_sweep import Fault, Stage, Sweeper, differences, sweep, sweeper, tree, write_recordings
from tests.file_systems import exfat, missing_for_exfat

pytestmark = pytest.mark.slow


class Library:
    """The stages of a small library, each with the stores that it begins with, its faults and what it leaves."""

    def __init__(self, made: Sweeper, model: TinyModel) -> None:
        folder = made.folder
        self.made = made
        recordings = str(write_recordings(folder))
        out = folder / "out"
        shutil.copytree(model.out, out)
        (out / "further.bin").write_bytes(bytes(range(256)) * 40)
        (folder / "empty").mkdir()
        run = {"run": str(model.run)}
        self.stages = {
            "lease": Stage("lease", folder / "empty"),
            "ingest": Stage("ingest", folder / "empty", {"recordings": recordings}),
            "base": Stage("base", folder / "empty", run),
            "place": Stage("place", folder / "empty", {**run, "out": str(out)}),
            "train": Stage("train", folder / "after-ingest"),
            "convert": Stage("convert", folder / "after-place", {"recordings": recordings, "model": model.spec.instrument}),
        }
        self.faults: dict[str, list[Fault]] = {}

    def before(self, name: str) -> tuple[Stage, list[Fault], dict[str, str]]:
        """A stage, all faults that can strike it, and what it leaves without one."""
        stage, after = self.stages[name], self.made.folder / f"after-{name}"
        if name not in self.faults:
            if not stage.begins_with.exists():
                self.before(stage.begins_with.name.removeprefix("after-"))
            self.faults[name] = self.made.undisturbed(stage, after)
        return stage, self.faults[name], tree(after)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory, tiny_models: tuple[TinyModel, ...]) -> Iterator[Library]:
    folder = tmp_path_factory.mktemp("faults")
    with pytest.MonkeyPatch.context() as patch, sweeper(folder) as made:
        patch.setenv("FAULTY_STORES", str(folder))
        yield Library(made, tiny_models[0])


def writes_of(*ends: str, kinds: tuple[str, ...] = ("torn", "killed after", "refused")) -> Callable[[Fault], bool]:
    def chosen(fault: Fault) -> bool:
        is_write = fault.line.startswith(("write", "claim", "upload"))
        return is_write and fault.line.endswith(ends) and fault.kind in kinds and fault.number == 1

    return chosen


# Training and conversion have many operations: those of the markers, and of what they mark.
CHOSEN: dict[str, Callable[[Fault], bool]] = {
    "lease": lambda fault: True,
    "ingest": lambda fault: True,
    "base": lambda fault: True,
    "place": lambda fault: True,
    "convert": lambda fault: fault.kind != "refused after",
    "train": lambda fault: any(
        (
            writes_of("result.json", kinds=("torn",))(fault),
            writes_of("step-000000004.json", kinds=("torn", "refused after"))(fault),
            writes_of("step-000000004.pt", kinds=("torn", "killed after"))(fault),
            writes_of("weights.pt", kinds=("torn",))(fault),
            fault.line.startswith("write")
            and fault.line.endswith("record.json")
            and fault.number >= 2
            and fault.kind == "torn",
            fault.line.startswith("read") and "step-000000004.json" in fault.line and fault.kind == "missing",
            fault.line.startswith("delete") and "step-000000002.json" in fault.line and fault.kind == "killed after",
        )
    ),
}


EVERY = {"convert": 3}


@pytest.mark.parametrize("name", CHOSEN)
def test_a_rerun_after_any_fault_ends_with_the_same_store(name: str, library: Library) -> None:
    stage, faults, expected = library.before(name)
    chosen = [fault for fault in faults if CHOSEN[name](fault)][:: EVERY.get(name, 1)]
    assert len(chosen) >= 6
    problems = sweep(library.made, stage, chosen, expected)
    assert not problems, "\n".join(problems)


def test_the_comparison_sees_a_difference(library: Library) -> None:
    _, _, expected = library.before("place")
    folder = library.made.folder / "changed"
    shutil.copytree(library.made.folder / "after-place", folder)
    (card,) = folder.rglob("card.json")
    card.write_bytes(card.read_bytes().replace(b'"nobody"', b'"another"'))
    (weights,) = folder.rglob("tiny-0.ts")
    weights.unlink()
    said = differences(expected, tree(folder))
    assert [line.rpartition(" ")[2] for line in said] == ["missing", "differs"]


@pytest.mark.skipif(missing_for_exfat() != "", reason=missing_for_exfat() or "exFAT can be mounted")
def test_a_library_on_exfat_is_that_of_any_disk(library: Library, tmp_path: Path) -> None:
    with exfat(tmp_path, megabytes=128) as mounted:
        for name in ("ingest", "train", "place", "convert"):
            stage, _, expected = library.before(name)
            root = mounted / name
            shutil.copytree(stage.begins_with, root, copy_function=shutil.copyfile)
            assert library.made.run(stage, root) == 0, library.made.errors.read_text()[-2000:]
            for log in root.glob("*.log"):
                log.unlink()
            assert differences(expected, tree(root)) == []
            shutil.rmtree(root)
    assert os.listdir(tmp_path / "exfat") == []
