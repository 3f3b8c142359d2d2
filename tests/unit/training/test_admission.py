from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rave_dist.errors import ClusterError
from rave_dist.training.admission import Node, Share, admit, capacity, gpu_share, share

GIB = 2**30


def test_two_cores_train_two_at_once() -> None:
    nodes = [Node(2)]
    assert share(nodes, 4) == Share(1)
    assert capacity(nodes, Share(1)) == 2


def test_one_instrument_gets_the_laptop_but_not_its_last_core() -> None:
    assert share([Node(8)], 1) == Share(7)
    assert share([Node(8)], 3) == Share(2)
    assert share([Node(2)], 1) == Share(2)


def test_a_run_never_spans_nodes() -> None:
    nodes = [Node(2), Node(2)]
    assert share(nodes, 1) == Share(2)
    assert capacity(nodes, Share(2)) == 1


def test_gpus_are_packed_by_memory() -> None:
    assert gpu_share(4 * GIB, 80 * GIB) == 0.25
    assert gpu_share(20 * GIB, 80 * GIB) == pytest.approx(1 / 3)
    assert gpu_share(30 * GIB, 80 * GIB) == 0.5
    assert gpu_share(50 * GIB, 80 * GIB) == 1
    assert gpu_share(200 * GIB, 80 * GIB) == 1


def test_fractions_of_a_gpu_do_not_reach_over_to_the_next() -> None:
    nodes = [Node(32, 2)]
    third = share(nodes, 9, gpus_per_run=1 / 3)
    assert third == Share(1, 1 / 3)
    assert capacity(nodes, third) == 6
    assert capacity([Node(4, 2)], third) == 3  # its CPUs, one left for data, are fewer


def test_a_cluster_without_room_says_what_is_missing() -> None:
    with pytest.raises(ClusterError) as caught:
        share([Node(0)], 1)
    assert "1 CPU" in caught.value.fix
    with pytest.raises(ClusterError) as caught:
        share([Node(8)], 1, gpus_per_run=0.5)
    assert "0.5 GPU" in caught.value.fix


def test_what_is_about_to_start_counts_as_taken() -> None:
    common = {"capacity": 4, "wanted": Share(1)}
    assert admit(waiting=8, running=0, starting=0, free=Node(4), **common) == 4
    assert admit(waiting=8, running=4, starting=4, free=Node(4), **common) == 0
    assert admit(waiting=8, running=3, starting=1, free=Node(2), **common) == 1
    assert admit(waiting=8, running=0, starting=0, free=Node(0.5), **common) == 0
    third = {"capacity": 3, "wanted": Share(1, 1 / 3)}
    assert admit(waiting=8, running=1, starting=0, free=Node(9, 2 / 3), **third) == 2
    assert admit(waiting=8, running=1, starting=1, free=Node(9, 1), **third) == 2
    assert admit(waiting=0, running=0, starting=0, free=Node(4), **common) == 0


@given(
    cpus=st.lists(st.integers(0, 64), min_size=1, max_size=5),
    runs=st.integers(1, 50),
)
def test_no_more_cpus_are_given_than_there_are(cpus: list[int], runs: int) -> None:
    nodes = [Node(n) for n in cpus]
    if not any(cpus):
        return
    each = share(nodes, runs)
    at_once = capacity(nodes, each)
    assert at_once >= 1
    assert at_once * each.cpus <= sum(cpus)
