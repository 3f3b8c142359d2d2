"""Makes small models that have learnt nothing but are heard: ``python tests/tiny_models.py OUT COUNT``.

A program, because RAVE's configuration belongs to a whole process. ``OUT/<number>/run`` is a run folder as training leaves
it, ``OUT/<number>/out`` its export. Run by the fixtures of ``tests/conftest.py``.
"""

import sys
from pathlib import Path

import torch
from torch import nn

from rave_dist.rave.config import configure
from rave_dist.rave.models import build_model, use_streaming
from rave_dist.records import RunResult, TrainingSpec, Validation
from rave_dist.registry.build import build

CHANNELS, SAMPLE_RATE, LATENTS = 1, 44100, 8


def spec(number: int) -> TrainingSpec:
    return TrainingSpec(
        library="tiny",
        instrument=f"tiny-{number}",
        dataset="0123456789ab",
        config=("v2_small",),
        # With its own 32 bands, v2_small's noise filter is all but cut away: 5 make the noise audible.
        override={"CAPACITY": 4, "LATENT_SIZE": LATENTS, "blocks.NoiseGeneratorV2.noise_bands": 5},
        sample_rate=SAMPLE_RATE,
        channels=CHANNELS,
        budget={"steps": 10},
        seed=number,
        credit={"performer": "nobody"},
    )


def make_audible(model: nn.Module) -> None:
    """Untrained, the latents, the decoder and its noise whisper: raises all, and gives the latent space an analysis."""
    with torch.no_grad():
        sound = 0.1 * torch.randn(1, CHANNELS, 1 << 15)
        last = [module for module in model.encoder.modules() if isinstance(module, nn.Conv1d)][-1]
        last.weight_g[:LATENTS] *= 1 / model.encode(sound).chunk(2, 1)[0].std()  # the others are the scales
        mean = model.encode(sound).chunk(2, 1)[0]
        features = model.decoder.net(mean + torch.randn_like(mean))
        model.decoder.waveform_module.weight_g *= 0.03 / model.decoder.waveform_module(features).std()
        network = model.decoder.noise_module.net
        network[-1].weight *= 1 / network(features).std()
        model.latent_pca.copy_(torch.linalg.qr(torch.randn(LATENTS, LATENTS))[0])
        model.fidelity.copy_(1 - torch.tensor([0.5, 0.3, 0.1, 0.07, 0.03, 0.02, 0.01, 0.0]))


def main(out: Path, count: int) -> None:
    torch.set_num_threads(1)
    for number in range(count):
        run = out / str(number) / "run"
        run.mkdir(parents=True)
        this = spec(number)
        torch.manual_seed(number)
        use_streaming(False)
        text = configure(this.config, this.override, sample_rate=SAMPLE_RATE, channels=CHANNELS)
        model = build_model(text, channels=CHANNELS).eval()
        make_audible(model)
        (run / "spec.json").write_text(this.model_dump_json())
        (run / "config.gin").write_text(text)
        torch.save(model.state_dict(), run / "weights.pt")
        validation = Validation(first=20.0, best=19.0, last=19.5)
        steps = {"step": 10, "best_step": 10, "steps": 10, "phase_1_steps": 5}
        result = RunResult(phase=2, **steps, complete=True, validation=validation, seconds=1.0)
        (run / "result.json").write_text(result.model_dump_json())
        exported = out / str(number) / "out"
        exported.mkdir()
        build(exported, run, f"tiny-{number}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
