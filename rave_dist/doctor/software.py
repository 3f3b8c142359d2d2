"""Python, the packages, and the libraries that they load."""

from __future__ import annotations

import functools
import importlib.metadata
import platform
from collections.abc import Iterable, Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from rave_dist.doctor.diagnosis import Check, Diagnosis, Request, error, from_error, ok, warning
from rave_dist.errors import RaveDistError

_DISTRIBUTION = "rave-dist"
_INSTALL_AGAIN = "install rave-dist again, or this package alone with pip"


def python_version(request: Request) -> Iterator[Diagnosis]:
    """Compares Python's version with the supported ones."""
    found = platform.python_version()
    try:
        allowed = importlib.metadata.metadata(_DISTRIBUTION)["Requires-Python"]
    except importlib.metadata.PackageNotFoundError:
        yield _not_installed("Python", found)
        return
    yield compare("Python", found, SpecifierSet(allowed), fix=f"use a Python {allowed}")


def packages(request: Request) -> Iterator[Diagnosis]:
    """Compares the installed packages with the supported ranges, and with the newest versions that were tested."""
    try:
        needed = [Requirement(text) for text in importlib.metadata.requires(_DISTRIBUTION) or ()]
    except importlib.metadata.PackageNotFoundError:
        yield _not_installed("packages", "their versions cannot be compared")
        return
    needed = [requirement for requirement in needed if requirement.marker is None or requirement.marker.evaluate({"extra": ""})]
    wrong = [found for found in map(package, needed) if found.state != "ok"]
    yield from wrong or [ok("packages", f"all {len(needed)} are of tested ranges")]


def package(needed: Requirement) -> Diagnosis:
    """Compares an installed package with a requirement."""
    try:
        found = importlib.metadata.version(needed.name)
    except importlib.metadata.PackageNotFoundError:
        return error(needed.name, "is not installed", fix=f"pip install '{needed}'")
    newest = newest_tested().get(canonicalize_name(needed.name))
    if needed.specifier.contains(found, prereleases=True) and newest and Version(found).release > Version(newest).release:
        fix = f"if it fails: pip install {needed.name}=={newest}"
        return warning(needed.name, f"{found} is newer than the tested {newest}", fix=fix)
    return compare(needed.name, found, needed.specifier, fix=f"pip install '{needed}'")


@functools.cache
def newest_tested() -> dict[str, str]:
    """The newest tested versions of the packages on this Python, from ``constraints.txt`` of the repository."""
    lines = Path(__file__).with_name("constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line]
    return {
        canonicalize_name(pin.name): next(iter(pin.specifier)).version
        for pin in pins
        if pin.marker is None or pin.marker.evaluate()
    }


def compare(name: str, found: str, allowed: SpecifierSet, *, fix: str) -> Diagnosis:
    """Compares a version with the supported ones."""
    if allowed.contains(found, prereleases=True):
        return ok(name, found)
    return error(name, f"{found} is not supported; rave-dist needs {allowed}", fix=fix)


def acids_rave(request: Request) -> Iterator[Diagnosis]:
    """Whether acids-rave can be imported."""
    from rave_dist.rave import imports

    try:
        imports.modules()
    except RaveDistError as problem:
        yield from_error("acids-rave", problem)
        return
    except (
        ImportError,
        OSError,
        RuntimeError,
        AttributeError,
    ) as problem:  # one of its dependencies does not load or is incompatible
        yield error("acids-rave", f"cannot be imported ({_line(problem)})", fix=_INSTALL_AGAIN)
        return
    yield ok("acids-rave", f"{importlib.metadata.version('acids-rave')} can be imported")


def torch(request: Request) -> Iterator[Diagnosis]:
    """Torch, and the NVIDIA card if there is one."""
    try:
        import torch
    except (ImportError, OSError) as problem:
        yield error("torch", f"cannot be imported ({_line(problem)})", fix=_INSTALL_AGAIN)
        return
    yield ok("torch", str(torch.__version__))
    has_card = Path("/dev/nvidia0").exists() or Path("/dev/dxg").exists()  # the latter under Windows
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(index)
            memory = f"{total / 2**30:.0f} GiB of memory, {free / 2**30:.0f} free"
            yield ok("GPU", f"{torch.cuda.get_device_name(index)}, {memory}")
    elif has_card and torch.version.cuda is None:
        yield error("GPU", "there is an NVIDIA card, but this torch is a build without CUDA", fix="install torch with CUDA")
    elif has_card:
        fix = f"update the NVIDIA driver to one for CUDA {torch.version.cuda}, or see the output of nvidia-smi"
        yield error("GPU", "there is an NVIDIA card, but torch cannot use it", fix=fix)
    else:
        yield ok("GPU", "none: models are trained on the CPU, which takes many times as long")


def audio_libraries(request: Request) -> Iterator[Diagnosis]:
    """The libraries that read and write recordings."""
    try:
        from rave_dist.audio.io.versions import library_versions

        versions = library_versions()
    except (ImportError, OSError) as problem:
        yield error(
            "audio files",
            f"the libraries for them do not load ({_line(problem)})",
            fix="pip install --force-reinstall av soundfile",
        )
        return
    yield ok("audio files", ", ".join(f"{name} {version}" for name, version in versions.items()))


def _not_installed(name: str, what: str) -> Diagnosis:
    return warning(
        name, f"{what}; rave-dist is not installed as a package", fix="pip install rave-dist, or pip install -e . in its folder"
    )


def _line(problem: BaseException) -> str:
    return next(iter(str(problem).strip().splitlines()), type(problem).__name__)


CHECKS: Iterable[Check] = (python_version, packages, torch, acids_rave, audio_libraries)
