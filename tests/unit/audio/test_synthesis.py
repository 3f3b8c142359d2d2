import itertools

import numpy as np
import pytest

from rave_dist.audio.synthesis import bell, blown_pipe, field_recording, membrane, pink_noise, plucked_string, trill

RATE = 44100
INSTRUMENTS = [plucked_string, membrane, bell, blown_pipe]


def spectrum(sound: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    power = np.abs(np.fft.rfft(sound * np.hanning(len(sound)))) ** 2
    return np.fft.rfftfreq(len(sound), 1 / RATE), power


def power_between(sound: np.ndarray, low: float, high: float) -> float:
    frequencies, power = spectrum(sound)
    return float(power[(frequencies >= low) & (frequencies < high)].sum())


@pytest.mark.parametrize("play", INSTRUMENTS)
def test_instruments_are_decided_by_their_seed(play) -> None:
    def sound(seed: int) -> np.ndarray:
        return play(220.0, 1.0, sample_rate=RATE, rng=np.random.default_rng(seed))

    assert sound(1).dtype == np.float32
    assert len(sound(1)) == RATE
    assert np.abs(sound(1)).max() == pytest.approx(1)
    assert np.array_equal(sound(1), sound(1))
    assert not np.array_equal(sound(1), sound(2))


@pytest.mark.parametrize(("play", "partial"), [(plucked_string, 1.0), (membrane, 1.0), (bell, 0.5), (blown_pipe, 1.0)])
@pytest.mark.parametrize("frequency", [110.0, 220.0, 440.0])
def test_the_lowest_strong_partial_is_the_pitch(play, partial: float, frequency: float) -> None:
    sound = play(frequency, 2.0, sample_rate=RATE, rng=np.random.default_rng(0))[RATE // 4 :]  # past the stroke
    frequencies, power = spectrum(sound)
    strong = frequencies[power > 0.02 * power.max()]
    assert strong[0] == pytest.approx(partial * frequency, rel=0.02)


def test_a_string_sounds_its_harmonics_and_a_bell_does_not() -> None:
    string = plucked_string(220.0, 2.0, sample_rate=RATE, rng=np.random.default_rng(0))
    chime = bell(220.0, 2.0, sample_rate=RATE, rng=np.random.default_rng(0))
    assert power_between(string, 640, 680) > 100 * power_between(string, 540, 600)  # 3 · 220, and between the harmonics
    assert power_between(chime, 258, 270) > 0.01 * power_between(chime, 0, 5000)  # the tierce at 1.2


@pytest.mark.parametrize("play", [plucked_string, membrane, bell])
def test_struck_things_fade(play) -> None:
    sound = play(220.0, 3.0, sample_rate=RATE, rng=np.random.default_rng(0))
    assert np.abs(sound[: RATE // 2]).max() > 3 * np.abs(sound[-RATE // 2 :]).max()


def test_pink_noise_has_equal_power_per_octave() -> None:
    noise = pink_noise(20 * RATE, np.random.default_rng(0))
    assert np.sqrt(np.mean(noise**2)) == pytest.approx(1, abs=1e-3)
    octaves = [power_between(noise, f, 2 * f) for f in (100, 200, 400, 800, 1600, 3200, 6400)]
    assert 10 * np.log10(max(octaves) / min(octaves)) < 1


def test_a_trill_falls_from_note_to_note_at_its_pace() -> None:
    call = trill(sample_rate=RATE, notes=14, notes_per_second=7.0)
    assert len(call) == 2 * RATE
    pace = RATE // 7
    heard = []
    for note in range(14):
        frequencies, power = spectrum(call[note * pace : (note + 1) * pace])
        heard.append(frequencies[power.argmax()])
    assert heard[0] == pytest.approx(4500, rel=0.05)
    assert heard[-1] == pytest.approx(2800, rel=0.05)
    assert all(a > b for a, b in itertools.pairwise(heard))
    between = np.abs(call.reshape(14, -1)[:, int(0.75 * pace) :])
    assert between.max() < 0.01  # notes, not a slide


def test_calls_are_where_a_field_recording_says_and_nowhere_else() -> None:
    sound, calls = field_recording(40, sample_rate=RATE, seed=5)
    again, _ = field_recording(40, sample_rate=RATE, seed=5)
    assert np.array_equal(sound, again)
    assert len(sound) == 40 * RATE
    assert len(calls) >= 5
    assert np.abs(sound).max() < 1
    quiet = np.ones(len(sound), bool)
    for call in calls:
        part = slice(round(call.start * RATE), round((call.start + call.seconds) * RATE))
        assert part.stop <= len(sound)
        quiet[part] = False
        heard = sound[part]
        assert np.abs(heard).max() == pytest.approx(call.peak, abs=0.06)
        assert power_between(heard, 2600, 4800) > power_between(heard, 5200, 7400)
    background = sound[quiet]
    assert power_between(background, 2600, 5200) < 2 * power_between(background, 5200, 10_400)
    assert -50 < 20 * np.log10(np.sqrt(np.mean(background**2))) < -42
