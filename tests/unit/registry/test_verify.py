"""A file that does not do what its model does is found out, whatever is wrong with it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rave_dist.errors import VerificationError
from rave_dist.registry.export import check_export
from rave_dist.registry.verify import Checks, check_attributes, verify

pytestmark = pytest.mark.slow


@pytest.fixture
def export(tiny_model: Any, tmp_path: Path) -> Path:
    """A copy of a good export."""
    torch.set_num_threads(1)
    return Path(shutil.copytree(tiny_model.out, tmp_path / "out"))


def change(out: Path, **fields: Any) -> None:
    path = out / "export.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def change_weights(path: Path, edit: Callable[[str, torch.Tensor], None]) -> None:
    model = torch.jit.load(str(path))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            edit(name, weight)
    torch.jit.save(model, str(path))


def test_a_good_export_passes(export: Path) -> None:
    numbers = verify(export, False)
    assert numbers["offline/against_model"] < 1e-9
    assert numbers["offline/chunks_against_whole"] < 1e-9
    assert numbers["streaming/forward_in_blocks"] < 1e-9


def test_another_models_file_is_found_out(export: Path, tiny_models: tuple[Any, ...]) -> None:
    shutil.copyfile(tiny_models[1].offline, export / "tiny-0.ts")
    with pytest.raises(VerificationError, match="offline/against_model"):
        verify(export, False)


def test_a_stream_with_a_changed_weight_is_found_out(export: Path) -> None:
    def nudge(name: str, weight: torch.Tensor) -> None:
        if "waveform" in name:
            weight *= 1.00001

    change_weights(export / "tiny-0_streaming.ts", nudge)
    with pytest.raises(VerificationError, match="streaming/against_model"):
        verify(export, False)


def test_numbers_that_are_none_are_found_out(export: Path) -> None:
    def spoil(name: str, weight: torch.Tensor) -> None:
        if "waveform" in name:
            weight[0] = float("nan")

    change_weights(export / "tiny-0.ts", spoil)
    with pytest.raises(VerificationError, match="not_finite"):
        verify(export, False)


@pytest.mark.parametrize("field", [(10605, 512), (512, 10044)])
def test_too_small_a_receptive_field_is_found_out(export: Path, field: tuple[int, int]) -> None:
    change(export, receptive_field=field)
    with pytest.raises(VerificationError, match="chunks_against_whole"):
        verify(export, False)


class OldGetter(torch.nn.Module):
    """An attribute of which nn~ could set the value and not get it."""

    def __init__(self) -> None:
        super().__init__()
        self.sampling_rate = 44100
        self.level = (1.0,)
        self.level_params = torch.tensor([2.0])

    @torch.jit.export
    def get_attributes(self) -> list[str]:
        return ["level"]

    @torch.jit.export
    def get_sample_rate(self) -> int:
        return 44100

    @torch.jit.export
    def get_level(self) -> float:
        return self.level[0]

    @torch.jit.export
    def set_level(self, level: float) -> int:
        self.level = (level,)
        return 0

    def forward(self) -> None:
        pass


class AnyLevel(OldGetter):
    """An attribute that accepts NaN."""

    @torch.jit.export
    def get_level(self) -> tuple[float]:
        return self.level


@pytest.mark.parametrize("kind", [OldGetter, AnyLevel])
def test_an_attribute_that_nn_cannot_get_or_that_takes_nan_is_found_out(kind: type[OldGetter]) -> None:
    with pytest.raises(VerificationError, match="offline/wrong_attributes"):
        check_attributes(Checks("tiny.ts"), "offline", torch.jit.script(kind()))


def test_a_wrong_number_of_latents_is_found_out(export: Path) -> None:
    change(export, latents=8)
    with pytest.raises(VerificationError, match="offline/wrong_shapes is 2"):
        verify(export, False)


def test_an_output_far_from_the_level_of_its_material_is_found_out(export: Path) -> None:
    probe = torch.load(export / "probe.pt", weights_only=True)
    probe["sound"].mul_(1e-6)
    torch.save(probe, export / "probe.pt")
    with pytest.raises(VerificationError, match="level_db"):
        verify(export, True)


def test_a_broken_file_is_an_error_of_the_other_process(export: Path) -> None:
    (export / "tiny-0.ts").write_bytes(b"no model")
    with pytest.raises(VerificationError, match="the export failed"):
        check_export(export)


def test_the_checking_process_never_sees_rave(export: Path) -> None:
    import subprocess
    import sys

    program = f"""
import sys
from pathlib import Path
from rave_dist.registry.verify import Checks, check_attributes, verify
verify(Path({str(export)!r}), False)
assert not {{"rave", "gin", "cached_conv", "nn_tilde", "torchaudio"}} & set(sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[3], check=False).returncode == 0
