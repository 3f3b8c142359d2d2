"""Two commands on one Ray: each learns what the other has taken and where it waits."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest

from rave_dist.cluster import rivals
from rave_dist.cluster.rivals import Rivals

pytestmark = pytest.mark.usefixtures("ray_session")


@pytest.fixture
def two() -> Iterator[tuple[Rivals, Rivals]]:
    one, other = Rivals(), Rivals()
    yield one, other
    one.leave()
    other.leave()


def test_alone_a_command_may_take_everything(two: tuple[Rivals, Rivals]) -> None:
    assert two[0].lead(taken=100.0, wants=["a"]) == (math.inf, set())


def test_the_one_that_has_taken_less_goes_first(two: tuple[Rivals, Rivals]) -> None:
    one, other = two
    one.lead(taken=0.0, wants=["a", "b"])
    assert other.lead(taken=0.0, wants=["b"]) == (0.0, set()), "neither is ahead"
    assert one.lead(taken=50.0, wants=["a", "b"]) == (-50.0, {"b"}), "but the first host is wanted by nobody else"
    assert other.lead(taken=20.0, wants=["b"]) == (30.0, set())


def test_one_that_comes_later_does_not_take_all_until_it_has_caught_up(two: tuple[Rivals, Rivals]) -> None:
    early, late = two
    early.lead(taken=1000.0, wants=["a"])
    assert late.lead(taken=0.0, wants=["a"]) == (0.0, set())
    assert late.lead(taken=10.0, wants=["a"]) == (-10.0, {"a"})


def test_hosts_that_nobody_else_can_use_are_not_left_idle(two: tuple[Rivals, Rivals]) -> None:
    one, other = two
    other.lead(taken=0.0, wants=["b"])
    assert one.lead(taken=100.0, wants=["a"]) == (math.inf, set())
    other.lead(taken=0.0, wants=[])
    assert one.lead(taken=100.0, wants=["a", "b"]) == (math.inf, set()), "it waits for nothing"


def test_a_command_that_was_killed_is_forgotten(two: tuple[Rivals, Rivals], monkeypatch: pytest.MonkeyPatch) -> None:
    one, killed = two
    killed.lead(taken=0.0, wants=["a"])
    assert one.lead(taken=100.0, wants=["a"]) == (-100.0, {"a"})
    monkeypatch.setattr(rivals, "_SILENT_SECONDS", 0.0)
    assert one.lead(taken=102.0, wants=["a"]) == (math.inf, set())
