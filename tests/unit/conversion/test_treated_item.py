"""A treated recording from file to file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from rave_dist.audio.metrics.loudness import loudness
from rave_dist.conversion.convert import Converter
from rave_dist.conversion.corpus import plan_conversion
from rave_dist.conversion.item import convert_source
from rave_dist.errors import ConversionError
from rave_dist.identity import hash_file
from rave_dist.records import ConversionItem, ConversionParameters, ModelCard, Treatment
from rave_dist.storage.store import Store
from tests.unit.audio.dsp.scenes import RATE, calls, level, noise

Run = Callable[..., ConversionItem]


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """Calls in pink noise, 12 s, with digital silence for a second."""
    clean, _ = calls(12.0)
    sound = clean + noise("pink", 0.01, len(clean))
    sound[-2 * RATE : -RATE] = 0
    path = tmp_path / "in" / "field.wav"
    path.parent.mkdir()
    soundfile.write(path, sound, RATE, subtype="PCM_16")
    return path


@pytest.fixture
def run(scripted: Callable[..., tuple[Path, ModelCard]], local_store: Store, tmp_path: Path) -> Run:
    def convert(
        source: Path,
        output: str,
        *,
        kind: str = "mirror",
        chunk_seconds: float = 0.5,
        treatment: Treatment,
        **others: object,
    ) -> ConversionItem:
        path, card = scripted(kind, sample_rate=RATE)
        given = ConversionParameters(**{"format": "flac", "treatment": treatment, **others})  # type: ignore[arg-type]
        plan = plan_conversion(card, [str(source)], str(tmp_path / output), given)
        (task,) = plan.tasks
        (outcome,) = convert_source(local_store, task, [(plan, Converter(path, card))], chunk_seconds=chunk_seconds)
        return outcome.item

    return convert


ALL = Treatment(denoise=0.9, gate=12.0, skip_silence=-80.0, mix=0.7, match_loudness="file")


@pytest.mark.parametrize("treatment", [Treatment(), Treatment(denoise=1.0), Treatment(gate=12.0), Treatment(mix=0.5), ALL])
def test_chunks_change_no_byte(run: Run, recording: Path, treatment: Treatment) -> None:
    hashes = {run(recording, f"{n}.flac", chunk_seconds=n, treatment=treatment).output_sha256 for n in (0.05, 1.0, 100.0)}
    assert len(hashes) == 1


def test_length_rate_and_comment(run: Run, recording: Path, tmp_path: Path) -> None:
    item = run(recording, "out.wav", treatment=ALL, sample_rate=44100, channels=2, format="wav")
    assert item.state == "converted"
    info = soundfile.info(tmp_path / "out.wav")
    assert (info.frames, info.samplerate, info.channels) == (12 * 44100, 44100, 2)
    with soundfile.SoundFile(tmp_path / "out.wav") as file:
        assert "denoise 0.9, gate 12, skip_silence -80, mix 0.7, match_loudness file" in file.comment


def test_the_models_own_noise_is_silenced_between_calls(run: Run, recording: Path, tmp_path: Path) -> None:
    _, during = calls(12.0)
    near = np.convolve(during, np.ones(RATE // 2), "same") > 0.5
    run(recording, "plain.flac", kind="frames", treatment=Treatment())
    item = run(recording, "gated.flac", kind="frames", treatment=Treatment(gate=12.0))
    plain, gated = (soundfile.read(tmp_path / f"{name}.flac")[0] for name in ("plain", "gated"))
    assert level(plain[~near]) > -30
    assert not gated[~near].any()
    assert item.state == "converted"
    assert not item.problems


def test_a_mix_without_the_model_is_the_recording(run: Run, recording: Path, tmp_path: Path) -> None:
    run(recording, "dry.flac", kind="frames", treatment=Treatment(mix=0.0))
    np.testing.assert_array_equal(soundfile.read(tmp_path / "dry.flac")[0], soundfile.read(recording)[0])


def test_loudness_is_matched_in_the_file(run: Run, recording: Path, tmp_path: Path) -> None:
    run(recording, "matched.flac", kind="frames", treatment=Treatment(match_loudness="file"))
    found, wanted = (loudness(soundfile.read(p)[0].T[None], RATE) for p in (tmp_path / "matched.flac", recording))
    assert found == pytest.approx(wanted, abs=0.05)


def test_a_model_that_clips_is_turned_down(run: Run, recording: Path) -> None:
    assert run(recording, "clipped.flac", kind="broken", treatment=Treatment()).clipped_samples > 0
    item = run(recording, "matched.flac", kind="broken", treatment=Treatment(match_loudness="file"))
    assert item.clipped_samples == 0
    assert not item.problems


def test_nothing_but_noise_becomes_silence_without_a_complaint(run: Run, recording: Path, tmp_path: Path) -> None:
    sound = noise("pink", 0.05, 10 * RATE)
    soundfile.write(recording, sound, RATE, subtype="PCM_16")
    item = run(recording, "noise.flac", treatment=Treatment(gate=20.0))
    assert not soundfile.read(tmp_path / "noise.flac")[0].any()
    assert not item.problems


def test_what_can_be_read_of_a_damaged_recording_is_treated(run: Run, recording: Path, tmp_path: Path) -> None:
    recording.write_bytes(recording.read_bytes()[: 44 + 2 * 6 * RATE])
    assert run(recording, "cut.flac", treatment=ALL).state == "failed"
    assert run(recording, "cut.flac", treatment=ALL, salvage=True).state == "salvaged"
    assert soundfile.info(tmp_path / "cut.flac").frames == 6 * RATE


@pytest.mark.parametrize("samples", [1, 100, 5000])
def test_very_short_recordings(run: Run, recording: Path, tmp_path: Path, samples: int) -> None:
    soundfile.write(recording, np.full(samples, 0.1), RATE, subtype="PCM_16")
    assert run(recording, "short.flac", treatment=ALL).state == "converted"
    assert soundfile.info(tmp_path / "short.flac").frames == samples


def test_a_bad_value_is_refused_before_anything_is_read(run: Run, recording: Path, tmp_path: Path) -> None:
    before = hash_file(recording)
    with pytest.raises(ConversionError, match="--mix"):
        run(recording, "out.flac", treatment=Treatment(mix=2.0))
    assert hash_file(recording) == before
    assert not (tmp_path / "out.flac").exists()


def test_a_treatment_makes_another_conversion(scripted: Callable[..., tuple[Path, ModelCard]], recording: Path) -> None:
    _, card = scripted("mirror")
    plans = [
        plan_conversion(card, [str(recording)], str(recording.parents[1] / "out"), ConversionParameters(treatment=treatment))
        for treatment in (Treatment(), Treatment(denoise=0.5), Treatment(denoise=1.0), Treatment(gate=10.0))
    ]
    assert len({plan.id for plan in plans}) == 4
