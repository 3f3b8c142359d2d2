"""What a library, a model and a conversion show of themselves in a notebook."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

import rave_dist as rd
from rave_dist.records import ConversionItem, ConversionParameters, ConversionRecord, ModelCard, Problem
from rave_dist.registry.store import find
from rave_dist.reports.listening import Excerpt, examples, synthetic_call
from rave_dist.storage.store import Store
from rave_dist.views import Conversion
from tests.sample_records import run_record

Publish = Callable[..., ModelCard]


def sounds(html: str) -> list[tuple[int, int]]:
    """Channels and sample rate of every player's MP3."""
    found = re.findall(r'src="data:audio/mpeg;base64,([^"]+)"', html)
    files = [soundfile.info(io.BytesIO(base64.b64decode(data))) for data in found]
    return [(file.channels, file.samplerate) for file in files]


def test_a_library_is_a_table_of_its_instruments(tmp_path: Path) -> None:
    library = rd.Library.from_dict(
        {"name": "band", "store": "store", "instruments": {"drum": {"sources": ["a"]}, "bell": {"sources": ["b"]}}},
        folder=tmp_path,
    )
    problem = Problem(what="<b>out of memory</b>")
    record = run_record(instrument="bell", state="failed", step=3, steps=9, error=problem)
    library.store.write_json(record.key, record.to_json())
    html = library._repr_html_()
    rows = re.findall(r"<tr>(<td>.*?)</tr>", html)
    cells = [re.findall(r"<td>(.*?)</td>", row) for row in rows]
    assert cells == [["drum", "waiting", "–", "not ingested", "–"], ["bell", "failed", "3 of 9", "not ingested", "–"]]
    assert "&lt;b&gt;out of memory" in html
    assert "<b>out of memory" not in html


@pytest.mark.slow
def test_a_model_shows_its_facts_and_plays_what_the_report_made(local_store: Store, publish_tiny: Publish) -> None:
    Path(local_store.uri).mkdir(exist_ok=True)
    card = publish_tiny(local_store, "drum")
    shown = rd.find_model(local_store, "drum")
    assert shown == card
    assert hash(shown) == hash(card)
    html = shown._repr_html_()
    for fact in (card.reference, "44,100 Hz, mono", "4 of 8", card.engine.licence, "nobody"):
        assert fact in html
    assert sounds(html) == []
    assert "No samples yet" in html
    noise = (0.1 * np.random.default_rng(0).standard_normal((1, 44100))).astype(np.float32)
    examples(local_store, card, instrument=Excerpt(noise, 44100, ("noise.wav",)), transfer_source=synthetic_call(44100))
    (again,) = rd.list_models(local_store)
    html = again._repr_html_()
    assert sounds(html) == [(1, 44100)] * 3
    assert html.count('src="data:image/png;base64,') == 3
    assert "kingfisher" in html
    local_store.delete(f"{find(local_store, 'drum').key}/samples/transfer.flac")
    assert "The samples cannot be read" in again._repr_html_()


@pytest.mark.slow
def test_a_conversion_plays_recordings_before_and_after(tmp_path: Path, local_store: Store, publish_tiny: Publish) -> None:
    Path(local_store.uri).mkdir(exist_ok=True)
    publish_tiny(local_store, "drum")
    folder = tmp_path / "in"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(4):
        soundfile.write(folder / f"{number}.wav", 0.1 * rng.standard_normal((10 * 8000, 2)), 8000)
    (folder / "notes.wav").write_text("not a recording")
    result = rd.convert(local_store, "drum", folder, tmp_path / "out")
    html = result._repr_html_()
    assert "4 converted" in html
    assert "1 failed" in html
    assert "notes.wav" in html
    assert sounds(html) == [(2, 8000)] * 6, "three pairs"
    assert all(f"<b>{title}</b>" in html for title in ("Before", "After"))
    assert html.count("8.0 s") >= 6, "a preview, not ten seconds"


def test_a_conversion_whose_files_are_gone_says_so(local_store: Store) -> None:
    record = ConversionRecord(
        id="0123",
        model="drum@1",
        parameters=ConversionParameters(format="flac"),
        converted=1,
        skipped=0,
        failed=(),
        seconds=1.0,
        created_at="2000-01-01T00:00:00+00:00",
    )
    item = ConversionItem(source="gone.wav", source_sha256="0", output="gone.flac", state="converted")
    local_store.write_json("conversions/0123/journal/a.json", item.to_json())
    shown = Conversion.of(record, local_store)
    assert shown == record
    html = shown._repr_html_()
    assert "gone.wav cannot be played" in html
    assert sounds(html) == []
