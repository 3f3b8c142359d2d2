"""What is held out is never trained on, is about a tenth, and is the same every time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rave_dist.dataset.read import Segment
from rave_dist.dataset.split import split
from rave_dist.errors import DatasetError

RATE = 1000  # windows of 1486 and 2972 samples are as long as RAVE's at 44100 Hz


def segments(*lengths: float) -> list[Segment]:
    return [
        Segment(f"source-{i}", 0, np.arange(round(s * RATE), dtype=np.int32).astype(np.int16)[None])
        for i, s in enumerate(lengths)
    ]


def seconds(parts: list[Segment]) -> float:
    return sum(s.pcm.shape[1] for s in parts) / RATE


def overlap(one: list[Segment], other: list[Segment]) -> bool:
    return any(
        a.source_id == b.source_id and a.start < b.start + b.pcm.shape[1] and b.start < a.start + a.pcm.shape[1]
        for a in one
        for b in other
    )


@pytest.mark.parametrize("window", [1486, 2972])
@pytest.mark.parametrize(
    ("lengths", "least", "most"),
    [
        ([20], 1.4, 3),
        ([60], 5, 7),
        ([229], 20, 25),
        ([229 / 80] * 80, 20, 35),
        ([3600], 59, 60),
        ([10] * 5 + [3000], 45, 90),
        ([600] * 6, 59, 60),
        ([5, 5, 5], 1.4, 5),
        ([2] * 10, 1.4, 5),
        ([0.2] * 100, 1.4, 5),
    ],
)
def test_about_a_tenth_is_held_out(lengths, least, most, window):
    whole = segments(*lengths)
    parts = split(whole, sample_rate=RATE, window=window)
    assert least <= seconds(parts.validation) <= most
    assert seconds(parts.train) >= 0.5 * seconds(whole)
    assert not overlap(parts.train, parts.validation)
    again = split(whole, sample_rate=RATE, window=window)
    assert [(s.source_id, s.start, s.pcm.shape) for s in again.validation] == [
        (s.source_id, s.start, s.pcm.shape) for s in parts.validation
    ]


def test_many_sources_are_held_out_whole():
    parts = split(segments(*[3.0] * 30), sample_rate=RATE, window=1486)
    assert not {s.source_id for s in parts.train} & {s.source_id for s in parts.validation}
    assert seconds(parts.train) + seconds(parts.validation) == pytest.approx(90)


def test_one_source_is_held_out_by_time_after_a_gap_of_a_window():
    parts = split(segments(100), sample_rate=RATE, window=1486)
    (train,), (validation,) = parts.train, parts.validation
    assert validation.start - (train.start + train.pcm.shape[1]) == 1486
    assert validation.start + validation.pcm.shape[1] == 100 * RATE


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0.01, 40), min_size=1, max_size=12), st.sampled_from([500, 1486, 2972]))
def test_nothing_is_in_both_and_both_have_something(lengths, window):
    whole = segments(*lengths)
    if seconds(whole) * RATE < 2 * window:
        with pytest.raises(DatasetError, match="only"):
            split(whole, sample_rate=RATE, window=window)
        return
    parts = split(whole, sample_rate=RATE, window=window)
    assert seconds(parts.train) > 0
    assert seconds(parts.validation) > 0
    assert not overlap(parts.train, parts.validation)
    for part in (*parts.train, *parts.validation):
        (source,) = (s for s in whole if s.source_id == part.source_id)
        np.testing.assert_array_equal(part.pcm, source.pcm[:, part.start : part.start + part.pcm.shape[1]])
