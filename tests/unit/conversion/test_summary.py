"""A conversion's outcomes are summed up in memory that does not grow with the archive."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

from rave_dist.conversion.corpus import Plan
from rave_dist.conversion.item import Outcome
from rave_dist.conversion.job import Job, finish
from rave_dist.conversion.summary import Summary
from rave_dist.records import ConversionItem, ConversionParameters, Problem, remarks
from rave_dist.storage.store import Store
from tests.sample_records import model_card


def item(number: int, **values: object) -> ConversionItem:
    return ConversionItem(
        **{  # type: ignore[arg-type]
            "source": f"/archive/{number:06}.wav",
            "source_sha256": "0" * 64,
            "output": f"/converted/{number:06}.wav",
            "state": "converted",
            "seconds": 0.1,
            **values,
        }
    )


def outcomes(count: int) -> Iterator[Outcome]:
    return (Outcome(item(number), "one") for number in range(count))


def test_a_hundred_times_as_many_outcomes_take_no_more_memory(local_store: Store) -> None:
    plan = Plan("one", model_card(), ConversionParameters(), Store("out"), ())
    job = Job(local_store, (plan,), (), 20.0, ())
    finish(job, outcomes(10))  # what is made once
    peaks = []
    for count in (50, 5000):
        tracemalloc.start()
        (record,) = finish(job, outcomes(count))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert record.converted == count
    assert peaks[1] < peaks[0] + 20_000, "a single outcome has more than 1,000 bytes"


def test_the_record_names_what_is_to_be_looked_at_in_order_of_source_and_counts_all() -> None:
    plan = Plan("one", model_card(), ConversionParameters(), Store("out"), ())
    found = [
        item(5, state="failed", reason="damaged", seconds=0.0),
        item(4, notes=("a wrong header",)),
        item(3),
        item(2, state="failed", reason="missing", seconds=0.0),
        item(1, clipped=Problem(what="clipped", fix="mix")),
    ]
    summary, before = Summary(), Summary()
    before.add(Outcome(item(9, seconds=7.0), "one", skipped=True))
    summary = before.copy()
    for each in found:
        summary.add(Outcome(each, "one"))
    record = summary.record(plan)
    assert (record.converted, record.skipped, len(record.failed), record.seconds) == (3, 1, 2, 0.3)
    assert [each.reason for each in record.failed] == ["missing", "damaged"]
    assert [each.source for each in record.clipped] == ["/archive/000001.wav"]
    assert record.notes == ("/archive/000004.wav: a wrong header",)
    assert (before.count, before.named) == (1, [])


def test_a_remark_names_the_models_that_it_is_of_unless_it_is_of_all() -> None:
    records = []
    for model, notes in (("a@1", ("a wrong header", "quieter")), ("b@1", ("a wrong header",)), ("c@1", ("a wrong header",))):
        plan = Plan(model, model_card(), ConversionParameters(), Store("out"), ())
        summary = Summary()
        summary.add(Outcome(item(1, notes=notes), model))
        records.append(summary.record(plan).model_copy(update={"model": model}))
    header, quieter = "/archive/000001.wav: a wrong header", "/archive/000001.wav: quieter"
    assert remarks(records) == (header, f"{quieter} (a@1)")
    assert remarks(records[:1]) == (header, quieter)
