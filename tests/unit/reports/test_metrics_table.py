"""The page shows how far a model is from held-out audio beside what everybody knows."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rave_dist.library.manifest import load_library
from rave_dist.records import Metrics, ModelCard
from rave_dist.reports.page import write_report
from tests.sample_records import run_record


def _metrics(**values: Any) -> Metrics:
    return Metrics(seconds=42.0, **values)


MEASURES = {
    "model": Metrics(
        spectral_db=8.26, mel_db=4.04, loudness_lu=1.55, peak_dbfs=-3.0, pitch_cents=12.4, pitch_kept=0.876, seconds=42.0
    ),
    "mp3": Metrics(
        spectral_db=5.0, mel_db=2.0, loudness_lu=0.2, peak_dbfs=-2.0, pitch_cents=0.6, pitch_kept=0.99, seconds=42.0
    ),
    "noise": Metrics(
        spectral_db=30.0, mel_db=25.0, loudness_lu=6.0, peak_dbfs=-9.0, pitch_cents=None, pitch_kept=0.0, seconds=42.0
    ),
    "silence": Metrics(
        spectral_db=40.0, mel_db=38.0, loudness_lu=45.0, peak_dbfs=-120.0, pitch_cents=None, pitch_kept=0.0, seconds=42.0
    ),
}


@pytest.fixture
def page(tmp_path: Path, publish_tiny: Callable[..., ModelCard]) -> Callable[[dict[str, Metrics]], str]:
    """The page of a library with one model that has these metrics."""

    def page(metrics: dict[str, Metrics]) -> str:
        manifest = tmp_path / "library.yaml"
        manifest.write_text("name: band\nstore: ./store\ninstruments: {drums: {sources: [drums.wav]}}\n")
        library = load_library(manifest)
        card = publish_tiny(library.store, "drums").model_copy(update={"metrics": metrics})
        card.save(library.store, card.folder.card)
        record = run_record(instrument="drums", state="done", model=card.reference)
        return library.store.read_bytes(write_report(library.store, library, [record])).decode()

    return page


def test_a_person_can_read_them(page: Callable[[dict[str, Metrics]], str]) -> None:
    rows = dict(re.findall(r'<tr data-measured="(\w+)">(.*?)</tr>', page(MEASURES)))
    assert list(rows) == ["model", "mp3", "noise", "silence"]
    cells = re.findall(r">([^<>]+)<", rows["model"])
    assert cells == ["this model, phase 2", "8.3 dB", "4.0 dB", "1.6 LU", "12.4 cents", "88 %"]
    assert "–" in rows["silence"]


def test_phase_1_stands_below_what_became_of_it(page: Callable[[dict[str, Metrics]], str]) -> None:
    before = Metrics(
        spectral_db=7.26, mel_db=3.04, loudness_lu=1.25, peak_dbfs=-3.0, pitch_cents=10.4, pitch_kept=0.9, seconds=42.0
    )
    rows = dict(re.findall(r'<tr data-measured="(\w+)">(.*?)</tr>', page({**MEASURES, "phase_1": before})))
    assert list(rows) == ["model", "phase_1", "mp3", "noise", "silence"]
    assert re.findall(r">([^<>]+)<", rows["phase_1"])[:3] == ["best of phase 1", "7.3 dB", "3.0 dB"]


def test_a_model_of_an_earlier_version_has_none(page: Callable[[dict[str, Metrics]], str]) -> None:
    assert "data-measured" not in page({})


def test_a_verdict_stands_in_the_summary_and_on_the_card(page: Callable[[dict[str, Metrics]], str]) -> None:
    good = page(MEASURES)
    assert 'data-verdict="playable"' in good
    assert good.count(">playable</span>") == 2
    quiet = page({**MEASURES, "model": MEASURES["model"].model_copy(update={"loudness_lu": 11.2})})
    assert 'data-verdict="sketch"' in quiet
    assert "<strong>Sketch</strong>: 11.2 LU from their loudness (playable: 6)." in quiet
    silent = page({**MEASURES, "model": MEASURES["silence"]})
    assert 'class="pill silent"' in silent
    assert "digital silence" in silent
    assert 'data-verdict=""' in page({})
