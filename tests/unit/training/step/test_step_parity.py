"""Our step is RAVE's: same seed and batches, same weights, buffers and optimizers, held against stock in a real Trainer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

CASES = ["v1", "v1_stereo", "v2", "v2_small", "v2_small_stereo", "discrete", "wasserstein", "spherical"]
STOCK_EPSILON = "v2_small:stock"
ALWAYS = {"beta_factor", "fullband_spectral_distance", "multiband_spectral_distance"}
ADVERSARIAL = {"adversarial", "feature_matching", "loss_dis", "pred_fake", "pred_real"}


@pytest.fixture(scope="module")
def results() -> dict[str, dict[str, Any]]:
    worker = Path(__file__).with_name("parity_worker.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    ran = subprocess.run(
        [sys.executable, str(worker), *CASES, STOCK_EPSILON], capture_output=True, text=True, env=environment, timeout=1500
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    return {result["case"]: result for result in map(json.loads, ran.stdout.splitlines())}


@pytest.mark.parametrize("case", CASES)
def test_training_ends_with_the_weights_of_stock_rave(results: dict[str, dict[str, Any]], case: str) -> None:
    result = results[case]
    assert result["state"] < 1e-10
    assert result["optimizers"] < 1e-10
    assert result["logged"] < 1e-10


@pytest.mark.parametrize("case", CASES)
def test_the_comparison_had_something_to_compare(results: dict[str, dict[str, Any]], case: str) -> None:
    result = results[case]
    assert min(result["moved"].values()) > 1e-4, "a network was not trained"
    assert len({round(beta, 9) for beta in result["beta"]}) > 1 or case in ("discrete", "wasserstein", "spherical")
    assert min(result["crop"]) > 0
    assert set(result["names"]) == set(result["stock_names"]) >= ALWAYS | ADVERSARIAL


@pytest.mark.parametrize("case", CASES)
def test_gradients_in_single_precision(results: dict[str, dict[str, Any]], case: str) -> None:
    assert results[case]["gradients"] < 1e-5


def test_with_rave_own_distances_and_adam_the_steps_are_the_same_also_where_rounding_explodes(
    results: dict[str, dict[str, Any]],
) -> None:
    result = results[STOCK_EPSILON]
    assert result["state"] < 1e-10
    assert result["optimizers"] < 1e-10


def test_our_own_are_no_further_from_stock_than_one_rounding_in_its_weights(
    results: dict[str, dict[str, Any]],
) -> None:
    result = results[STOCK_EPSILON]
    assert 0 < result["fused"] < 3 * result["nudged"]
