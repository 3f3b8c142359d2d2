"""Small scripted networks with the shape of the registry's exports, and their cards."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from rave_dist.conversion.convert import Converter
from rave_dist.conversion.corpus import plan_conversion
from rave_dist.conversion.job import attempt, begin, finish
from rave_dist.identity import canonical_json, hash_file
from rave_dist.rave.config import configure
from rave_dist.rave.exportable import OfflineRave
from rave_dist.rave.models import build_model, use_streaming
from rave_dist.records import ConversionParameters, ConversionRecord, ModelCard, ModelFile
from rave_dist.registry.build import receptive_field
from rave_dist.storage.store import Store
from tests.sample_records import model_card
from tests.scripted_models import Fussy, Quiet

HOP = 64


class Mirror(nn.Module):
    """Answers with its input."""

    @torch.jit.export
    def convert(self, x: Tensor, position: Tensor, seed: Tensor, noise: float, latent_noise: float = 0.0) -> Tensor:
        return x

    def forward(self, x: Tensor) -> Tensor:
        return x


class Frames(nn.Module):
    """A strided encoder and decoder, so that a chunk off the frame grid, or with too little context, is heard at once; plus
    noise that is a function of seed, row and absolute position. Output sample n depends on the inputs n - 4 hop … n + 4 hop.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.analysis = nn.Conv1d(channels, 12, 3 * 64, stride=64, padding=64, bias=False)
        self.middle = nn.Conv1d(12, 12, 3, padding=1, bias=False)
        self.synthesis = nn.ConvTranspose1d(12, channels, 3 * 64, stride=64, padding=64, bias=False)
        for weight in self.parameters():
            weight.data = torch.randn(weight.shape, generator=generator) / weight[0].numel() ** 0.5

    @torch.jit.export
    def convert(self, x: Tensor, position: Tensor, seed: Tensor, noise: float, latent_noise: float = 0.0) -> Tensor:
        y = self.synthesis(torch.tanh(self.middle(self.analysis(x))))
        index = position.double().reshape(-1, 1, 1) + torch.arange(x.shape[-1], dtype=torch.float64)
        row = seed.double().reshape(-1, 1, 1)
        return torch.tanh(0.3 * y) + noise * (0.1 * torch.sin(index * (1.0 + 0.37 * row))).to(x.dtype)

    def forward(self, x: Tensor) -> Tensor:
        return self.convert(x, torch.zeros(1), torch.zeros(1), 0.0, 0.0)


class Broken(nn.Module):
    """Answers loud sounds with infinity, others 8 times as loud."""

    @torch.jit.export
    def convert(self, x: Tensor, position: Tensor, seed: Tensor, noise: float, latent_noise: float = 0.0) -> Tensor:
        return torch.where(x.abs() > 0.9, torch.full_like(x, float("inf")), 8 * x)

    def forward(self, x: Tensor) -> Tensor:
        return x


NETWORKS: dict[str, Callable[[int], nn.Module]] = {
    "mirror": lambda channels: Mirror(),
    "frames": Frames,
    "broken": lambda channels: Broken(),
    "fussy": lambda channels: Fussy(),
    "quiet": lambda channels: Quiet(),
}


@pytest.fixture
def scripted(tmp_path: Path) -> Callable[..., tuple[Path, ModelCard]]:
    """Scripts one of the networks and writes its card."""

    def make(kind: str, *, channels: int = 1, sample_rate: int = 16000) -> tuple[Path, ModelCard]:
        torch.set_num_threads(1)
        path = tmp_path / "models" / f"{kind}-{channels}-{sample_rate}.ts"
        path.parent.mkdir(exist_ok=True)
        torch.jit.script(NETWORKS[kind](channels).eval()).save(str(path))
        file = ModelFile(key=f"models/{kind}/1/{kind}.ts", sha256=hash_file(path), bytes=path.stat().st_size)
        context = 4 * HOP if kind == "frames" else 0
        audio = {"sample_rate": sample_rate, "channels": channels, "hop": HOP, "receptive_field": (context, context)}
        card = model_card(name=kind, version="1", **audio, files={"offline": file})
        return path, card

    return make


@pytest.fixture
def convert(scripted: Callable[..., tuple[Path, ModelCard]], local_store: Store) -> Callable[..., ConversionRecord]:
    """Converts a folder as the command does, with one model; checks that no source changes and that every failure has a fix."""

    def run(
        given: Path, output: Path | str, *, kind: str = "mirror", protected: frozenset[str] = frozenset(), **parameters: object
    ) -> ConversionRecord:
        path, card = scripted(kind)
        converter = Converter(path, card)
        before = hashes(given)
        plan = plan_conversion(card, [str(given)], str(output), ConversionParameters(**{"format": "flac", **parameters}))  # type: ignore[arg-type]
        job = begin(local_store, [replace(plan, protected=protected)], chunk_seconds=0.5)
        (record,) = finish(job, (outcome for work in job.to_do for outcome in attempt(job, work, {0: converter})))
        assert hashes(given) == before
        assert all(problem.fix for item in record.items_with_problems for problem in item.problems)
        return record

    return run


def hashes(folder: Path) -> dict[Path, str]:
    return {path: hash_file(path) for path in (folder.rglob("*") if folder.is_dir() else [folder]) if path.is_file()}


@pytest.fixture
def shared_encoder_cards(local_store: Store, tmp_path: Path) -> list[ModelCard]:
    """Three models, of which the first two have the same encoder."""
    small = {"CAPACITY": 4, "LATENT_SIZE": 8, "blocks.NoiseGeneratorV2.noise_bands": 5}
    torch.set_num_threads(1)
    use_streaming(False)
    torch.manual_seed(0)
    text = configure(("v2_small",), small, sample_rate=44100, channels=1)
    encoder = build_model(text, channels=1).encoder.state_dict()
    found = []
    for number, shared in enumerate(("e1", "e1", "e2")):
        torch.manual_seed(number + 1)
        model = build_model(text, channels=1).eval()
        if shared == "e1":
            model.encoder.load_state_dict(encoder)
        offline = OfflineRave(model)
        path = tmp_path / f"{number}.ts"
        offline.export_to_ts(path)
        file = ModelFile(key=f"models/m{number}/1/m{number}.ts", sha256=hash_file(path), bytes=path.stat().st_size)
        shape = {"hop": offline.hop, "receptive_field": receptive_field(offline), "latents": offline.latent_size}
        card = model_card(name=f"m{number}", version="1", encoder=shared, files={"offline": file}, **shape)
        local_store.upload(path, file.key)
        local_store.write_bytes(card.folder.card, canonical_json(card.to_json()))
        found.append(card)
    return found
