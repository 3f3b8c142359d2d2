"""The page of a conversion: totals, problems, sounds, credit; several models; what is away; its size."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from rave_dist.audio.metrics.loudness import loudness
from rave_dist.records import ConversionItem, ConversionParameters, ConversionRecord, PassedOver, Preservation, Problem
from rave_dist.reports import conversion_page
from rave_dist.reports.conversion_page import ConvertedWith, write_conversion_page
from rave_dist.storage.store import Store
from tests.sample_records import MOMENT, model_card

RATE = 16000
NASTY = "</script><img src=x onerror=\"document.title='stolen'\"><b>bold</b> & {{ 7 * 7 }}"


def archive(tmp_path: Path, count: int, *, gain: float = 0.3, model: str = "rebana", **record: Any) -> ConvertedWith:
    """Recordings of 7 s and their conversions through a model that makes them quieter; the first one failed."""
    folder, output = tmp_path / "in", tmp_path / "out" / model
    folder.mkdir(exist_ok=True)
    output.mkdir(parents=True)
    items = []
    for index in range(count):
        source, result = folder / f"{index:03}.wav", output / f"{index:03}.flac"
        sound = 0.05 * np.random.default_rng(index).standard_normal(7 * RATE)
        soundfile.write(source, sound, RATE)
        failed = index == 0
        if not failed:
            soundfile.write(result, gain * sound, RATE)
        items.append(
            ConversionItem(
                source=str(source),
                source_sha256="",
                output=str(result),
                state="failed" if failed else "converted",
                reason="the file is empty" if failed else None,
                fix="leave it out" if failed else "",
                seconds=0.0 if failed else 7.0,
            )
        )
    values = {
        "id": f"{sum(map(ord, model)):012x}",
        "model": f"{model}@000000000000",
        "parameters": ConversionParameters(seed=7),
        "converted": count - 1,
        "skipped": 0,
        "failed": tuple(item for item in items if item.state == "failed"),
        "seconds": 7.0 * (count - 1),
        "created_at": MOMENT,
    }
    card = model_card(name=model, credit={"performer": "Someone", "licence": "CC BY 4.0"})
    return ConvertedWith(ConversionRecord.model_validate(values | record), card, items, Store(str(output)))


def written(store: Store, conversions: Sequence[ConvertedWith], target: Path) -> tuple[str, dict[str, Any]]:
    """The page and its facts."""
    assert write_conversion_page(store, conversions, target) == str(target)
    page = target.read_text(encoding="utf-8")
    (text,) = re.findall(r'<script type="application/json" id="conversion">(.*?)</script>', page, re.DOTALL)
    return page, json.loads(text)


def sounds(page: str) -> list[tuple[np.ndarray, int]]:
    found = re.findall(r'src="data:audio/mpeg;base64,([^"]+)"', page)
    return [soundfile.read(io.BytesIO(base64.b64decode(data)), always_2d=True) for data in found]


def test_the_page_counts_names_and_cites(tmp_path: Path, local_store: Store) -> None:
    passed = PassedOver(reason="not the name of a recording", extension=".txt", count=3, names=("a.txt",))
    one = archive(tmp_path, 4, passed_over=(passed,), notes=("a note about the inputs",))
    page, facts = written(local_store, [one], tmp_path / "page.html")
    totals = facts["models"][0]["totals"]
    assert (totals["files"], totals["with_output"], totals["seconds"], totals["failed"]) == (4, 3, 21.0, 1)
    for words in ("the file is empty", "leave it out", "3 more found and passed over", "a note about the inputs", "21.0 s"):
        assert words in page, words
    for words in (
        "performer: Someone, licence: CC BY 4.0",
        "acids-rave 2.3.1, CC BY-NC 4.0",
        "rebana@000000000000",
        "<dd>7</dd>",
    ):
        assert words in page, words
    assert one.card.engine.terms in page.replace("&#39;", "'")
    assert facts["models"][0]["table"] == f"{local_store.uri}/conversions/{one.record.id}/journal.parquet"
    assert not re.search(r'(?:src|href)="(?!data:|#)', page), "nothing comes from elsewhere"


def test_the_page_says_what_of_the_recordings_the_results_keep(tmp_path: Path, local_store: Store) -> None:
    one = archive(tmp_path, 3, preserved=Preservation(pitch_cents=12.0, pitch_kept=0.9, onset_f_measure=0.8))
    changes = {"carried": ("bext", "4 cue points"), "not_carried": ("bext UMID: it identifies <b>",), "pitch_cents": 34.0}
    items = [item.model_copy(update=changes) for item in one.items]
    page, facts = written(local_store, [replace(one, items=items)], tmp_path / "page.html")
    assert "pitch to 12 cents, 90% of the frames with a pitch, onsets with an F-measure of 0.80" in page
    assert page.count("keeps pitch to 34 cents") == 2, "in each row"
    assert facts["models"][0]["totals"]["preserved"]["onset_f_measure"] == 0.8
    assert "2 kinds and tags carried over" in page
    assert '<td class="wrap">cue points</td><td class="num">3</td>' in page
    assert '<td class="wrap">bext UMID</td><td class="wrap">it identifies &lt;b&gt;</td><td class="num">3</td>' in page
    bare, _ = written(local_store, [one], tmp_path / "bare.html")
    assert 'id="carried"' not in bare


def test_every_row_is_the_same_moment_at_the_same_loudness(tmp_path: Path, local_store: Store) -> None:
    page, facts = written(local_store, [archive(tmp_path, 4)], tmp_path / "page.html")
    assert len(facts["rows"]) == 3
    played = sounds(page)
    assert len(played) == 6
    for (source, rate), (result, _), row in zip(played[::2], played[1::2], facts["rows"], strict=True):
        assert len(source) / rate == pytest.approx(5, abs=0.06)
        levels = [loudness(sound.T, rate) for sound in (source, result)]
        assert levels[0] == pytest.approx(levels[1], abs=0.3)
        assert levels[0] == pytest.approx(-18, abs=0.5)
        lags = np.correlate(result[RATE:-RATE, 0], source[RATE : -RATE - 400, 0])
        assert int(lags.argmax()) == 0, "aligned to the sample"
        recording, converted = row["cells"]
        assert recording["lufs"] - converted["lufs"] == pytest.approx(-20 * np.log10(0.3), abs=0.05)
        assert converted["gain_db"] - recording["gain_db"] == pytest.approx(recording["lufs"] - converted["lufs"], abs=0.02)


def test_the_sample_is_random_and_the_same_again_and_in_any_order(tmp_path: Path, local_store: Store) -> None:
    one = archive(tmp_path, 30)
    _, first = written(local_store, [one], tmp_path / "a.html")
    chosen = [row["source"] for row in first["rows"]]
    assert len(chosen) == 12
    assert chosen != sorted(chosen)
    _, again = written(local_store, [replace(one, items=list(one.items)[::-1])], tmp_path / "b.html")
    assert again["rows"] == first["rows"]
    other = one.record.model_copy(update={"id": "f" * 12})
    _, different = written(local_store, [replace(one, record=other)], tmp_path / "c.html")
    assert {row["source"] for row in different["rows"]} != set(chosen)


def test_several_models_are_a_matrix_of_the_same_sources(tmp_path: Path, local_store: Store) -> None:
    one, two = archive(tmp_path, 5), archive(tmp_path, 5, model="gong", gain=0.1)
    missing = {str(tmp_path / "in" / "002.wav")}
    two = replace(two, items=[item for item in two.items if item.source not in missing])
    page, facts = written(local_store, [one, two], tmp_path / "page.html")
    assert [cell["title"] for cell in facts["rows"][0]["cells"]] == ["Recording", "rebana", "gong"]
    assert len(facts["rows"]) == 4
    for row in facts["rows"]:
        reason = row["cells"][2]["reason"]
        assert (reason == "not converted") == (row["source"] in missing)
    assert len(sounds(page)) == 4 * 3 - 1
    assert page.count("<blockquote>") == 2
    assert page.count('class="terms"') == 1


def test_what_cannot_be_read_is_named_and_the_rest_is_played(tmp_path: Path, local_store: Store) -> None:
    one = archive(tmp_path, 4)
    (tmp_path / "in" / "001.wav").unlink()
    (tmp_path / "out" / "rebana" / "002.flac").write_bytes(b"")
    items = [
        item.model_copy(update={"source": f"nowhere://bucket/{Path(item.source).name}"}) if "003" in item.source else item
        for item in one.items
    ]
    page, facts = written(local_store, [replace(one, items=items)], tmp_path / "page.html")
    reasons = {Path(row["source"]).name: [cell["reason"] for cell in row["cells"]] for row in facts["rows"]}
    assert reasons["001.wav"][0].startswith("cannot be read: ")
    assert reasons["002.wav"] == ["", "cannot be read: the file is empty"]
    assert reasons["003.wav"][0].startswith("cannot be read: ")
    assert len(sounds(page)) == 3
    assert "cannot be read: the file is empty" in page


def test_nothing_converted_and_no_items_have_a_page(tmp_path: Path, local_store: Store) -> None:
    page, facts = written(local_store, [archive(tmp_path, 1)], tmp_path / "page.html")
    assert facts["rows"] == []
    assert "Nothing was converted." in page


def test_the_page_stays_within_its_size_and_says_what_is_left_out(
    tmp_path: Path, local_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = archive(tmp_path, 6)
    whole, _ = written(local_store, [one], tmp_path / "whole.html")
    per_row = sum(len(data) for data in re.findall(r"base64,([^\"]+)", whole)) // 5
    monkeypatch.setattr(conversion_page, "_SOUND_BYTES", round(2.6 * per_row))
    page, facts = written(local_store, [one], tmp_path / "page.html")
    assert 2 <= len(facts["rows"]) <= 3
    assert f"{5 - len(facts['rows'])} more of the sample" in page
    assert len(page) < 0.8 * len(whole)


def test_long_lists_are_shortened_and_counted(tmp_path: Path, local_store: Store) -> None:
    clipped = tuple(
        ConversionItem(
            source=f"/in/{i}.wav",
            source_sha256="",
            output=f"{i}",
            state="converted",
            clipped=Problem(what=f"over {i}", fix="f"),
        )
        for i in range(1000)
    )
    page, _ = written(local_store, [archive(tmp_path, 1, clipped=clipped)], tmp_path / "page.html")
    assert "and 700 more in the table of the journal" in page
    assert page.count("over ") < 400
    assert "(1\u202f000)" in page


def test_what_people_write_is_shown_and_never_run(tmp_path: Path, local_store: Store) -> None:
    one = archive(tmp_path, 2)
    bad = tmp_path / "in" / "<b>bold<&.wav"
    (tmp_path / "in" / "001.wav").rename(bad)
    items = [item.model_copy(update={"source": str(bad)}) if item.state == "converted" else item for item in one.items]
    failed = tuple(item.model_copy(update={"reason": NASTY, "fix": NASTY}) for item in one.record.failed)
    record = one.record.model_copy(update={"failed": failed, "notes": (NASTY,)})
    card = one.card.model_copy(
        update={"credit": {NASTY: "x", "source": "javascript:alert(1)", "home": "https://example.org/a"}}
    )
    page, facts = written(local_store, [replace(one, items=items, record=record, card=card)], tmp_path / "page.html")
    assert "<img" not in page
    assert "<b>bold" not in page
    assert "{{ 7 * 7 }}" in page
    assert 'href="javascript' not in page
    assert '<a href="https://example.org/a"' in page
    assert facts["rows"][0]["source"] == str(bad)


def test_the_page_goes_to_a_store_as_well_as_to_a_folder(tmp_path: Path, local_store: Store) -> None:
    one = archive(tmp_path, 2)
    address = write_conversion_page(local_store, [one], f"{local_store.uri}/conversions/{one.record.id}/page.html")
    assert local_store.read_bytes(f"conversions/{one.record.id}/page.html").startswith(b"<!doctype html>")
    assert address.startswith(local_store.uri)
