"""Versions and libraries of this very environment, and requirements that it does not meet."""

from __future__ import annotations

import importlib.metadata

import pytest
from packaging.requirements import Requirement

from rave_dist.doctor import Request, software


def test_this_environment_is_in_order() -> None:
    """The tests run in it, so that it must be."""
    for check in software.CHECKS:
        for diagnosis in check(Request()):
            assert diagnosis.state == "ok", diagnosis


def test_a_package_that_is_missing() -> None:
    diagnosis = software.package(Requirement("no-such-package-of-anyone>=3"))
    assert (diagnosis.state, diagnosis.what) == ("error", "is not installed")
    assert diagnosis.fix == "pip install 'no-such-package-of-anyone>=3'"


def test_a_package_that_is_too_new() -> None:
    found = importlib.metadata.version("numpy")
    diagnosis = software.package(Requirement("numpy<1.0"))
    assert diagnosis.state == "error"
    assert found in diagnosis.what
    assert "<1.0" in diagnosis.what
    assert "numpy<1.0" in diagnosis.fix


def test_a_package_that_is_newer_than_the_tested_one(monkeypatch: pytest.MonkeyPatch) -> None:
    newest = software.newest_tested()["torch"]
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "99.1+cpu")
    diagnosis = software.package(Requirement("torch>=2.8"))
    assert (diagnosis.state, diagnosis.what) == ("warning", f"99.1+cpu is newer than the tested {newest}")
    assert software.package(Requirement("ray==2.60.*")).state == "error", "outside of the range is worse than new"
    monkeypatch.setattr(importlib.metadata, "version", lambda name: f"{newest}+cu130")
    assert software.package(Requirement("torch>=2.8")).state == "ok"


def test_ffmpeg_is_named_with_its_version() -> None:
    (diagnosis,) = software.audio_libraries(Request())
    assert "libavcodec" in diagnosis.what
    assert "libsndfile 1." in diagnosis.what
