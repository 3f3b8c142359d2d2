"""The wheel as ``make dist`` builds it, installed and used outside of the repository, without and with acids-rave."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile

from rave_dist import __version__
from rave_dist.rave.engine import INSTALL
from rave_dist.records import ModelCard
from rave_dist.storage.store import Store

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = Path(sysconfig.get_paths()["purelib"])
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def _is_engine(name: str) -> bool:
    return name == "rave" or name.startswith("acids_rave-")


@dataclass(frozen=True)
class Installed:
    """A virtual environment with the wheel in it; every other package is a link to the one that the tests use."""

    folder: Path

    @property
    def packages(self) -> Path:
        (found,) = self.folder.glob("lib/python*/site-packages")
        return found

    def link(self, wanted: Callable[[str], bool]) -> None:
        for package in PACKAGES.iterdir():
            if wanted(package.name) and not (self.packages / package.name).exists():
                (self.packages / package.name).symlink_to(package)

    def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """``rave-dist`` in the environment's parent folder, with nothing that leads to the repository."""
        command = [self.folder / "bin" / "rave-dist", *arguments]
        return subprocess.run(command, cwd=self.folder.parent, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The wheel without acids-rave."""
    folder = tmp_path_factory.mktemp("elsewhere")
    subprocess.run([sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT], check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    environment = Installed(folder / "venv")
    environment.link(lambda name: not (_is_engine(name) or "rave_dist" in name or name == "ray_jobs"))
    pip = [sys.executable, "-m", "pip", "--python", environment.folder / "bin" / "python", "install"]
    subprocess.run([*pip, "--quiet", "--no-deps", "--no-index", wheel], check=True, env=ENVIRONMENT)
    sound = 0.3 * np.sin(np.arange(44100 * 8) * 0.05)
    soundfile.write(folder / "tone.wav", sound, 44100)
    library = "name: band\nstore: ./store\ninstruments: {tone: {sources: [tone.wav], config: v2_tiny, budget: {steps: 4}}}\n"
    (folder / "library.yaml").write_text(library)
    return environment


def test_the_sample_libraries_are_in_the_wheel(installed: Installed, tmp_path: Path) -> None:
    prepared = installed.run("demo", "generated", "--prepare-only", "--folder", tmp_path / "first")
    assert prepared.returncode == 0, prepared.stderr
    assert prepared.stdout.strip() == str(tmp_path / "first" / "generated.yaml")
    assert len(list((tmp_path / "first" / "recordings").rglob("*.flac"))) == 40


def test_reading_commands_work_without_acids_rave(
    installed: Installed, publish_tiny: Callable[..., ModelCard], tmp_path: Path
) -> None:
    assert installed.run("--version").stdout.strip() == __version__
    store = Store(str(tmp_path / "store"))
    publish_tiny(store, "drums")
    listed = installed.run("models", "--store", store.uri)
    assert listed.returncode == 0, listed.stderr
    assert "drums" in listed.stdout


def test_without_acids_rave_a_library_is_refused_with_the_line_that_installs_it(installed: Installed) -> None:
    refused = installed.run("check", "library.yaml")
    assert refused.returncode == 3
    assert INSTALL in refused.stderr
    assert "Traceback" not in refused.stderr


def test_the_wheel_carries_the_sample_libraries(installed: Installed, tmp_path: Path) -> None:
    prepared = installed.run("demo", "generated", "--prepare-only", "--folder", tmp_path / "demo")
    assert prepared.returncode == 0, prepared.stderr
    assert Path(prepared.stdout.strip()).is_relative_to(tmp_path / "demo")
    assert Path(prepared.stdout.strip()).is_file()
    assert len(list((tmp_path / "demo").rglob("*.flac"))) == 40


def test_with_acids_rave_the_library_is_checked(installed: Installed) -> None:
    installed.link(_is_engine)
    checked = installed.run("check", "library.yaml")
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_line_names_the_version_that_is_tested() -> None:
    assert INSTALL.split()[-1] in (ROOT / "constraints.txt").read_text().splitlines()
