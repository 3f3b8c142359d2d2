"""RAVE without what only stock's Trainer and validation use: the same weights; the packages can be imported afterwards."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

PROGRAM = """
import hashlib, json, sys
if sys.argv[1] == "with":
    import pytorch_lightning
import torch
from rave_dist.rave.config import configure
from rave_dist.rave.imports import rave_module
from rave_dist.rave.models import build_model
from rave_dist.training.step.training_step import TrainingStep

torch.set_num_threads(1)
text = configure(["v2_small"], {"CAPACITY": 4, "LATENT_SIZE": 4}, sample_rate=44100, channels=1)
torch.manual_seed(0)
model = build_model(text, channels=1)
step = TrainingStep(model, phase_1_steps=1, warmup_steps=1, device=torch.device("cpu"))
batch = torch.rand(1, 1, 40960) - 0.5
for number in range(3):
    step(batch, number)
digest = hashlib.sha256()
for name, value in model.state_dict().items():
    digest.update(name.encode() + value.numpy().tobytes())
loaded = sorted({"pytorch_lightning", "sklearn", "pandas", "torch._dynamo", "sympy"} & set(sys.modules))
import pytorch_lightning
print(json.dumps({
    "weights": digest.hexdigest(),
    "is_lightning": isinstance(model, pytorch_lightning.LightningModule),
    "trainer": pytorch_lightning.Trainer.__name__,
    "loaded": loaded,
    "components": type(rave_module("model").PCA(2)).__module__,
}))
"""


@pytest.mark.slow
def test_the_weights_do_not_depend_on_what_the_classes_derive_from_and_nothing_unused_is_imported() -> None:
    def outcome(how: str) -> dict[str, Any]:
        ran = subprocess.run([sys.executable, "-W", "ignore", "-c", PROGRAM, how], capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stderr[-2000:]
        found: dict[str, Any] = json.loads(ran.stdout)
        return found

    plain, lightning = outcome("without"), outcome("with")
    assert (plain.pop("is_lightning"), lightning.pop("is_lightning")) == (False, True)
    assert (plain.pop("loaded"), "pytorch_lightning" in lightning.pop("loaded")) == ([], True)
    assert plain == lightning
    assert plain["trainer"] == "Trainer"  # Lightning can be imported afterwards
    assert plain["components"].startswith("sklearn.decomposition.")
