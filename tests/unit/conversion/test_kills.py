"""A kill is a pause: whenever a conversion is killed, the same command ends with the bytes of one that never was."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from rave_dist.records import ModelCard
from rave_dist.storage.store import Store
from tests.fault_sweep import differences, tree

pytestmark = pytest.mark.slow

KILLS = 20
MODELS = {"frames": 16000, "mirror": 44100}
RECORDINGS = 9


class Commands:
    """Runs the same conversion again and again, in ``folder/now``."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.now = folder, folder / "now"
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", str(Path(__file__).with_name("kill_worker.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        )

    def run(self, *, finished: int = 1 << 30, moments: int = 0) -> tuple[int, int]:
        """The exit code, after a kill so many moments after so many entries, and the moments of a command without one."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        places = {name: str(self.now / name) for name in ("store", "output", "scratch")}
        given = {"recordings": str(self.folder / "recordings"), "models": list(MODELS), "root": str(self.now)}
        job = {**places, **given, "finished": finished, "moments": moments}
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        code, count = self.process.stdout.readline().split()
        return int(code), int(count)

    def close(self) -> None:
        with self.process:  # closes its pipes, which ends it, and waits
            pass


@pytest.fixture
def commands(tmp_path: Path, scripted: Callable[..., tuple[Path, ModelCard]]) -> Iterator[Commands]:
    """Recordings of several formats, one of them no sound, and two models in a store."""
    made, rng = Commands(tmp_path), np.random.default_rng(0)
    (tmp_path / "recordings" / "deep").mkdir(parents=True)
    for number in range(RECORDINGS - 1):
        rate, channels = [(16000, 1), (44100, 2), (8000, 1)][number % 3]
        path = tmp_path / "recordings" / ("deep" if number % 2 else "") / f"{number}.{['wav', 'flac'][number % 2]}"
        soundfile.write(path, rng.standard_normal((rate * (number + 4) // 4, channels)) * 0.1, rate)
    (tmp_path / "recordings" / "notes.wav").write_text("not a sound")
    (tmp_path / "begin" / "scratch").mkdir(parents=True)
    for kind, rate in MODELS.items():
        path, card = scripted(kind, sample_rate=rate)
        store = Store(str(tmp_path / "begin" / "store"))
        store.upload(path, card.files["offline"].key)
        store.write_json(f"{card.key}/card.json", card.to_json())
    yield made
    made.close()


def test_twenty_kills_at_random_moments_change_nothing(commands: Commands) -> None:
    begin, now, undisturbed = commands.folder / "begin", commands.now, commands.folder / "undisturbed"
    shutil.copytree(begin, now)
    code, count = commands.run()
    assert code == 0
    now.rename(undisturbed)
    assert len(list(undisturbed.glob("store/conversions/*/journal/*.json"))) == RECORDINGS * len(MODELS)
    assert len(list(undisturbed.glob("output/*/**/*.*"))) == (RECORDINGS - 1) * len(MODELS)

    shutil.copytree(begin, now)
    chance = random.Random(8)
    entries = sorted([*chance.sample(range(2 * RECORDINGS), k=KILLS - 4), 0, 0, 1, RECORDINGS])
    left: set[str] = set()
    for finished in entries:
        code, _ = commands.run(finished=finished, moments=chance.randrange(count // RECORDINGS))
        assert code == -signal.SIGKILL
        left |= {path.name for path in now.rglob("*")}
    assert commands.run()[0] == 0
    assert differences(tree(undisturbed), tree(now)) == []
    for place in ("store", "output"):
        assert _paths(now / place) == _paths(undisturbed / place), "temporary files are left"
    assert sum(path.stat().st_size for path in (now / "scratch").rglob("*") if path.is_file()) == 0
    # So that the test tests something: kills came while OUTPUT was tried, and while a file was written.
    assert {".write-check", ".partial"} <= {name.rpartition("-")[0] for name in left}


def _paths(folder: Path) -> set[Path]:
    return {path.relative_to(folder) for path in folder.rglob("*")}
