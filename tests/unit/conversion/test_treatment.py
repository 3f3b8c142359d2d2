"""Before and after the model: what each option does to the sound, exactly, whatever the blocks."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterable, Iterator

import numpy as np
import pytest

from rave_dist.audio.dsp.channels import map_channels
from rave_dist.audio.dsp.resample import resample
from rave_dist.audio.metrics.loudness import loudness
from rave_dist.conversion.broadcast import Broadcast
from rave_dist.conversion.treatment import Profile, after, before
from rave_dist.errors import ConversionError
from rave_dist.identity import content_id
from rave_dist.records import ConversionParameters, Treatment
from tests.unit.audio.dsp.scenes import RATE, calls, level, noise, split


def treat(
    sound: np.ndarray,
    treatment: Treatment,
    *,
    new_rate: int = RATE,
    channels: int | None = None,
    block: int = 1 << 30,
    ahead: int = 1 << 30,
    gain: float = 1.0,
    artefacts: float = 0.0,
    notes: list[str] | None = None,
) -> np.ndarray:
    """Through a model that answers with its input, a gain and noise of its own, in chunks of ``ahead`` samples."""
    channels = channels or len(sound)
    profile = Profile(treatment, sample_rate=RATE, channels=len(sound), out_channels=channels)
    for part in split(sound, block):
        profile.add(part)
    source = Broadcast(split(sound, block))
    heard = before(source.reader(), profile, treatment, sample_rate=RATE)
    mapped = (map_channels(part, channels) for part in heard)

    def played() -> Iterator[np.ndarray]:
        rng = np.random.default_rng(7)
        whole = np.concatenate(list(resample(mapped, rate=RATE, new_rate=new_rate, channels=channels)), axis=1)
        whole = gain * whole + artefacts * rng.standard_normal(whole.shape, dtype=np.float32)
        yield from split(whole.astype(np.float32), ahead)

    blocks = after(
        played(), source, profile, treatment, rates=(RATE, new_rate), channels=channels, notes=[] if notes is None else notes
    )
    return np.concatenate(list(blocks), axis=1)


def scene(snr: float = 10) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Calls in pink noise [1, samples], the calls alone, and where they are."""
    clean, during = calls()
    return (clean + noise("pink", 10 ** ((level(clean[during]) - snr) / 20), len(clean)))[None], clean, during


ALL = Treatment(denoise=0.9, gate=12.0, skip_silence=-80.0, mix=0.7, match_loudness="file")


@pytest.mark.parametrize("loudness_of", ["file", "call"])
@pytest.mark.parametrize("new_rate", [RATE, 44100])
def test_blocks_change_no_bit(new_rate: int, loudness_of: str) -> None:
    sound = scene()[0][:, : 2 * RATE]
    sound = np.concatenate([sound, sound[:, ::-1]])
    everything = ALL.model_copy(update={"match_loudness": loudness_of})
    expected = treat(sound, everything, new_rate=new_rate, artefacts=0.01)
    assert expected.any()
    for block, ahead in ((1, 1 << 30), (17, 4096), (4096, 333), (1 << 30, 17)):
        result = treat(sound, everything, new_rate=new_rate, artefacts=0.01, block=block, ahead=ahead)
        np.testing.assert_array_equal(result, expected)


def test_artefacts_of_noise_vanish_between_calls_and_calls_stay() -> None:
    """The aim of all this: 60 dB of artefacts less, with the calls as they would be without noise."""
    sound, clean, during = scene()
    near = np.convolve(during, np.ones(RATE // 2), "same") > 0.5
    without = treat(sound, Treatment(mix=0.999999), artefacts=0.01)[0]
    guarded = treat(sound, Treatment(denoise=1.0, gate=12.0), artefacts=0.01)[0]
    assert level(without[~near]) > -40
    assert level(guarded[~near]) < -100
    assert np.corrcoef(guarded[during], clean[during])[0, 1] > 0.99
    assert level(guarded[during]) == pytest.approx(level(clean[during]), abs=0.5)


def test_the_mix_is_linear_from_the_recording_to_the_model() -> None:
    sound, _, _ = scene()
    np.testing.assert_array_equal(treat(sound, Treatment(mix=0.0), gain=3.0), sound)
    np.testing.assert_allclose(treat(sound, Treatment(mix=0.25), gain=3.0), 1.5 * sound, atol=1e-6)


def test_the_mix_is_aligned_at_another_rate_with_other_channels() -> None:
    sound = np.concatenate([scene()[0], scene(20)[0]])
    mono = sound.mean(axis=0, keepdims=True, dtype=np.float32)
    expected = np.concatenate(list(resample(iter([mono]), rate=RATE, new_rate=44100, channels=1)), axis=1)
    np.testing.assert_array_equal(treat(sound, Treatment(mix=0.0), new_rate=44100, channels=1), expected)


def test_the_recording_in_the_mix_is_not_denoised() -> None:
    sound, _, _ = scene()
    np.testing.assert_array_equal(treat(sound, Treatment(denoise=1.0, mix=0.0)), sound)


def test_what_is_silent_in_the_recording_is_silent_in_the_result() -> None:
    sound = noise("white", 0.1, 4 * RATE)[None]
    sound[:, RATE : 2 * RATE] = 0
    sound[:, 3 * RATE :] *= 1e-5
    result = treat(sound, Treatment(skip_silence=-90.0), artefacts=0.01)[0]
    untouched = treat(sound, Treatment(mix=0.999999), artefacts=0.01)[0]
    fade = RATE // 5
    assert not result[RATE + fade : 2 * RATE - fade].any()
    assert not result[3 * RATE + fade :].any()
    np.testing.assert_allclose(result[: RATE - fade], untouched[: RATE - fade], atol=1e-5)
    np.testing.assert_allclose(result[2 * RATE : 3 * RATE], untouched[2 * RATE : 3 * RATE], atol=1e-5)
    assert not treat(0 * sound, Treatment(skip_silence=-200.0), artefacts=0.01).any(), "digital silence has no level"


@pytest.mark.parametrize("gain", [0.01, 0.5, 1.0])
def test_the_result_gets_the_loudness_of_the_recording(gain: float) -> None:
    sound, _, _ = scene()
    notes: list[str] = []
    result = treat(sound, Treatment(match_loudness="file"), gain=gain, notes=notes)
    assert loudness(result, RATE) == pytest.approx(loudness(sound, RATE), abs=0.02)
    assert notes == []


@pytest.mark.parametrize(
    ("given", "new_rate", "channels"), [(1, RATE, 1), (1, 44100, 1), (1, RATE, 2), (2, RATE, 1), (2, 44100, 2)]
)
def test_each_call_gets_its_own_loudness(given: int, new_rate: int, channels: int) -> None:
    """The model plays one call 20 dB and the other 6 dB quieter; over the whole file one gain cannot correct both."""
    sound, _, during = scene(30)
    sound = np.concatenate([sound, 0.2 * sound])[:given]
    edges = np.flatnonzero(np.diff(during.astype(int)))
    middle = (edges[1] + edges[2]) // 2
    quieter = np.where(np.arange(sound.shape[1]) < middle, 0.1, 0.5).astype(np.float32)
    treatment, notes = Treatment(match_loudness="call"), list[str]()
    profile = Profile(treatment, sample_rate=RATE, channels=given, out_channels=channels)
    profile.add(sound)
    mapped = map_channels(quieter * sound, channels)
    wet = list(resample(iter([mapped]), rate=RATE, new_rate=new_rate, channels=channels))
    blocks = after(iter(wet), Broadcast([sound]), profile, treatment, rates=(RATE, new_rate), channels=channels, notes=notes)
    result = np.concatenate(list(blocks), axis=1)
    wanted = map_channels(sound, channels)
    source = np.concatenate(list(resample(iter([wanted]), rate=RATE, new_rate=new_rate, channels=channels)), axis=1)
    assert notes == []
    for first, last in edges.reshape(-1, 2) * new_rate // RATE:
        assert level(result[0, first:last]) == pytest.approx(level(source[0, first:last]), abs=0.1)
    gains = np.abs(np.diff(np.log(np.abs(result[0]) + 1e-9) - np.log(np.abs(np.concatenate(wet, axis=1)[0]) + 1e-9)))
    assert np.median(gains) < 1e-3, "between the calls the gain changes smoothly"


def test_calls_that_would_clip_and_recordings_without_calls_are_named() -> None:
    sound, _, _ = scene(30)
    notes: list[str] = []
    result = treat(sound * 1.9, Treatment(match_loudness="call"), gain=0.1, artefacts=0.02, notes=notes)
    assert np.abs(result).max() <= 1
    assert "of 2 calls are quieter" in notes[0]
    steady = noise("pink", 0.1, 4 * RATE)[None]
    notes.clear()
    np.testing.assert_array_equal(treat(steady, Treatment(match_loudness="call"), gain=0.5, notes=notes), 0.5 * steady)
    assert "no calls above the noise floor" in notes[0]


@pytest.mark.parametrize("at", [0.2, 1.0 - 0.005, 4.0, 7.5])
def test_no_peak_around_a_call_is_clipped_for_its_loudness(at: float) -> None:
    """Wherever it is: before the first call, within the gate's times, between two calls, after the last one."""
    sound, _, _ = scene(30)
    wet = 0.05 * sound
    wet[:, round(at * RATE) : round((at + 0.003) * RATE)] = 0.3
    treatment, notes = Treatment(match_loudness="call"), list[str]()
    profile = Profile(treatment, sample_rate=RATE, channels=1, out_channels=1)
    profile.add(sound)
    blocks = after(split(wet, 5000), Broadcast([sound]), profile, treatment, rates=(RATE, RATE), channels=1, notes=notes)
    result = np.concatenate(list(blocks), axis=1)
    assert np.sum(np.abs(result) >= 1) <= round(0.003 * RATE), "the peak itself reaches full scale at most"
    assert np.abs(result).max() <= 1
    assert "calls are quieter" in notes[0]
    expected = wet * (result[0] / wet[0])[None]
    np.testing.assert_allclose(result, expected, atol=1e-6)


def test_a_call_that_is_partly_silenced_keeps_its_level() -> None:
    sound, _, during = scene(30)
    first = np.flatnonzero(during)[0]
    wet = sound.copy()
    wet[:, first : first + RATE // 4] = 0
    treatment, notes = Treatment(match_loudness="call"), list[str]()
    profile = Profile(treatment, sample_rate=RATE, channels=1, out_channels=1)
    profile.add(sound)
    blocks = after(split(wet, 5000), Broadcast([sound]), profile, treatment, rates=(RATE, RATE), channels=1, notes=notes)
    np.testing.assert_allclose(np.concatenate(list(blocks), axis=1), wet, atol=0.02)


def test_a_peak_is_not_clipped_for_loudness() -> None:
    sound = noise("white", 0.2, 3 * RATE)[None]
    clicks = np.zeros_like(sound)
    clicks[:, :: RATE // 10] = 40.0
    clicks[:, RATE // 20 :: RATE // 10] = 10.0
    notes: list[str] = []
    treatment = Treatment(match_loudness="file")
    profile = Profile(treatment, sample_rate=RATE, channels=1, out_channels=1)
    profile.add(sound)
    blocks = after(split(clicks, 5000), Broadcast([sound]), profile, treatment, rates=(RATE, RATE), channels=1, notes=notes)
    result = np.concatenate(list(blocks), axis=1)
    assert np.abs(result).max() == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(result, clicks / 40, atol=1e-6)
    assert len(notes) == 1
    missing = float(notes[0].split()[0])
    assert loudness(result, RATE) + missing == pytest.approx(loudness(sound, RATE), abs=0.1)


def test_silence_gets_no_gain_and_says_so() -> None:
    notes: list[str] = []
    sound, _, _ = scene()
    assert not treat(sound, Treatment(match_loudness="file"), gain=0.0, notes=notes).any()
    assert len(notes) == 1
    notes.clear()
    noisy = treat(0 * sound, Treatment(match_loudness="file"), artefacts=0.01, notes=notes)
    assert noisy.std() == pytest.approx(0.01, rel=0.01)
    assert len(notes) == 1
    notes.clear()
    assert not treat(0 * sound, Treatment(match_loudness="file"), notes=notes).any()
    assert notes == []


def test_memory_does_not_grow_with_the_length() -> None:
    block = noise("white", 0.01, RATE)[None]

    def blocks() -> Iterator[np.ndarray]:
        for _ in range(600):
            yield block.copy()

    def chunks(heard: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """A model that reads five blocks before it answers."""
        held: list[np.ndarray] = []
        for part in heard:
            held.append(part)
            if len(held) == 5:
                yield np.concatenate(held, axis=1)
                held.clear()
        if held:
            yield np.concatenate(held, axis=1)

    profile = Profile(ALL, sample_rate=RATE, channels=1, out_channels=1)
    for part in blocks():
        profile.add(part)
    tracemalloc.start()
    source = Broadcast(blocks())
    wet = chunks(before(source.reader(), profile, ALL, sample_rate=RATE))
    length = sum(part.shape[1] for part in after(wet, source, profile, ALL, rates=(RATE, RATE), channels=1, notes=[]))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert length == 600 * RATE
    assert peak < 40 << 20, "the recording has 115 MB"


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("denoise", float("nan")),
        ("denoise", -0.1),
        ("denoise", 1.1),
        ("gate", -1.0),
        ("gate", float("inf")),
        ("gate", float("nan")),
        ("skip_silence", 1.0),
        ("skip_silence", float("-inf")),
        ("mix", 1.5),
        ("mix", float("nan")),
    ],
)
def test_values_that_mean_nothing_are_refused(option: str, value: float) -> None:
    with pytest.raises(ConversionError) as refusal:
        Treatment.model_validate({option: value}).check()
    assert refusal.value.where == f"--{option.replace('_', '-')}"
    assert refusal.value.fix


def test_the_bounds_themselves_are_allowed() -> None:
    Treatment(denoise=1, gate=0, skip_silence=0, mix=0, match_loudness="file").check()
    Treatment().check()


def test_no_treatment_changes_no_identity() -> None:
    """Conversions made before there was a treatment are found again, and a new option changes none that does not use it."""
    earlier = {"sample_rate": None, "channels": None, "format": "keep", "seed": 0, "latent_noise": 1.0, "salvage": False}
    assert ConversionParameters().to_json() == earlier
    assert content_id(ConversionParameters(treatment=Treatment(mix=1.0)).to_json()) == content_id(earlier)
    assert ConversionParameters(treatment=Treatment(gate=12.0)).to_json() == earlier | {"treatment": {"gate": 12.0}}
    assert ConversionParameters.model_validate(ConversionParameters(treatment=ALL).to_json()).treatment == ALL
    assert ConversionParameters.model_validate(earlier).treatment == Treatment()
