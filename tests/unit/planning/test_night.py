"""The plan of a night, from the facts of real small models."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rave_dist.errors import ConfigurationError
from rave_dist.library.manifest import Library
from rave_dist.planning.night import Night, plan_night
from rave_dist.scheduling.admission import Host, Need
from rave_dist.scheduling.cards import CARDS, Card, find_card
from rave_dist.training.heartbeat import write_record
from rave_dist.training.needs import Needs
from rave_dist.training.speeds import Speeds
from tests.sample_records import dry_run_result, run_record

pytestmark = pytest.mark.slow

SMALL = {"config": "v2_small", "override": {"CAPACITY": 4, "LATENT_SIZE": 8}, "window": 40960, "batch": 2}
HOUR = 3600.0
START = 60.0
GIB = 1 << 30


@pytest.fixture
def library(tmp_path: Path) -> Callable[..., Library]:
    """A library of instruments with these settings; their recordings are not read."""

    def write(*instruments: dict[str, Any], **manifest: Any) -> Library:
        named = {f"i{n}": {"sources": ["none"], **settings} for n, settings in enumerate(instruments)}
        document = {"name": "band", "store": str(tmp_path / "store"), "defaults": SMALL, "instruments": named, **manifest}
        return Library.from_dict(document, folder=tmp_path)

    return write


def planned(library: Library, **options: Any) -> Night:
    return plan_night(library, library.instruments, **options)


def test_small_runs_share_a_card_and_an_hour_is_an_hour(library: Callable[..., Library]) -> None:
    night = planned(library(*[{"budget": {"hours": 2}}] * 8), card=CARDS["H100"], price=2.5)
    assert {(run.share, run.start, run.end) for run in night.runs} == {(0.125, 0.0, 2 * HOUR + START)}
    assert night.card_hours == pytest.approx(2 + START / HOUR)
    assert night.cost == pytest.approx(2.5 * night.card_hours)
    assert all(run.phase_1_steps == pytest.approx(run.steps * 2 / 3, rel=0.01) for run in night.runs)


def test_the_ninth_waits_and_more_cards_or_smaller_budgets_help(library: Callable[..., Library]) -> None:
    nine = library(*[{"budget": {"hours": 2}}] * 9)
    night = planned(nine, card=CARDS["H100"], deadline=3 * HOUR)
    assert night.end == pytest.approx(4 * HOUR + 2 * START)
    assert len(night.late) == 1
    assert "take 2 cards" in night.change
    assert "of each budget" in night.change
    assert planned(nine, card=CARDS["H100"], cards=2, deadline=3 * HOUR).late == ()


def test_several_workers_take_a_card_each(library: Callable[..., Library]) -> None:
    pair = library({"budget": {"hours": 1}, "workers": 2}, {"budget": {"hours": 1}})
    night = planned(pair, card=CARDS["H100"], cards=2)
    assert [(run.name, run.share, run.start) for run in night.runs] == [("i0", 2.0, 0.0), ("i1", 0.125, HOUR + START)]
    with pytest.raises(ConfigurationError, match="for each of 2 workers"):
        planned(pair, card=CARDS["H100"])


def test_a_run_for_a_type_of_card_is_planned_on_that_type(library: Callable[..., Library]) -> None:
    placed = library({"budget": {"hours": 1}, "placement": {"accelerator": "H100"}})
    assert planned(placed, card=CARDS["H100"]).end == HOUR + START
    with pytest.raises(ConfigurationError, match="no host of the plan") as caught:
        planned(placed, card=CARDS["T4"])
    assert "H100" in caught.value.fix


def test_a_limit_of_concurrent_runs_is_kept(library: Callable[..., Library]) -> None:
    night = planned(library(*[{"budget": {"hours": 1}}] * 4, max_concurrent=2), card=CARDS["H100"])
    assert night.end == pytest.approx(2 * (HOUR + START))


def test_a_joint_base_ends_before_the_others_start(library: Callable[..., Library]) -> None:
    defaults = {**SMALL, "base": {"train": True, "budget": {"hours": 3}}}
    night = planned(library(*[{"budget": {"hours": 1}}] * 2, defaults=defaults), card=CARDS["H100"])
    assert [(run.name, run.start) for run in night.runs] == [
        ("band-base", 0.0),
        *((name, 3 * HOUR + START) for name in ("i0", "i1")),
    ]
    assert night.end == 4 * HOUR + 2 * START


def test_a_run_for_which_no_host_has_room_is_named(library: Callable[..., Library]) -> None:
    elsewhere = library({"placement": {"labels": {"zone": "b"}}, "budget": {"hours": 1}})
    with pytest.raises(ConfigurationError, match="no host") as caught:
        planned(elsewhere)
    assert (caught.value.where, "label zone=b" in caught.value.fix) == ("i0", True)


def test_past_runs_on_the_same_card_are_believed_more_than_its_data_sheet(library: Callable[..., Library]) -> None:
    band = library({"budget": {"steps": 12_000}}, {"budget": {"steps": 12_000}, "batch": 4})
    before = planned(band, card=CARDS["H100"])
    past = run_record(instrument="i0", step=3000, phase_1_steps=2000, seconds=600.0, device="NVIDIA H100 80GB HBM3")
    band.training_spec("i0", dataset="").save(band.store, past.folder.spec)
    write_record(band.store, past)
    night = planned(band, card=CARDS["H100"])
    assert {run.name: run.source for run in night.runs} == {"i0": "measured", "i1": "estimated"}
    (measured,) = [run for run in night.runs if run.name == "i0"]
    assert measured.end - measured.start == pytest.approx(12_000 / 3000 * 600 + START)
    assert {run.source for run in planned(band, card=CARDS["T4"]).runs} == {"estimated"}
    assert {run.source for run in before.runs} == {"estimated"}


def test_what_a_step_used_on_this_kind_of_device_is_believed_more_than_its_model(library: Callable[..., Library]) -> None:
    band = library(*[{"budget": {"hours": 1}}] * 3)
    specs = [band.training_spec(name, dataset="") for name in band.instruments]
    host = Host("a", cpus=8.0, gpus=1, gpu_bytes=80 * GIB)

    def keep(name: str, **values: Any) -> None:
        result = dry_run_result(specs[0], name, **values)
        result.save(band.store, result.key)

    def need(card: Card | None = CARDS["H100"], threads: int | None = None) -> Need:
        needs = Needs(band.store, specs, [host], Speeds(band.store, band.name, band.instruments, card))
        return needs.candidate(specs[1], run_record(threads=threads)).need

    estimated, on_cpus = need(), need(None)
    keep("cpu", device="this machine", device_bytes=GIB, host_bytes=2 * GIB, cpus=1.9)
    keep("parts", accumulation_steps=2, device_bytes=70 * GIB)
    keep("", id="0123456789ab-of another step")
    assert need() == estimated, "of a CPU, of a step in parts, and of another step"
    assert need(None) == replace(on_cpus, memory=round(1.1 * 2 * GIB)), "threads decide the rounding"

    assert {run.share for run in planned(band, card=CARDS["H100"]).runs} == {0.125}
    keep("small", device_bytes=GIB)
    keep("large", cpus=2.4)
    assert need() == Need(cpus=2, memory=round(1.1 * 3 * GIB), gpu_bytes=20 * GIB)
    assert need(threads=5).cpus == 5, "a run keeps the threads that it began with"
    night = planned(band, card=CARDS["H100"])
    assert [(run.share, run.start) for run in night.runs] == [(0.35, 0.0), (0.35, 0.0), (0.35, HOUR + START)]
    keep("after an error", device_bytes=81 * GIB)
    with pytest.raises(ConfigurationError, match=r"needs 81\.0 GiB of memory, a H100 has 80 GiB"):
        planned(band, card=CARDS["H100"])


def test_without_a_card_the_cpus_of_this_machine_are_planned(library: Callable[..., Library]) -> None:
    night = planned(library({"budget": {"steps": 10}}))
    assert (night.card, night.card_hours, night.cost) == (None, 0.0, None)
    assert night.end > START


def test_a_step_that_no_card_of_the_kind_holds_is_refused(library: Callable[..., Library]) -> None:
    large = library({"batch": 4096, "window": 131072, "budget": {"hours": 1}})
    with pytest.raises(ConfigurationError, match="GiB") as caught:
        planned(large, card=CARDS["T4"])
    assert (caught.value.where, "batch: auto" in caught.value.fix) == ("i0", True)
    found = re.search(r"set batch: (\d+)", caught.value.fix)
    assert found is not None
    assert planned(library({"batch": int(found[1]), "window": 131072, "budget": {"hours": 1}}), card=CARDS["T4"]).runs
    with pytest.raises(ConfigurationError, match="GiB"):
        planned(library({"batch": int(found[1]) + 1, "window": 131072, "budget": {"hours": 1}}), card=CARDS["T4"])


@pytest.mark.parametrize(("said", "meant"), [("h100", "H100"), ("rtx 4090", "RTX-4090")])
def test_cards_are_found_in_any_spelling(said: str, meant: str) -> None:
    assert find_card(said).name == meant


def test_a_misspelt_card_is_named() -> None:
    with pytest.raises(ConfigurationError) as caught:
        find_card("H1000")
    assert "H100" in caught.value.fix
