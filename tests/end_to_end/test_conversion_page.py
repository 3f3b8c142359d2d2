"""The page of conversions with two models, in a real browser: what it shows, plays, compares and asks for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from rave_dist.records import ConversionItem, ConversionParameters, ConversionRecord
from rave_dist.reports.conversion_page import ConvertedWith, write_conversion_page
from rave_dist.storage.store import Store
from tests.browser import DECODED, DURATIONS, Browser
from tests.sample_records import MOMENT, model_card

RATE = 22050
NASTY = "</script><img src=x onerror=\"document.title='stolen'\"><b>bold</b> & {{ 7 * 7 }}"


def converted(folder: Path, model: str, gain: float, sources: list[Path]) -> ConvertedWith:
    """The recordings, quieter; the last one failed."""
    output = folder / model
    output.mkdir()
    items = []
    for source in sources:
        result = output / f"{source.stem}.flac"
        sound, rate = soundfile.read(source)
        soundfile.write(result, gain * sound, rate)
        items.append(
            ConversionItem(
                source=str(source), source_sha256="", output=str(result), state="converted", seconds=len(sound) / rate
            )
        )
    failed = items[-1].model_copy(update={"state": "failed", "reason": NASTY, "fix": "x" * 300, "seconds": 0.0})
    record = ConversionRecord(
        id=f"{model:0>12}".replace("o", "0"),
        model=f"{model}@0",
        parameters=ConversionParameters(format="flac"),
        converted=len(items) - 1,
        skipped=0,
        failed=(failed,),
        seconds=1,
        created_at=MOMENT,
    )
    card = model_card(name=model, credit={"performer": NASTY, "licence": "CC0"})
    return ConvertedWith(record, card, [*items[:-1], failed], Store(str(output)))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archive")
    sources = []
    for index in range(4):
        sources.append(folder / f"take {index} <b>.wav")
        level = np.linspace(0.02, 0.2, 8 * RATE)
        soundfile.write(sources[-1], level * np.random.default_rng(index).uniform(-1, 1, 8 * RATE), RATE)
    models = [converted(folder, name, gain, sources) for name, gain in (("gong", 0.2), ("rebab", 0.7))]
    (folder / "rebab" / f"{sources[0].stem}.flac").unlink()
    target = folder / "the page.html"
    write_conversion_page(Store(str(folder / "store")), models, target)
    return target


def test_the_browser_shows_and_plays_the_matrix_and_asks_for_nothing(browser: Browser, page: Path) -> None:
    browser.open(page)
    assert browser.complaints == []
    assert [url for url in browser.requests if not url.startswith("data:")] == [page.as_uri()]
    assert browser.evaluate("document.title") == "Conversion with 2 models · rave-dist"
    shape = browser.evaluate("[...document.querySelectorAll('.sounds tbody tr')].map(r => r.querySelectorAll('audio').length)")
    assert sorted(shape) == [2, 3, 3]
    assert "Recording: " not in browser.evaluate("document.querySelector('.sounds').innerText")
    assert browser.evaluate(DURATIONS) == pytest.approx([5] * 8, abs=0.06)
    for seconds, peak in browser.evaluate(DECODED):
        assert seconds == pytest.approx(5, abs=0.06)
        assert peak > 0.2, "quiet recordings are played at the common loudness"
    sizes = browser.evaluate("[...document.querySelectorAll('.wave polygon')].map(w => w.getBoundingClientRect().height)")
    assert len(sizes) == 8
    assert min(sizes) > 30, "drawn up to the loudest peak of the row"
    assert browser.evaluate("document.querySelector('.failed-items').innerText").count("{{ 7 * 7 }}") == 2


def test_another_sound_of_a_row_continues_at_the_same_moment(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.evaluate(DURATIONS)
    state = browser.evaluate("""(async () => {
      const row = [...document.querySelectorAll(".sounds tbody tr")].find(r => r.querySelectorAll("audio").length === 3);
      const [a, b, c] = row.querySelectorAll("audio");
      const other = [...document.querySelectorAll(".sounds audio")].find(x => x.closest("tr") !== row);
      const playing = audio => new Promise(done => audio.addEventListener("playing", done, {once: true}));
      const began = playing(a);
      const track = a.closest("td").querySelector(".track");
      const box = track.getBoundingClientRect();
      track.dispatchEvent(new MouseEvent("click", {clientX: box.left + box.width / 2}));
      await began;
      const at = a.currentTime / a.duration;
      const next = playing(c);
      const before = a.currentTime;
      c.play();
      await next;
      const same = c.currentTime - before;
      const elsewhere = playing(other);
      other.play();
      await elsewhere;
      return {at, same, start: other.currentTime, paused: [a.paused, b.paused, c.paused]};
    })()""")
    assert state["at"] == pytest.approx(0.5, abs=0.15)
    assert 0 <= state["same"] < 0.5
    assert state["start"] < 0.5, "another row begins at its own start"
    assert state["paused"] == [True] * 3
    assert browser.complaints == []


@pytest.mark.parametrize("width", [320, 768, 1600])
def test_no_width_needs_sideways_scrolling(browser: Browser, page: Path, width: int) -> None:
    browser.open(page, width=width)
    assert browser.evaluate("document.documentElement.scrollWidth") <= width


def test_foreign_script_is_refused_by_the_page_itself(browser: Browser, page: Path, tmp_path: Path) -> None:
    changed = tmp_path / "changed.html"
    changed.write_text(page.read_text().replace("<footer>", "<script>document.title = 'stolen'</script><footer>"))
    browser.open(changed)
    assert browser.evaluate("document.title") == "Conversion with 2 models · rave-dist"
    assert any("Content Security Policy" in complaint for complaint in browser.complaints)
