"""A page says when a run learnt its recordings by heart, and not when an adversary sharpens all there is."""

from __future__ import annotations

import pytest

from rave_dist.reports.facts import parse_curves


def _since(held_out: list[float], training: list[float], *, phase_1_steps: int = 1000) -> int | None:
    rows = [{"step": 10 * i, "value": v, "training": t} for i, (v, t) in enumerate(zip(held_out, training, strict=True))]
    return parse_curves({"steps": 1000, "phase_1_steps": phase_1_steps, "validation": rows}).over_fitted_since


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
def test_over_fitted_since(held_out: list[float], training: list[float], expected: int | None) -> None:
    assert _since(held_out, training) == expected


def test_phases_are_judged_apart() -> None:
    held_out = [9, 5, 1, 4.0, 3.0, 3.5, 3.6, 3.7]
    training = [9, 5, 1, 4.0, 3.0, 2.9, 2.8, 2.7]
    assert _since(held_out, training, phase_1_steps=20) == 40
    assert _since(held_out[:6], training[:6], phase_1_steps=20) is None


def test_curves_of_before_have_no_measure_of_training_audio() -> None:
    rows = [{"step": 10 * i, "value": float(i)} for i in range(8)]
    curves = parse_curves({"steps": 80, "phase_1_steps": 80, "validation": rows})
    assert curves.over_fitted_since is None
    assert len(curves.held_out.points) == 8
    assert curves.heard.points == ()
