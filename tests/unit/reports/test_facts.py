"""A page says when a run learnt its recordings by heart, and not when an adversary sharpens all there is."""

from __future__ import annotations

import pytest

from rave_dist.records import LossRow, RunMetrics, ValidationRow
from rave_dist.reports.facts import curves_of


def _since(held_out: list[float], training: list[float], *, phase_1_steps: int = 1000) -> int | None:
    rows = [
        ValidationRow(step=10 * i, phase=1, held_out=distance, training=other)
        for i, (distance, other) in enumerate(zip(held_out, training, strict=True))
    ]
    return curves_of(RunMetrics(steps=1000, phase_1_steps=phase_1_steps, window=1, validation=rows)).overfitted_since


FALLING = [9.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0]


@pytest.mark.parametrize(
    ("held_out", "training", "expected"),
    [
        (FALLING, FALLING, None),
        ([9, 6, 5, 5.1, 5.3, 5.6, 6.0], FALLING, 20),
        ([9, 6, 5, 5.1, 5.3, 5.6, 6.0], [9, 6, 5, 5.1, 5.2, 5.3, 5.4], None),  # both rise: no over-fitting
        ([9, 6, 5, 4, 3.9, 4.1, 4.3], FALLING, None),  # not for long
        ([9, 6, 5, 5.05, 5.02, 5.06, 5.08], FALLING, None),  # not by much
        ([1, 6, 5, 4, 3, 2, 1.5], FALLING, None),  # before the first step nothing was learnt
        ([], [], None),
    ],
)
def test_overfitted_since(held_out: list[float], training: list[float], expected: int | None) -> None:
    assert _since(held_out, training) == expected


def test_phases_are_judged_apart() -> None:
    held_out = [9, 5, 1, 4.0, 3.0, 3.5, 3.6, 3.7]
    training = [9, 5, 1, 4.0, 3.0, 2.9, 2.8, 2.7]
    assert _since(held_out, training, phase_1_steps=20) == 40
    assert _since(held_out[:6], training[:6], phase_1_steps=20) is None


def test_values_that_are_not_finite_are_left_out() -> None:
    validation = [ValidationRow(step=i, phase=1, held_out=None if i == 1 else 2.0, training=3.0) for i in range(3)]
    train = [LossRow(step=i, phase=1, values={"loss": None if i == 2 else 1.0}) for i in range(3)]
    curves = curves_of(RunMetrics(steps=80, phase_1_steps=80, window=1, train=train, validation=validation))
    assert [point.step for point in curves.held_out.points] == [0, 2]
    assert [point.step for point in curves.training.points] == [0, 1, 2]
    assert [point.step for point in curves.losses[0].points] == [0, 1]
