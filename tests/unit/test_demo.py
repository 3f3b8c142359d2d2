import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from rave_dist import demo, sample_data
from rave_dist.cli import app
from rave_dist.errors import WrongPackageError
from rave_dist.library.manifest import load_library
from rave_dist.sample_data import prepare


def test_the_field_recording_is_stereo_noisy_and_calls_where_it_says(tmp_path: Path) -> None:
    path = demo.write_field_recording(tmp_path, seconds=15)
    sound, rate = soundfile.read(path, dtype="float32")
    assert (rate, sound.shape) == (48000, (15 * 48000, 2))
    calls = json.loads((tmp_path / "calls.json").read_text())
    assert len(calls) >= 2
    quiet = np.sqrt(np.mean(sound[: rate // 4] ** 2))
    assert 1e-3 < quiet < 0.02
    for call in calls:
        part = sound[round(call["start"] * rate) : round((call["start"] + call["seconds"]) * rate)]
        assert np.abs(part).max() == pytest.approx(call["peak"], abs=0.06)
    before = path.stat().st_mtime_ns
    assert demo.write_field_recording(tmp_path, seconds=15) == path
    assert path.stat().st_mtime_ns == before


def small(folder: Path, sha256: str) -> Path:
    """A folder of sample libraries as the project's own, but quick to make."""
    folder.mkdir()
    for name in ("sonic-pi", "generated"):
        (folder / f"{name}.yaml").write_text(f"name: {name}\nstore: s\ninstruments: {{a: {{sources: recordings/{name}/a}}}}\n")
    (folder / "sonic-pi.source.yaml").write_text(
        f"{{kind: debian, package: p, version: '1', sha256: '{sha256}', folder: f, copyright: c, licence: CC0}}"
    )
    (folder / "generated.source.yaml").write_text(
        "{kind: generated, seed: 1, sample_rate: 8000, licence: CC0, "
        "instruments: {a: {model: bell, frequency: 300, num_files: 1, seconds: 1}}}"
    )
    return folder


def test_without_apt_the_demo_synthesises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample_data, "SAMPLE_LIBRARIES", small(tmp_path / "datasets", "0" * 64))
    monkeypatch.setenv("PATH", str(tmp_path))
    library = demo.prepare_demo(None, tmp_path / "demo")
    assert library.name == "generated.yaml"
    assert (library.parent / "recordings/generated/a/a-01.flac").exists()


def test_a_package_that_is_not_the_one_described_stops_the_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample_data, "SAMPLE_LIBRARIES", small(tmp_path / "datasets", "0" * 64))

    def refuse(manifest: Path, folder: Path, **options: object) -> Path:
        if manifest.stem == "sonic-pi":
            raise WrongPackageError("the package's sha256 is 1, not 0")
        return prepare(manifest, folder)

    monkeypatch.setattr(demo, "prepare", refuse)
    with pytest.raises(WrongPackageError, match="sha256"):
        demo.prepare_demo(None, tmp_path / "demo")


@pytest.mark.slow
def test_the_command_prepares_a_sample_library_by_name(tmp_path: Path) -> None:
    """Also in a folder that is not the repository's: the sample libraries are part of the package."""
    answer = CliRunner().invoke(app, ["demo", "generated", "--prepare-only", "--folder", str(tmp_path / "first")])
    assert answer.exit_code == 0, answer.output
    assert answer.stdout.strip() == str(tmp_path / "first/generated.yaml")
    library = load_library(tmp_path / "first/generated.yaml")
    assert all(Path(library.sources(name)[0]).is_dir() for name in library.instruments)


def test_an_unknown_sample_library_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    answer = CliRunner().invoke(app, ["demo", "generatd", "--prepare-only", "--folder", str(tmp_path / "first")])
    assert answer.exit_code == 1
    assert "generated, sonic-pi" in answer.stderr
    assert not (tmp_path / "first").exists()


@pytest.mark.slow
def test_the_wheel_has_the_sample_libraries(tmp_path: Path) -> None:
    """By setuptools' own list of what goes into a wheel."""
    root = Path(demo.__file__).parents[1]
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copyfile(root / name, tmp_path / name)
    for name in ("rave_dist", "ray_jobs"):
        shutil.copytree(root / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    program = "import setuptools; setuptools.setup()"
    command = [sys.executable, "-c", program, "-q", "build_py", "--build-lib", str(tmp_path / "built")]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    built = tmp_path / "built/rave_dist"
    names = {path.name for path in (built / "sample_libraries").iterdir()}
    assert names == {path.name for path in sample_data.SAMPLE_LIBRARIES.iterdir()}
    assert (built / "reports/page.html").is_file()
