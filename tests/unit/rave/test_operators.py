"""The list of operators that a model file may have is that of the exports of every configuration."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rave_dist.registry.operators import EXPORTED, operators

pytestmark = pytest.mark.slow

EVERY_KIND = [
    *("v1", "v2_small", "v2", "causal", "noise", "stereo", "v1_stereo"),
    *("wasserstein", "discrete", "unquantised", "spherical", "raw", "v3"),
]


def test_the_list_is_what_exports_use(exports: Callable[[str], Any], tmp_path: Path) -> None:
    used: set[str] = set()
    for kind in EVERY_KIND:
        made = exports(kind)
        offline = io.BytesIO()
        torch.jit.save(made.offline, offline)
        for number, data in enumerate((offline.getvalue(), made.streaming_file)):
            path = tmp_path / f"{kind}-{number}.ts"
            path.write_bytes(data)
            used |= operators(path)
    assert used == EXPORTED
