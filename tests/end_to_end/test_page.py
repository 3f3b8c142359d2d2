"""The page of a library, from its store to a real browser: what it says, what it shows, what it plays, what it asks for."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rave_dist.audio.io.open import open_audio
from rave_dist.audio.io.sources import find_sources
from rave_dist.dataset.manifest import Earlier, assemble, write_manifest
from rave_dist.dataset.prepare import prepare
from rave_dist.dataset.recipe import Recipe
from rave_dist.identity import hash_file
from rave_dist.library.manifest import Library, load_library
from rave_dist.records import (
    DatasetManifest,
    ModelCard,
    ModelFile,
    Problem,
    RunFolder,
    RunMetrics,
    RunRecord,
    Validation,
)
from rave_dist.reports.page import write_report
from rave_dist.sample_data import Ensemble, Generated, generate
from rave_dist.storage.store import Store
from tests.browser import DECODED, DURATIONS, Browser
from tests.sample_records import model_card, run_record

RATE = 22050
HOP = 64
ROLES = ("original", "reconstruction", "transfer")
NASTY = "</script><img src=x onerror=\"document.title='stolen'\"><b>bold</b> & {{ 7 * 7 }}"


class Half(nn.Module):
    """A model whose result is known: the sound, 6 dB quieter."""

    @torch.jit.export
    def convert(self, x: Tensor, position: Tensor, seed: Tensor, noise: float, latent_noise: float = 0.0) -> Tensor:
        return 0.5 * x

    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * x


# ---------------------------------------------------------------- a library as a night leaves it


class Night:
    """Puts into a store what the stages leave there: datasets, run records, curves, models."""

    def __init__(self, store: Store, folder: Path, instruments: dict[str, str]) -> None:
        torch.set_num_threads(1)
        self.store, self.folder = store, folder
        manifest = {"name": "night", "store": store.uri, "instruments": {n: {"sources": [f"{n}/"]} for n in instruments}}
        (folder / "night.yaml").write_text(json.dumps(manifest))
        self.library: Library = load_library(folder / "night.yaml")
        self.models = instruments
        self.records: list[RunRecord] = []

    def ingested(self, name: str, *, num_files: int = 6, credit: dict[str, str] | None = None) -> DatasetManifest:
        ensemble = Ensemble.model_validate({"model": self.models[name], "frequency": 180, "num_files": num_files, "seconds": 4})
        source = Generated(kind="generated", seed=3, sample_rate=RATE, licence="CC0", instruments={name: ensemble})
        generate(source, self.folder)
        (self.folder / name / "broken <take>.wav").write_text("no sound at all")
        recipe = Recipe(sample_rate=RATE, channels=1)
        found = find_sources([str(self.folder / name)])
        prepared, shards = prepare(found.sources, store=self.store, instrument=name, recipe=recipe, known=())
        manifest = assemble(
            prepared,
            [tuple(shards)],
            instrument=name,
            recipe=recipe,
            credit=credit or {"licence": "CC0"},
            earlier=Earlier(),
            listing=found,
        )
        return write_manifest(self.store, manifest, "night")

    def published(self, dataset: DatasetManifest) -> ModelCard:
        name = dataset.instrument
        path = self.folder / f"{name}.ts"
        torch.jit.script(Half().eval()).save(str(path))
        key = f"models/{name}/0123456789ab"
        file = ModelFile(key=f"{key}/{name}.ts", sha256=hash_file(path), bytes=path.stat().st_size)
        self.store.upload(path, file.key)
        card = model_card(
            **{"name": name, "version": "0123456789ab", "library": "night", "run_id": "feed0000beef"},
            **{"sample_rate": RATE, "hop": HOP, "receptive_field": (4 * HOP, 2 * HOP)},
            **{"dataset": dataset.id, "credit": dataset.credit, "files": {"offline": file, "streaming": file}},
        )
        self.store.write_json(f"{key}/card.json", card.to_json())
        self.store.write_json(f"models/{name}/publications/00000001.json", {"version": card.version})
        return card

    def curves(self, name: str, *, steps: int = 60, until: int = 60) -> None:
        train = [
            {
                "step": s,
                "phase": 1 + (s > 40),
                "values": {"fullband_spectral_distance": 20 / s, "adversarial": None if s < 41 else -0.1},
            }
            for s in range(1, until + 1)
        ]
        validation = [{"step": s, "phase": 1, "held_out": 20 - s / 6, "training": None} for s in range(0, until + 1, 10)]
        metrics = RunMetrics(train=train, validation=validation, steps=steps, phase_1_steps=40, window=16384)
        metrics.save(self.store, RunFolder.of("night", name, "feed0000beef").metrics)

    def record(self, name: str, state: str, **fields: Any) -> None:
        values = {"library": "night", "instrument": name, "run_id": "feed0000beef", "state": state, "steps": 60}
        self.records.append(run_record(**values | fields))

    def done(self, name: str, **ingest: Any) -> ModelCard:
        dataset = self.ingested(name, **ingest)
        card = self.published(dataset)
        self.curves(name)
        self.record(
            name,
            "done",
            dataset=dataset.id,
            phase=2,
            step=60,
            phase_1_steps=40,
            validation=Validation(first=20.0, best=9.0, last=10.0),
            model=card.reference,
            seconds=75.0,
            expected_seconds=60.0,
        )
        return card

    def write(self) -> str:
        key = write_report(self.store, self.library, self.records)
        assert key == "report/night/index.html"
        page = self.store.read_bytes(key)
        assert self.store.read_bytes("report/index.html") == page
        return page.decode()


@pytest.fixture
def night(local_store: Store, tmp_path: Path) -> Callable[..., Night]:
    def make(*, store: Store = local_store, **instruments: str) -> Night:
        return Night(store, tmp_path, instruments)

    return make


def document(page: str) -> dict[str, Any]:
    """What the page holds for scripts."""
    match = re.search(r'<script type="application/json" id="library">(.*?)</script>', page, re.DOTALL)
    assert match
    value: dict[str, Any] = json.loads(match[1])
    return value


def sounds(page: str, kind: str = "audio/mpeg") -> list[bytes]:
    return [base64.b64decode(data) for data in re.findall(f'"data:{kind};base64,([^"]+)"', page)]


def stored_sound(store: Store, card: ModelCard, role: str, folder: Path) -> np.ndarray:
    with open_audio(store.download(f"{card.key}/samples/{role}.flac", folder / f"{card.name}-{role}.flac")) as audio:
        assert audio.sample_rate == RATE
        return np.concatenate(list(audio.blocks()), axis=1)


# ---------------------------------------------------------------- what it says


def test_a_finished_library_is_played_and_told(any_store: Store, night: Callable[..., Night], tmp_path: Path) -> None:
    library = night(store=any_store, strings="plucked_string", bells="bell")
    cards = [library.done(name) for name in ("strings", "bells")]
    page = library.write()
    entries = {entry["name"]: entry for entry in document(page)["instruments"]}
    assert list(entries) == ["strings", "bells"]
    for card, other in zip(cards, reversed(cards), strict=True):
        entry = entries[card.name]
        assert entry["state"] == "done"
        assert entry["validation"] == {"first": 20.0, "best": 9.0, "last": 10.0}
        assert entry["model"] == card.reference
        # The model halves what it hears: 6 dB quieter, and as far from the original wherever that is not inaudible.
        numbers = entry["samples"]
        assert numbers["reconstruction"]["level_dbfs"] == pytest.approx(numbers["original"]["level_dbfs"] - 6.02, abs=0.15)
        assert 4.5 < numbers["reconstruction"]["spectral_distance_db"] < 6.1
        original = stored_sound(any_store, card, "original", tmp_path)
        assert 5.5 * RATE < original.shape[1] <= 6 * RATE or original.shape[1] > 3.5 * RATE
        assert np.abs(stored_sound(any_store, card, "reconstruction", tmp_path) - original / 2).max() < 1e-3
        theirs = stored_sound(any_store, other, "original", tmp_path)
        assert np.abs(stored_sound(any_store, card, "transfer", tmp_path) - theirs / 2).max() < 1e-3
    assert len(sounds(page)) == len(sounds(page, "image/png")) == 6
    assert len(page) < 2_000_000
    for word in (
        "held out of training: strings-",
        "12 ms back",
        "trained for 1 min 15 s (expected: 1 min 00 s)",
        "not a",
        "broken &lt;take&gt;.wav",
        "phase 2 · adversarial",
        "−50 %",
    ):
        assert word in page, word


def test_an_excerpt_is_what_was_held_out(night: Callable[..., Night], local_store: Store, tmp_path: Path) -> None:
    from rave_dist.dataset.read import read_segments
    from rave_dist.dataset.split import split

    library = night(drum="membrane")
    card = library.done("drum")
    library.write()
    manifest = library.store.read_json(f"datasets/drum/{card.dataset}/manifest.json")
    segments = read_segments(local_store, DatasetManifest.model_validate(manifest))
    parts = split(segments, sample_rate=RATE, window=16384)
    middle = stored_sound(local_store, card, "original", tmp_path)[0][RATE : RATE + 2000]

    def holds(pcm: np.ndarray) -> bool:
        windows = np.lib.stride_tricks.sliding_window_view(pcm[0] / 32768, len(middle))
        return bool((np.abs(windows[:, ::97] - middle[::97]).max(axis=1) < 1e-4).any())

    assert any(holds(segment.pcm) for segment in parts.validation)
    assert not any(holds(segment.pcm) for segment in parts.train)


def test_one_instrument_alone_is_given_a_bird(night: Callable[..., Night]) -> None:
    library = night(drum="membrane")
    library.done("drum")
    page = library.write()
    assert "kingfisher-like trill, played through drum" in page
    transfer = document(page)["instruments"][0]["samples"]["transfer"]
    assert 2800 < transfer["brightness_hz"] < 4500


def test_a_rerun_recomputes_nothing_and_does_not_need_the_model(night: Callable[..., Night]) -> None:
    library = night(strings="plucked_string", bells="bell")
    cards = [library.done(name) for name in ("strings", "bells")]
    first = library.write()
    before = {entry.key: entry.tag for entry in library.store.list("models") if "/samples/" in entry.key}
    assert len(before) == 2 * 4
    for card in cards:
        library.store.delete(card.files["offline"].key)
        library.store.delete_folder(f"datasets/{card.name}/shards")
    again = library.write()
    assert {entry.key: entry.tag for entry in library.store.list("models") if "/samples/" in entry.key} == before
    assert sounds(again) == sounds(first)


def test_a_new_neighbour_is_heard(night: Callable[..., Night]) -> None:
    library = night(drum="membrane", pipe="blown_pipe")
    library.done("drum")
    page = library.write()
    assert "kingfisher" in page
    library.record("pipe", "running", dataset=library.ingested("pipe").id, phase=1, step=7)
    assert "pipe, played through drum" in library.write()


def test_every_state_has_its_card_and_says_what_to_do(night: Callable[..., Night]) -> None:
    library = night(strings="plucked_string", bells="bell", drum="membrane", pipe="blown_pipe")
    library.done("strings")
    library.curves("bells", until=12)
    bells = library.ingested("bells")
    library.record(
        "bells", "running", dataset=bells.id, phase=1, step=12, steps_per_second=1.5, validation=Validation(first=20.0)
    )
    library.record("drum", "failed", error=Problem(what="out of memory in phase 2", fix="set batch: 2"))
    page = library.write()
    states = dict(re.findall(r'<tr data-instrument="(\w+)" data-state="(\w+)"', page))
    assert states == {"strings": "done", "bells": "running", "drum": "failed", "pipe": "waiting"}
    assert [e["state"] for e in document(page)["instruments"]] == list(states.values())
    for word in ("out of memory in phase 2", "set batch: 2", "step 12 of 60", "Not trained yet", "4 instruments"):
        assert word in page, word
    assert page.count('class="chart"') >= 2


def test_what_is_passed_over_and_what_has_changed_since_is_on_the_page(night: Callable[..., Night], tmp_path: Path) -> None:
    library = night(drum="membrane")
    folder = tmp_path / "drum"
    folder.mkdir()
    for name in ("notes <1974>.txt", "plan.txt", "a.txt", "b.txt", "cover.jpg"):
        (folder / name).write_text("no recording")
    (folder / "lost.wav").symlink_to(tmp_path / "annex" / "lost.wav")
    library.done("drum")
    earlier = "this run belongs to an earlier manifest: budget changed since"
    library.records[0] = library.records[0].model_copy(update={"outdated": (earlier,)})
    page = library.write()
    table = page[page.index('<table class="passed-over">') :].partition("</table>")[0]
    rows = re.findall(r'<tr( class="missing")?><td class="num">(\d+)</td><td>([^<]+)</td>', table)
    assert rows == [(' class="missing"', "1", ".wav"), ("", "1", ".jpg"), ("", "1", ".json"), ("", "4", ".txt")]
    assert "7 more found and passed over" in page
    assert "lost.wav: not used, a link to a missing file" in page, "what may be a recording is a note of its own"
    assert f"</strong> {earlier}" in page
    assert page.count('<span class="pill outdated">outdated</span>') == 2, "in the summary and at the instrument"
    entry = document(page)["instruments"][0]
    assert entry["outdated"] == [earlier]
    assert [item["count"] for item in entry["passed_over"]] == [1, 1, 1, 4]


def test_a_library_before_its_first_run_has_a_page(night: Callable[..., Night]) -> None:
    page = night(drum="membrane").write()
    assert "1 waiting" in page
    assert not sounds(page)


def test_a_lost_model_is_said_and_does_not_stop_the_page(night: Callable[..., Night]) -> None:
    library = night(strings="plucked_string", bells="bell")
    card = library.done("strings")
    library.done("bells")
    library.store.write_bytes(card.files["offline"].key, b"not what was published")
    page = library.write()
    assert "no samples of this model" in page
    assert len(sounds(page)) == 3


def test_what_people_write_is_shown_and_never_run(night: Callable[..., Night]) -> None:
    library = night(drum="membrane")
    library.done(
        "drum", credit={"performer": NASTY, NASTY: "x", "source": "javascript:alert(1)", "home": "https://example.org/a"}
    )
    library.records[0] = library.records[0].model_copy(update={"error": Problem(what=NASTY, fix=NASTY)})
    page = library.write()
    assert "<img src=x" not in page
    assert "<b>bold" not in page
    assert "{{ 7 * 7 }}" in page
    assert 'href="javascript' not in page
    assert '<a href="https://example.org/a"' in page
    assert document(page)["instruments"][0]["error"]["what"] == NASTY


# ---------------------------------------------------------------- in the browser


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a library with every state and with hostile words, as a file."""
    folder = tmp_path_factory.mktemp("night")
    instruments = {"strings": "plucked_string", "bells": "bell", "drum": "membrane", "pipe": "blown_pipe"}
    library = Night(Store(str(folder / "store")), folder, instruments)
    library.done("strings", credit={"performer": NASTY, "licence": "CC0"})
    library.done("bells")
    library.curves("drum", until=12)
    library.record("drum", "running", phase=1, step=12)
    library.record("pipe", "failed", error=Problem(what=NASTY, fix="a" * 300))
    path = folder / "the page.html"
    path.write_text(library.write())
    return path


def test_the_browser_shows_and_plays_everything_and_asks_for_nothing(browser: Browser, page: Path) -> None:
    browser.open(page)
    assert browser.complaints == []
    assert [url for url in browser.requests if not url.startswith("data:")] == [page.as_uri()]
    assert browser.evaluate("document.title") == "night · rave-dist"
    pictures = browser.evaluate("[...document.images].map(i => [i.complete, i.naturalWidth, i.naturalHeight, i.alt])")
    assert len(pictures) == 6
    for complete, width, height, alt in pictures:
        assert (complete, width, height) == (True, 600, 180)
        assert alt.startswith("Spectrogram of ")
    written = document(page.read_text())["instruments"]
    expected = [entry["samples"][role]["seconds"] for entry in written[:2] for role in ROLES]
    assert browser.evaluate(DURATIONS) == pytest.approx(expected, abs=0.06)
    for (seconds, peak), truth in zip(browser.evaluate(DECODED), expected, strict=True):
        assert seconds == pytest.approx(truth, abs=0.06)
        assert peak > 0.05
    charts = browser.evaluate("[...document.querySelectorAll('.chart svg')].map(s => s.getBoundingClientRect().height)")
    assert len(charts) >= 4
    assert min(charts) > 100


def test_a_click_on_a_spectrogram_plays_from_there_and_one_sound_at_a_time(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.evaluate(DURATIONS)
    state = browser.evaluate("""(async () => {
      const [first, second] = document.querySelectorAll("figure.sound");
      const box = first.querySelector(".picture").getBoundingClientRect();
      const [a, b] = [first, second].map(figure => figure.querySelector("audio"));
      const playing = audio => new Promise(done => audio.addEventListener("playing", done, {once: true}));
      const began = playing(a);
      first.querySelector(".picture").dispatchEvent(new MouseEvent("click", {clientX: box.left + box.width / 2}));
      await began;
      const at = a.currentTime / a.duration;
      const head = !first.querySelector(".head").hidden;
      const next = playing(b);
      b.play();
      await next;
      return {at, head, paused: a.paused, other: !b.paused};
    })()""")
    assert state.pop("at") == pytest.approx(0.5, abs=0.15)
    assert state == {"head": True, "paused": True, "other": True}
    assert browser.complaints == []


@pytest.mark.parametrize("width", [320, 390, 768, 1600])
def test_no_width_needs_sideways_scrolling(browser: Browser, page: Path, width: int) -> None:
    browser.open(page, width=width)
    assert browser.evaluate("document.documentElement.scrollWidth") <= width


def test_light_and_dark_follow_the_reader(browser: Browser, page: Path) -> None:
    def brightness(selector: str, style: str) -> int:
        colour = browser.evaluate(f"getComputedStyle(document.querySelector('{selector}')).{style}")
        return sum(map(int, re.findall(r"\d+", colour)[:3]))

    contrasts = []
    for dark in (False, True):
        browser.open(page, dark=dark)
        paper, ink = brightness("body", "backgroundColor"), brightness("body", "color")
        assert (ink > paper) == dark
        contrasts.append(abs(ink - paper))
        assert abs(brightness(".chart svg text", "fill") - paper) > 200
    assert min(contrasts) > 450


def test_foreign_script_is_refused_by_the_page_itself(browser: Browser, page: Path, tmp_path: Path) -> None:
    text = page.read_text()
    changed = tmp_path / "changed.html"
    changed.write_text(
        text.replace("<footer>", "<script>document.title = 'stolen'</script><img src='https://example.org/x.png'><footer>")
    )
    browser.open(changed)
    assert browser.evaluate("document.title") == "night · rave-dist"
    assert any("Content Security Policy" in complaint for complaint in browser.complaints)
    assert not any(event["method"] == "Network.responseReceived" and "example.org" in str(event) for event in browser.events)
