"""The examples in the docstrings of the public names, as tests run them.

They run in a folder with ``library.yaml`` (one instrument, rebana, of the smallest network), its recordings, a store and a
field recording of three seconds; ``rd`` is the package.
"""

from __future__ import annotations

import doctest
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

import rave_dist as rd

SAMPLE_RATE = 44100
LIBRARY = """
name: drums
store: ./store
defaults:
  {config: v2_tiny, override: {CAPACITY: 4}, window: 40960, batch: 2, budget: {steps: 9}, checkpoint: {steps: 4}}
instruments:
  rebana: {sources: [recordings/rebana]}
"""

NEED_RAY = {"ingest", "train", "publish", "run"}
"""Public names whose examples start Ray: tests/examples runs them."""

_OPTIONS = doctest.ELLIPSIS


def documented() -> Iterator[tuple[str, Any]]:
    """Every public name, and every public method and property of public classes, with the object that has the docstring."""
    for name in sorted(rd.__all__):
        value = getattr(rd, name)
        yield name, value
        if inspect.isclass(value) and not issubclass(value, Exception):
            for member in sorted(dir(value)):
                owner = next((base for base in value.__mro__ if member in vars(base)), object)
                if not member.startswith("_") and owner.__module__.startswith("rave_dist"):
                    yield f"{name}.{member}", inspect.getattr_static(value, member)


def examples(name: str) -> list[doctest.Example]:
    """The examples in the docstring of a public name."""
    return doctest.DocTestParser().get_examples(docstring(dict(documented())[name]))


def docstring(value: Any) -> str:
    """A function's, method's or property's docstring; of a classmethod that of its function."""
    return inspect.cleandoc(getattr(value, "__func__", value).__doc__ or "")


def run(name: str, folder: Path) -> int:
    """Runs the examples of a public name, and returns their number; the current folder must be the one that `prepare` made."""
    test = doctest.DocTest(examples(name), {"rd": rd, "folder": folder}, name, None, None, None)
    runner = doctest.DocTestRunner(optionflags=_OPTIONS, verbose=False)  # by default, it reads -v from the command line
    report: list[str] = []
    result = runner.run(test, out=report.append)
    assert not result.failed, "".join(report)
    return result.attempted


def prepare(folder: Path) -> None:
    """Writes what the examples use, without a model."""
    (folder / "library.yaml").write_text(LIBRARY, encoding="utf-8")
    (folder / "store").mkdir()
    time = np.arange(6 * SAMPLE_RATE) / SAMPLE_RATE
    for number, frequency in enumerate((110.0, 165.0), 1):
        strokes = 0.5 * np.exp(-12 * (time % 0.25)) * np.sin(2 * np.pi * frequency * time)
        _write(folder / f"recordings/rebana/take-{number}.wav", strokes)
    _write(folder / "field/kingfisher.wav", 0.3 * np.sin(2 * np.pi * 2000 * time[: 3 * SAMPLE_RATE]))


def _write(path: Path, sound: np.ndarray[Any, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, sound, SAMPLE_RATE, subtype="PCM_16")
