"""The page says what happened in training that a person should know."""

from __future__ import annotations

from pathlib import Path

from rave_dist.library.manifest import load_library
from rave_dist.options import Budget
from rave_dist.records import Rollback, RunMetrics, ValidationRow
from rave_dist.reports.page import write_report
from tests.sample_records import run_record


def test_rollbacks_and_over_fitting_are_told(tmp_path: Path) -> None:
    manifest = tmp_path / "library.yaml"
    manifest.write_text("name: band\nstore: store\ninstruments: {tabla: {sources: tabla}, rebana: {sources: rebana}}\n")
    library = load_library(manifest)
    rollback = Rollback(step=7, what="a loss is NaN or infinite at step 7, of a batch with take 1.wav at 3.20 s", rate=0.5)
    record = run_record(state="running", rollbacks=(rollback,))
    held_out, training = [9.0, 6, 5, 5.1, 5.3, 5.6], [9.0, 6, 5, 4, 3, 2]
    rows = [
        ValidationRow(step=10 * i, phase=1, held_out=distance, training=other)
        for i, (distance, other) in enumerate(zip(held_out, training, strict=True))
    ]
    RunMetrics(steps=100, phase_1_steps=67, window=65536, validation=rows).save(library.store, record.folder.metrics)

    page = library.store.read_bytes(write_report(library.store, library, [record])).decode()
    tabla, rebana = page.split('<article class="card"')[1:]
    assert "take 1.wav at 3.20 s; it was resumed from its last checkpoint with the learning rate times 0.5" in tabla
    assert "overfitted since step 20" in tabla
    assert "training audio from 9 at step 0 to 2 at step 50" in tabla  # drawn beside the held-out distance
    assert "overfitted" not in rebana


def test_the_librarys_base_has_a_card_of_its_own(tmp_path: Path) -> None:
    manifest = tmp_path / "library.yaml"
    manifest.write_text("name: band\nstore: store\ndefaults: {base: {train: true}}\ninstruments: {tabla: {sources: tabla}}\n")
    library = load_library(manifest)
    base = run_record(instrument="band-base", state="running", step=40, steps=90, phase=1)
    rows = [ValidationRow(step=step, phase=1, held_out=value, training=value) for step, value in ((0, 9.0), (40, 7.5))]
    RunMetrics(steps=90, phase_1_steps=60, window=65536, validation=rows).save(library.store, base.folder.metrics)

    page = library.store.read_bytes(write_report(library.store, library, [], base=base)).decode()
    card, tabla = page.split('<article class="card"')[1:]
    assert "trained on all instruments" in card
    assert "step 40 of 90" in card
    assert "held out from 9 at step 0 to 7.5 at step 40" in card
    assert "trained on all instruments" not in tabla
    summary = page.partition("<tbody>")[2].partition("</tbody>")[0]
    assert summary.index("band-base") < summary.index("tabla")
    assert "1 instrument:" in page
    without = library.store.read_bytes(write_report(library.store, library, [])).decode()
    assert "band-base" not in without


def test_a_run_says_what_it_does_now_and_how_long_it_may_take(tmp_path: Path) -> None:
    manifest = tmp_path / "library.yaml"
    names = ("tabla", "rebana", "kompang", "gambus")
    manifest.write_text(
        f"name: band\nstore: store\ninstruments: {{{', '.join(f'{name}: {{sources: {name}}}' for name in names)}}}\n"
    )
    library = load_library(manifest)
    budget = Budget(steps=1000)
    training = {"step": 400, "steps": 1000, "phase": 2, "steps_per_second": 2.0}
    records = [
        run_record(instrument="tabla", budget=budget, activity="waiting"),
        run_record(instrument="rebana", budget=budget, state="running", activity="dry run"),
        run_record(instrument="kompang", budget=budget, state="running", activity="training", **training),
        run_record(instrument="gambus", budget=budget, state="failed"),
    ]
    page = library.store.read_bytes(write_report(library.store, library, records)).decode()
    tabla, rebana, kompang, gambus = page.split('<article class="card"')[1:]
    assert "Not trained yet: waiting." in tabla
    assert "Dry run; no model yet." in rebana
    assert "at 2 steps a second, about 5 min left; no model yet." in kompang
    assert "No model." in gambus
