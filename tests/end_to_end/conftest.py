"""The command as a person runs it, and drum recordings that no one has seen before."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from tests.browser import Browser

SAMPLE_RATE = 44100


@dataclass
class Outcome:
    """What a finished command left: its exit code and both its outputs."""

    code: int
    stdout: str
    stderr: str

    @property
    def document(self) -> dict[str, Any]:
        value = json.loads(self.stdout)
        assert isinstance(value, dict)
        return value


@pytest.fixture(scope="session")
def rave_dist() -> Callable[..., Outcome]:
    """Runs ``python -m rave_dist`` in its own process; ``interrupt_after`` seconds sends Ctrl-C."""

    def run(*arguments: str | Path, timeout: float = 600, interrupt_after: float | None = None) -> Outcome:
        command = [sys.executable, "-m", "rave_dist", *map(str, arguments)]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"COLUMNS": "200"}
        )
        try:
            if interrupt_after is not None:
                try:
                    stdout, stderr = process.communicate(timeout=interrupt_after)
                except subprocess.TimeoutExpired:
                    process.send_signal(signal.SIGINT)
            stdout, stderr = process.communicate(timeout=timeout)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        return Outcome(process.returncode, stdout, stderr)

    return run


@pytest.fixture(scope="session")
def drums() -> Callable[..., np.ndarray]:
    """Drum strokes: decaying skin modes with a noisy attack, at random times; float32 [samples]."""

    def make(seconds: float, *, seed: int, pitch: float = 110.0) -> np.ndarray:
        rng = np.random.default_rng(seed)
        samples = round(seconds * SAMPLE_RATE)
        sound = np.zeros(samples + SAMPLE_RATE)
        time = np.arange(SAMPLE_RATE) / SAMPLE_RATE
        start = 0.0
        while start < seconds:
            base = pitch * rng.choice([1.0, 1.5, 2.2])
            stroke = sum(
                np.exp(-time * (8 + 4 * k)) * np.sin(2 * np.pi * base * ratio * time) / (k + 1)
                for k, ratio in enumerate((1.0, 1.59, 2.14, 2.65))
            )
            stroke = stroke + np.exp(-time * 90) * rng.standard_normal(SAMPLE_RATE) * 0.5
            at = round(start * SAMPLE_RATE)
            sound[at : at + SAMPLE_RATE] += stroke * rng.uniform(0.15, 0.35)
            start += rng.uniform(0.12, 0.5)
        return np.tanh(sound[:samples]).astype(np.float32)

    return make


@pytest.fixture
def write_library(tmp_path: Path) -> Callable[..., Path]:
    """Writes a library manifest of the smallest network that RAVE can train, for a store and instruments."""

    def write(store: str, instruments: str, *, name: str = "small", steps: int = 16) -> Path:
        path = tmp_path / f"{name}.yaml"
        path.write_text(
            textwrap.dedent(
                f"""
                name: {name}
                store: {store}
                defaults:
                  config: v2_small
                  override: {{CAPACITY: 4, LATENT_SIZE: 8}}
                  window: 65536
                  batch: 2
                  budget: {{steps: {steps}}}
                instruments:
                """
            )
            + textwrap.indent(textwrap.dedent(instruments), "  ")
        )
        return path

    return write


@pytest.fixture
def write_sound() -> Callable[[Path, np.ndarray], Path]:
    def write(path: Path, samples: np.ndarray) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, samples, SAMPLE_RATE, subtype="PCM_16")
        return path

    return write


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = shutil.which("chromium")
    if program is None:
        reason = "no chromium on this machine: apt-get install chromium"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    profile = tmp_path_factory.mktemp("chromium")
    opened = Browser(program, profile)
    yield opened
    opened.close()
