from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rave_dist.scheduling.admission import (
    ALL_MEMORY,
    Candidate,
    Host,
    Need,
    Room,
    Share,
    admit,
    cost,
    cpus_per_run,
    gpu_share,
    has_room,
    missing,
)

GIB = 2**30


def card(host: str = "a", gpus: int = 1, **fields: object) -> Host:
    return Host(host, cpus=32, gpus=gpus, gpu_bytes=80 * GIB, **fields)  # type: ignore[arg-type]


def on_gpu(name: str, gib: float, seconds: float = 1.0, priority: int = 0) -> Candidate:
    return Candidate(name, Need(gpu_bytes=round(gib * GIB)), seconds=seconds, priority=priority)


def names(started: list[tuple[Candidate, Share]]) -> list[str]:
    return [candidate.name for candidate, _ in started]


def test_two_cores_train_two_at_once() -> None:
    host = Host("a", cpus=2)
    assert cpus_per_run([host], 4) == 1
    assert len(admit([Candidate(str(n), Need()) for n in range(4)], Room([host]))) == 2


def test_one_instrument_gets_the_laptop_but_not_its_last_core() -> None:
    assert cpus_per_run([Host("a", 8)], 1) == 7
    assert cpus_per_run([Host("a", 8)], 3) == 2
    assert cpus_per_run([Host("a", 2)], 1) == 2


@pytest.mark.parametrize("order", list(itertools.permutations(("head", "one", "other"))))
def test_the_core_that_stays_free_is_no_particular_host_s(order: tuple[str, ...]) -> None:
    """Runs of two cores: both workers take one, and the worker that is left after a loss takes the other's."""
    cluster = {name: Host(name, cpus=2, labels=(("role", "head" if name == "head" else "worker"),)) for name in order}
    waiting = [Candidate(name, Need(2, labels=(("role", "worker"),))) for name in ("high", "low")]
    assert {share.host for _, share in admit(waiting, Room(cluster.values()))} == {"one", "other"}
    left = [host for host in cluster.values() if host.id != "one"]
    assert [share.host for _, share in admit(waiting, Room(left))] == ["other"]
    assert len(admit([Candidate("a", Need(2)), Candidate("b", Need(2))], Room(left))) == 1


def test_a_run_that_needs_all_cores_of_a_host_starts() -> None:
    assert has_room([Host("a", cpus=4)], Need(4))
    assert not admit([Candidate("a", Need(2))], Room([Host("a", cpus=4)], [Share("a", cpus=2)]))


def test_a_run_never_spans_hosts() -> None:
    hosts = [Host("a", 2), Host("b", 2)]
    assert cpus_per_run(hosts, 1) == 2
    assert len(admit([Candidate(str(n), Need(cpus=2)) for n in range(2)], Room(hosts))) == 1, "one core is left for data"


def test_a_gpu_is_shared_by_memory() -> None:
    assert gpu_share(4 * GIB, 80 * GIB) == 1 / 8, "more runs would wait for each other's kernels"
    assert gpu_share(20 * GIB, 80 * GIB) == pytest.approx(0.35)
    assert gpu_share(30 * GIB, 80 * GIB) == pytest.approx(0.5)
    assert gpu_share(200 * GIB, 80 * GIB) == 1
    assert gpu_share(0, 80 * GIB) == 1, "one that was not measured"
    assert gpu_share(4 * GIB, 0) == 1


def test_every_run_gets_a_share_of_its_own() -> None:
    started = admit([on_gpu("large", 40), on_gpu("small", 4), on_gpu("medium", 10)], Room([card()]))
    assert {candidate.name: share.gpus for candidate, share in started} == pytest.approx(
        {"large": 0.65, "medium": 0.2, "small": 0.125}
    )


def test_fractions_of_a_gpu_do_not_reach_over_to_the_next() -> None:
    started = admit([on_gpu(str(n), 36) for n in range(9)], Room([card(gpus=2)]))
    assert [share.gpus for _, share in started] == pytest.approx([0.6, 0.6])
    assert {share.gpu for _, share in started} == {0, 1}


def test_smaller_runs_do_not_overtake_a_higher_priority_for_ever() -> None:
    """The large one is next on the card with most room; the small ones may have the rest of the other."""
    running = [Share("a", 1, gpus=0.5, gpu=0), Share("a", 1, gpus=0.75, gpu=1)]
    waiting = [on_gpu("large", 80, priority=5), *(on_gpu(f"small {n}", 6) for n in range(6))]
    assert names(admit(waiting, Room([card(gpus=2)], running))) == ["small 0", "small 1"]
    assert names(admit(waiting, Room([card(gpus=2)], running[1:]))) == ["large", "small 0", "small 1"]
    nowhere = Candidate("nowhere", Need(gpu_bytes=GIB, labels=(("zone", "b"),)), priority=9)
    assert names(admit([nowhere, on_gpu("small", 6)], Room([card()]))) == ["small"]


def test_a_run_that_needs_all_memory_of_a_host_gets_one() -> None:
    hosts = [Host("a", 4, memory=8 * GIB), Host("b", 4, memory=8 * GIB)]
    running = [Share("a", 1, GIB), Share("a", 1, GIB), Share("b", 1, GIB)]
    alone = Candidate("alone", Need(1, ALL_MEMORY), priority=1)
    others = [Candidate(str(n), Need(1, GIB)) for n in range(4)]
    assert {share.host for _, share in admit([alone, *others], Room(hosts, running))} == {"a"}
    pair = Candidate("pair", Need(4, workers=2), priority=1)
    assert admit([pair, *others], Room(hosts, running)) == []
    assert {share.host for _, share in admit([alone, *others], Room(hosts, running[:2]))} == {"a", "b"}


def test_the_longest_starts_first_and_a_priority_before_it() -> None:
    runs = [on_gpu("short", 60, 1), on_gpu("long", 60, 9), on_gpu("urgent", 60, 2, priority=1)]
    assert names(admit(runs, Room([card(gpus=2)]))) == ["urgent", "long"]
    assert names(admit(runs, Room([card(gpus=2)]), most=1)) == ["urgent"]


def test_a_smaller_run_fills_what_a_larger_one_cannot_use() -> None:
    room = Room([card()], [Share("a", 1, gpus=0.5)])
    assert names(admit([on_gpu("large", 60, 9), on_gpu("small", 4)], room)) == ["small"]


def test_the_fullest_card_is_taken_first() -> None:
    room = Room([card("a", gpus=2), card("b", gpus=2)], [Share("b", 1, gpus=0.5, gpu=1)])
    ((_, share),) = admit([on_gpu("small", 4)], room)
    assert (share.host, share.gpu) == ("b", 1)


def test_runs_on_cpus_are_spread_over_hosts() -> None:
    started = admit([Candidate(str(n), Need()) for n in range(2)], Room([Host("a", 2), Host("b", 2)]))
    assert {share.host for _, share in started} == {"a", "b"}


def test_a_run_goes_where_its_accelerator_and_labels_are() -> None:
    north = (("zone", "north"),)
    room = Room([card("a", accelerator="T4"), card("b", accelerator="H100", labels=north)])
    found = [room.find(need) for need in (Need(gpu_bytes=GIB, accelerator="H100"), Need(gpu_bytes=GIB, labels=north))]
    assert [share and share.host for share in found] == ["b", "b"]
    assert room.find(Need(gpu_bytes=GIB, accelerator="T4", labels=north)) is None


def test_a_run_avoids_hosts() -> None:
    room = Room([Host("empty", 8), Host("busy", 8)], [Share("busy", 6)])
    found = [room.find(Need(avoid=frozenset(hosts))) for hosts in ((), ("empty",), ("empty", "busy"))]
    assert [share and share.host for share in found] == ["empty", "busy", None]


def test_memory_is_a_limit_except_for_a_run_alone() -> None:
    host = Host("a", cpus=16, memory=10 * GIB)
    assert len(admit([Candidate(str(n), Need(memory=4 * GIB)) for n in range(3)], Room([host]))) == 2
    assert len(admit([Candidate(str(n), Need(memory=40 * GIB)) for n in range(2)], Room([host]))) == 1


def test_what_others_hold_is_not_free() -> None:
    room = Room([card(gpus=2)])
    room.limit("a", cpus=32, memory=1e12, gpus=0.5)
    assert names(admit([on_gpu("large", 60), on_gpu("small", 4)], room)) == ["small"]
    room = Room([Host("a", cpus=8)])
    room.limit("a", cpus=1, memory=1e12, gpus=0)
    assert len(admit([Candidate(str(n), Need()) for n in range(3)], room)) == 1


def test_a_library_takes_all_unless_another_wants_it() -> None:
    runs = [on_gpu(str(n), 60) for n in range(9)]
    assert len(admit(runs, Room([card(gpus=8)]))) == 8
    assert len(admit(runs, Room([card(gpus=8)]), allowance=2.5)) == 3
    assert len(admit(runs, Room([card(gpus=8)]), allowance=0)) == 1, "neither has anything yet"
    assert admit(runs, Room([card(gpus=8)]), allowance=-0.1) == []


def test_two_libraries_take_turns_on_one_card() -> None:
    """Also where the one that has just ended a run is always asked first."""
    waiting = {name: [on_gpu(f"{name}{n}", 60, seconds=seconds) for n in range(6)] for name, seconds in (("a", 1), ("b", 2))}
    taken = {"a": 0.0, "b": 0.0}
    turns = ""
    while all(waiting.values()):
        for name in sorted(waiting, key=lambda name: turns[-1:] != name):
            rival = "b" if name == "a" else "a"
            started = admit(waiting[name], Room([card()]), allowance=taken[rival] - taken[name])
            for candidate, _ in started:
                waiting[name].remove(candidate)
                taken[name] += cost(candidate, Room([card()]))
                turns += name
            if started:
                break
    assert turns == "abaabaaba"


def test_a_run_without_room_says_what_it_waits_for() -> None:
    assert missing([Host("a", 0)], Need()) == "a host with 1 CPU"
    assert missing([Host("a", 2)], Need(cpus=2)) == "2 CPUs, which other work holds"
    memory = Need(memory=3 << 29)
    assert missing([Host("a", 2, memory=2 << 30)], memory) == "1 CPU and 1.5 GiB of memory, which other work holds"
    alone = Need(memory=ALL_MEMORY)
    assert missing([Host("a", 2, memory=2 << 30)], alone) == "1 CPU and all memory of a host, which other work holds"
    assert missing([card()], on_gpu("small", 8).need) == "1 CPU and 15% of a GPU, which other work holds"
    north = Need(gpu_bytes=60 * GIB, accelerator="H100", labels=(("zone", "north"),))
    assert missing([card()], north) == "a host with 1 CPU and a H100 and label zone=north"


@given(st.lists(st.integers(1, 64), min_size=1, max_size=5), st.integers(1, 50))
def test_no_more_cpus_are_given_than_there_are(cpus: list[int], runs: int) -> None:
    hosts = [Host(str(n), count) for n, count in enumerate(cpus)]
    each = Need(cpus=cpus_per_run(hosts, runs))
    started = admit([Candidate(str(n), each) for n in range(runs)], Room(hosts))
    for host in hosts:
        assert sum(share.cpus for _, share in started if share.host == host.id) <= host.cpus


@given(st.lists(st.floats(0.1, 100), min_size=1, max_size=40), st.integers(1, 4))
def test_no_gpu_is_given_twice(gib: list[float], gpus: int) -> None:
    started = admit([on_gpu(str(n), size) for n, size in enumerate(gib)], Room([card(gpus=gpus)]))
    for gpu in range(gpus):
        assert sum(share.gpus for _, share in started if share.gpu == gpu) <= 1 + 1e-6
    assert started


def test_several_workers_start_together_on_cards_of_their_own() -> None:
    four = Need(gpu_bytes=0, workers=4)
    share = Room([card("a", gpus=3), card("b", gpus=4)]).find(four)
    assert share is not None
    assert [(one.host, one.gpu, one.gpus) for one in share.all] == [("b", 0, 1), ("b", 1, 1), ("b", 2, 1), ("b", 3, 1)]
    spread = Room([card("a", gpus=3), card("b", gpus=3)]).find(four)
    assert spread is not None
    assert spread.hosts == {"a", "b"}, "no host has four"
    assert Room([card("a", gpus=3)]).find(four) is None
    assert missing([card("a", gpus=3)], four) == "a host with 1 CPU and a GPU for each of 4 workers"


def test_what_several_workers_take_is_not_free() -> None:
    room = Room([Host("a", cpus=2), Host("b", cpus=1)])
    ((pair, share), (single, _)) = admit([Candidate("pair", Need(workers=2), 9.0), Candidate("single", Need(), 1.0)], room)
    assert (pair.name, len(share.all), single.name) == ("pair", 2, "single")
    assert room.find(Need()) is None
    assert cost(pair, Room([card(gpus=2)])) == pytest.approx(9.0 * 2 / 32), "of a host with 32 CPUs"


def test_several_workers_leave_a_cpu_as_one_run_does() -> None:
    pair, single = Need(workers=2), Need()
    assert Room([Host("a", cpus=4)], [Share("a", cpus=2)]).find(pair) is None
    assert Room([Host("a", cpus=4)], [Share("a", cpus=2)]).find(single) is not None
    assert Room([Host("a", cpus=2), Host("b", cpus=2)]).find(Need(cpus=2, workers=2)) is not None, "the first run has all"
