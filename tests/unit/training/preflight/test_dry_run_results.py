"""What dry runs have measured: found by the kind of device, and corrected by runs that use more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from rave_dist.records import DryRunResult
from rave_dist.scheduling.cards import CARDS, is_kind
from rave_dist.storage.store import Store
from rave_dist.training.preflight.dry_run_results import Correction, find_result, find_results
from tests.sample_records import dry_run_result, training_spec

GIB = 1 << 30
H100 = CARDS["H100"]
SPEC = training_spec()


def keep(store: Store, **values: Any) -> DryRunResult:
    """A stored result of a dry run of `SPEC`'s step."""
    result = dry_run_result(SPEC, **values)
    result.save(store, result.key)
    return result


@dataclass
class Used:
    """The peak memory of a run so far."""

    device_bytes: int
    host_bytes: int


def test_a_run_that_uses_more_corrects_the_result_and_less_does_not(local_store: Store) -> None:
    used = Used(GIB, GIB)
    correction = Correction(local_store, keep(local_store), used)

    def stored() -> tuple[int, int]:
        (result,) = find_results(local_store, [SPEC], H100).values()
        return result.device_bytes // GIB, result.host_bytes // GIB

    correction.update()
    assert stored() == (20, 3)
    keep(local_store, device_bytes=30 * GIB)  # by another run of the same step
    used.host_bytes = 4 * GIB
    correction.update()
    assert stored() == (30, 4)
    correction.out_of_memory(40 * GIB)
    assert stored() == (40, 4), "it needs more than its part of the card"
    correction.out_of_memory(None)
    used.host_bytes = 9 * GIB
    correction.update()
    assert find_results(local_store, [SPEC], H100) == {}, "alone on the card it did not fit: it is tested anew"


@pytest.mark.parametrize(
    ("values", "limit", "found"),
    [
        ({}, 80, True),
        ({}, 81, True),  # more than it was tested with
        ({}, 26, True),  # 20 GiB and the margin of admission
        ({}, 25, False),
        ({"device": "this machine"}, 79, False),  # whose address space is the limit
        ({"device": "this machine"}, 81, True),
        ({"accumulation_steps": 2}, 80, True),
        ({"accumulation_steps": 2}, 81, False),  # the whole batch may fit
    ],
)
def test_a_dry_run_is_not_repeated_where_its_step_fits(
    values: dict[str, Any], limit: int, found: bool, local_store: Store
) -> None:
    result = keep(local_store, id=f"{SPEC.step_id}-tested-{80 * GIB}", **values)
    assert find_result(local_store, f"{SPEC.step_id}-tested", limit * GIB) == (result if found else None)
    assert find_result(local_store, f"{SPEC.step_id}-teste", limit * GIB) is None


@pytest.mark.parametrize(
    ("device", "card"),
    [
        *[("NVIDIA H100 80GB HBM3", "H100"), ("NVIDIA A100-SXM4-80GB", "A100-80G"), ("NVIDIA A100-PCIE-40GB", "A100")],
        ("NVIDIA A100 80GB PCIe", "A100-80G"),
        *[("NVIDIA GeForce RTX 3090", "RTX-3090"), ("NVIDIA L40S", "L40S"), ("NVIDIA L4", "L4"), ("Tesla T4", "T4")],
        *[("Tesla V100-SXM2-16GB", "V100"), ("NVIDIA A10G", "A10G"), ("NVIDIA H200", "H200")],
    ],
)
def test_a_device_is_of_the_type_in_its_name_and_of_no_other(device: str, card: str) -> None:
    kinds = {name for name, each in CARDS.items() if is_kind(device, each)}
    assert kinds == {card}
    assert not is_kind(device, None)
