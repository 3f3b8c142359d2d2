"""Sample recordings for a first library: downloaded from a Debian package without root, or synthesised.

The sample libraries are part of the package (``sample_libraries/``). Next to a manifest ``NAME.yaml`` is ``NAME.source.yaml``
with the origin, licence and checksum of its recordings. `prepare` writes recordings and manifest to a folder for
``rave-dist run``.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import yaml
from pydantic import Field, TypeAdapter, ValidationError

from rave_dist.audio import synthesis
from rave_dist.audio.io.write import AudioWriter
from rave_dist.audio.types import Audio
from rave_dist.errors import LibraryError, WrongPackageError, from_os_error
from rave_dist.identity import content_id, hash_file
from rave_dist.options import StrictRecord
from rave_dist.storage.atomic import replacing_folder
from rave_dist.temporary import temporary_folder

SAMPLE_LIBRARIES = Path(__file__).parent / "sample_libraries"
_APT_SECONDS = 300
_WITHOUT_APT = "use the generated sample library: rave-dist demo generated"


class DebianPackage(StrictRecord):
    """Recordings in a Debian package: ``folder`` is the path inside it, ``copyright`` that of its licence file."""

    kind: Literal["debian"]
    package: str
    version: str
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    folder: str
    copyright: str
    licence: str
    homepage: str = ""


class Ensemble(StrictRecord):
    """One synthesised instrument: ``num_files`` phrases of ``seconds`` around ``frequency`` Hz."""

    model: Literal["plucked_string", "membrane", "bell", "blown_pipe"]
    frequency: float = Field(gt=0)
    num_files: int = Field(ge=1)
    seconds: float = Field(gt=0)


class Generated(StrictRecord):
    """Synthesised recordings (`rave_dist.audio.synthesis`), reproducible from the seed."""

    kind: Literal["generated"]
    seed: int
    sample_rate: int
    licence: str
    instruments: dict[str, Ensemble]


Source = Annotated[DebianPackage | Generated, Field(discriminator="kind")]
_SOURCE: TypeAdapter[DebianPackage | Generated] = TypeAdapter(Source)

Note = Callable[[float, float, np.random.Generator], Audio]


def sample_library(name: str) -> Path:
    """The manifest of a sample library by its name, or another manifest by its path.

    Raises:
        LibraryError: neither.
    """
    known = sorted(path.stem for path in SAMPLE_LIBRARIES.glob("*.yaml") if not path.name.endswith(".source.yaml"))
    if name in known:
        return SAMPLE_LIBRARIES / f"{name}.yaml"
    if not Path(name).is_file():
        raise LibraryError(
            "there is no such sample library", where=name, fix=f"one of: {', '.join(known)}; or a manifest's path"
        )
    return Path(name)


def load_source(path: Path) -> DebianPackage | Generated:
    """Reads a ``NAME.source.yaml``.

    Raises:
        LibraryError: unreadable or invalid.
    """
    try:
        return _SOURCE.validate_python(yaml.safe_load(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise from_os_error(error, where=str(path)) from error
    except (ValidationError, yaml.YAMLError) as error:
        raise LibraryError(f"not a description of sample recordings: {error}", where=str(path)) from error


def prepare(manifest: Path, folder: Path, *, tell: Callable[[str], None] = lambda message: None) -> Path:
    """Writes a sample library to a folder: its manifest and, in ``recordings/NAME/``, its recordings.

    Existing files are kept. Returns the manifest's new path.

    Raises:
        LibraryError: the recordings cannot be downloaded or differ from their description.
        StoreError: the folder cannot be written.
    """
    name = manifest.stem
    source = load_source(manifest.with_name(f"{name}.source.yaml"))
    recordings = folder / "recordings" / name
    marker = recordings / ".complete"
    identity = content_id(source.model_dump(mode="json"))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not (marker.is_file() and marker.read_text(encoding="utf-8") == identity):
            with replacing_folder(recordings) as temporary:
                if isinstance(source, DebianPackage):
                    tell(f"fetching the Debian package {source.package} {source.version}")
                    fetch(source, temporary)
                else:
                    tell(f"synthesising recordings of {', '.join(source.instruments)}")
                    generate(source, temporary)
                (temporary / marker.name).write_text(identity, encoding="utf-8")
        placed = folder / manifest.name
        if not placed.exists():
            shutil.copyfile(manifest, placed)
        return placed
    except OSError as error:
        if isinstance(error, LibraryError):
            raise
        raise from_os_error(error, where=error.filename or str(folder)) from error


def fetch(source: DebianPackage, folder: Path) -> None:
    """Downloads a package without root, checks it, and copies its recordings and its copyright file to a folder.

    Raises:
        LibraryError: apt is missing, or the version is not available.
        WrongPackageError: the sha256 differs.
    """
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise LibraryError(f"this machine has no {tool}", where=source.package, fix=_WITHOUT_APT)
    with temporary_folder("package") as temporary:
        work = Path(temporary)
        package = _download(source, work)
        found = hash_file(package)
        if found != source.sha256:
            raise WrongPackageError(
                f"the package's sha256 is {found}, not {source.sha256}",
                where=f"{source.package} {source.version}",
                fix="do not use it; check the package mirror of this machine",
            )
        _run(["dpkg-deb", "-x", str(package), str(work / "content")], work)
        shutil.copytree(work / "content" / source.folder, folder)
        shutil.copyfile(work / "content" / source.copyright, folder / "COPYRIGHT")


def _download(source: DebianPackage, work: Path) -> Path:
    wanted = f"{source.package}={source.version}"
    attempt = _run(["apt-get", "download", wanted], work, check=False)
    if attempt.returncode != 0:
        # Slim images have no package lists, and only root may write the system's: use separate ones.
        lists = work / "lists"
        (lists / "partial").mkdir(parents=True)
        options = {"Dir::State::Lists": lists, "Dir::Cache": work / "cache", "Debug::NoLocking": "1", "APT::Sandbox::User": ""}
        private = [part for key, value in options.items() for part in ("-o", f"{key}={value}")]
        _run(["apt-get", *private, "update"], work, check=False)
        attempt = _run(["apt-get", *private, "download", wanted], work, check=False)
    packages = sorted(work.glob("*.deb"))
    if not packages:
        raise LibraryError(
            f"apt-get cannot download it: {_last_line(attempt.stderr)}",
            where=wanted,
            fix=f"run apt-get update as root, or {_WITHOUT_APT}",
        )
    return packages[0]


def _run(command: list[str], folder: Path, *, check: bool = True) -> subprocess.CompletedProcess[str]:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_APT_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise LibraryError(f"no response within {_APT_SECONDS} s", where=" ".join(command), fix=_WITHOUT_APT) from error
    if check and done.returncode != 0:
        raise LibraryError(f"failed: {_last_line(done.stderr)}", where=" ".join(command))
    return done


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else "no reason given"


def generate(source: Generated, folder: Path) -> None:
    """Writes every synthesised instrument as FLAC to a folder of its name, and its notes as JSON."""
    for name, ensemble in source.instruments.items():
        notes = []
        for number in range(ensemble.num_files):
            rng = np.random.default_rng([source.seed, *name.encode(), number])
            sound, played = phrase(ensemble, sample_rate=source.sample_rate, rng=rng)
            path = folder / name / f"{name}-{number + 1:02d}.flac"
            with AudioWriter(path, sample_rate=source.sample_rate, channels=1, subtype="PCM_16") as writer:
                writer.write(sound[None])
            notes.append({"file": path.name, "notes": played})
        (folder / name / "notes.json").write_text(json.dumps(notes, indent=1) + "\n", encoding="utf-8")


def phrase(ensemble: Ensemble, *, sample_rate: int, rng: np.random.Generator) -> tuple[Audio, list[dict[str, float]]]:
    """Notes of a pentatonic scale in an irregular rhythm, over room noise (pink noise at -70 dBFS).

    Output: [seconds · sample_rate] with a peak of 0.8, and each note's start in seconds and frequency in Hz.
    """
    play = _NOTES[ensemble.model]
    sound = np.zeros(round(ensemble.seconds * sample_rate), dtype=np.float32)
    played: list[dict[str, float]] = []
    start = 0.05
    while start < ensemble.seconds - 0.3:
        frequency = ensemble.frequency * 2 ** (float(rng.choice([0, 2, 4, 7, 9, 12])) / 12)
        length = float(rng.uniform(0.5, 1.6))
        note = play(frequency, length, sample_rate=sample_rate, rng=rng) * np.float32(rng.uniform(0.3, 1))
        first = round(start * sample_rate)
        note = note[: len(sound) - first]
        sound[first : first + len(note)] += note
        played.append({"start": round(first / sample_rate, 4), "frequency": round(frequency, 2)})
        start += float(rng.uniform(0.18, 0.7))
    sound *= np.float32(0.8) / np.abs(sound).max()
    room = synthesis.pink_noise(len(sound), rng) * np.float32(10 ** (-70 / 20))
    return sound + room, played


_NOTES: Mapping[str, Callable[..., Audio]] = {
    "plucked_string": synthesis.plucked_string,
    "membrane": synthesis.membrane,
    "bell": synthesis.bell,
    "blown_pipe": synthesis.blown_pipe,
}
