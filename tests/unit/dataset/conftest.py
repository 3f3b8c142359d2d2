"""Recordings whose content is known sample by sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile

from rave_dist.audio.io.sources import find_sources
from rave_dist.dataset.manifest import assemble, load_earlier, write_manifest
from rave_dist.dataset.prepare import Prepared, prepare
from rave_dist.dataset.recipe import Recipe
from rave_dist.records import DatasetManifest
from rave_dist.storage.store import Store


@pytest.fixture
def noise() -> Callable[..., np.ndarray]:
    def make(seconds: float, seed: int = 0, sample_rate: int = 44100, channels: int = 1) -> np.ndarray:
        """16-bit noise, int16 [samples, channels]."""
        return np.random.default_rng(seed).integers(-9000, 9000, (round(seconds * sample_rate), channels)).astype(np.int16)

    return make


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    folder = tmp_path / "recordings"
    folder.mkdir()
    return folder


@pytest.fixture
def write(recordings: Path) -> Callable[..., Path]:
    def make(name: str, sound: np.ndarray, sample_rate: int = 44100, subtype: str | None = None) -> Path:
        soundfile.write(recordings / name, sound, sample_rate, subtype=subtype)
        return recordings / name

    return make


@pytest.fixture
def ingest_here() -> Callable[..., DatasetManifest]:
    def run(
        store: Store, patterns: Sequence[Path | str], recipe: Recipe | None = None, read: list[str] | None = None
    ) -> DatasetManifest:
        """Ingest without Ray; ``read`` is told the names of the sources that were opened."""
        recipe = recipe or Recipe(sample_rate=44100, channels=1)
        listing = find_sources([str(pattern) for pattern in patterns])
        sources = listing.sources
        earlier = load_earlier(store, "drum", recipe)
        known = [record for source in sources if (record := earlier.record(source))]
        fresh = [source for source in sources if earlier.record(source) is None]
        if read is not None:
            read.extend(source.relative for source in fresh)
        outcomes, shards = prepare(fresh, store=store, instrument="drum", recipe=recipe, known=earlier.stored_ids)
        everything = [*(Prepared(record=record) for record in known), *outcomes]
        settings = {"instrument": "drum", "recipe": recipe, "credit": {}, "earlier": earlier, "listing": listing}
        manifest = assemble(everything, [tuple(shards)], **settings)
        return write_manifest(store, manifest, "library")

    return run
