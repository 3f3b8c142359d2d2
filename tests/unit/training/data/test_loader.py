from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest
import torch

from rave_dist.errors import DatasetError
from rave_dist.training.data.loader import FULL_SCALE, PcmStore, Windows

torch.set_num_threads(1)
RAVES: dict[str, float] = {"mangle": 0.8}
ALL: dict[str, float] = {"mangle": 0.8, "pitch": 0.5, "mute": 0.2, "compress": 0.5, "gain": 0.5, "polarity": 0.5}


@dataclass(frozen=True)
class Pcm:
    pcm: npt.NDArray[np.int16]


def ramp(start: int, length: int, channels: int = 1) -> Pcm:
    return Pcm(np.tile(np.arange(start, start + length, dtype=np.int16), (channels, 1)))


def windows(
    segments: list[Pcm],
    *,
    window: int = 64,
    batch: int = 8,
    seed: int = 0,
    augment: dict[str, float] | None = None,
    resident: bool | None = None,
) -> Windows:
    return Windows(segments, window=window, batch=batch, seed=seed, device="cpu", augment=augment, resident=resident)


def as_pcm(batch: torch.Tensor) -> npt.NDArray[np.int64]:
    return np.round(batch.numpy() * FULL_SCALE).astype(np.int64)


def test_windows_are_contiguous_audio_of_one_segment() -> None:
    source = windows([ramp(1, 1000), ramp(5001, 300)])
    rows = np.concatenate([as_pcm(source.next_batch())[:, 0] for _ in range(50)])
    assert (np.diff(rows, axis=1) == 1).all()
    assert (((rows[:, 0] >= 1) & (rows[:, -1] <= 1000)) | ((rows[:, 0] >= 5001) & (rows[:, -1] <= 5300))).all()


def test_segments_are_drawn_by_their_length_and_every_sample_is_reached() -> None:
    source = windows([ramp(1, 3000), ramp(5001, 1000)])
    rows = np.concatenate([as_pcm(source.next_batch())[:, 0] for _ in range(250)])
    assert 0.70 < (rows[:, 0] < 5000).mean() < 0.80
    seen = set(rows.flatten().tolist())
    assert len(seen & (set(range(1, 3001)) | set(range(5001, 6001)))) > 3900


def test_a_short_recording_stands_whole_at_a_random_place_in_silence() -> None:
    source = windows([ramp(1, 40)], window=100)
    rows = np.concatenate([as_pcm(source.next_batch())[:, 0] for _ in range(60)])
    firsts = (rows > 0).argmax(axis=1)
    for row, first in zip(rows, firsts, strict=True):
        assert row[first : first + 40].tolist() == list(range(1, 41))
        assert row.sum() == 820
    assert {int(firsts.min()), int(firsts.max())} == {0, 60}


def test_a_recording_of_exactly_one_window() -> None:
    assert as_pcm(windows([ramp(1, 64)], batch=1).next_batch())[0, 0].tolist() == list(range(1, 65))


def test_channels_stay_together() -> None:
    pcm = np.stack([np.arange(1, 500), -np.arange(1, 500)]).astype(np.int16)
    for augment in (None, RAVES):
        batch = windows([Pcm(pcm)], augment=augment).next_batch()
        assert batch.shape == (8, 2, 64)
        assert float((batch[:, 0] + batch[:, 1]).abs().max()) < 4 / 2**16


def test_full_scale_is_one_as_rave_has_it() -> None:
    assert float(windows([Pcm(np.full((1, 99), 32767, np.int16))]).next_batch().min()) == 1.0


def test_dequantisation_adds_less_than_one_step_of_sixteen_bits_and_no_window_is_digital_silence() -> None:
    batch = windows([Pcm(np.zeros((1, 5000), np.int16))], window=2048, augment=RAVES).next_batch()
    assert float(batch.min()) >= 0
    assert float(batch.max()) < 1 / 2**16
    assert float(batch.mean()) == pytest.approx(0.5 / 2**16, rel=0.05)
    assert len({tuple(row[0, :8].tolist()) for row in batch}) == 8


def test_four_windows_of_five_are_mangled_and_keep_their_energy() -> None:
    tone = (10000 * np.sin(np.arange(40000) * 0.07)).astype(np.int16)[None]
    plain, mangled = (windows([Pcm(tone)], window=8192, batch=200, seed=3, augment=augment) for augment in (None, RAVES))
    a, b = plain.next_batch(), mangled.next_batch()
    changed = (a - b).abs().amax(dim=(1, 2)) > 1e-3
    assert 0.72 < float(changed.float().mean()) < 0.88
    settled = slice(2048, None)  # the filter starts from rest
    ratio = b[..., settled].square().mean(-1) / a[..., settled].square().mean(-1)
    assert float((ratio - 1).abs().max()) < 0.02


def test_the_sequence_goes_on_where_it_was_left_and_depends_on_the_seed() -> None:
    segments = [ramp(1, 3000), ramp(5001, 50)]
    first = windows(segments, seed=5, augment=RAVES)
    first.next_batch()
    state = first.state_dict()
    expected = [first.next_batch() for _ in range(3)]
    resumed = windows(segments, seed=5, augment=RAVES)
    resumed.load_state_dict(state)
    assert all(torch.equal(resumed.next_batch(), batch) for batch in expected)
    assert not torch.equal(
        windows(segments, seed=6, augment=RAVES).next_batch(), windows(segments, seed=5, augment=RAVES).next_batch()
    )


@pytest.mark.parametrize("augment", [RAVES, ALL], ids=["RAVE's", "all"])
def test_streamed_batches_are_those_of_resident_audio_and_go_on_where_those_seen_ended(augment: dict[str, float]) -> None:
    segments = [ramp(1, 3000), ramp(5001, 400), ramp(7001, 50)]
    resident, streamed = (windows(segments, window=256, seed=5, augment=augment, resident=r) for r in (True, False))
    states = []
    for _ in range(4):
        assert torch.equal(resident.next_batch(), streamed.next_batch())
        states.append(streamed.state_dict())
        assert torch.equal(states[-1]["generator"], resident.state_dict()["generator"])
    expected = [resident.next_batch() for _ in range(2)]
    for other in (windows(segments, window=256, seed=5, augment=augment, resident=r) for r in (True, False)):
        other.next_batch()
        other.load_state_dict(states[-1])
        assert all(torch.equal(other.next_batch(), batch) for batch in expected)


def test_a_pitched_window_is_cut_longer_or_shorter_so_that_it_is_full_of_sound() -> None:
    rows = windows([Pcm(np.full((1, 9000), 16384, np.int16))], window=2048, batch=64, augment={"pitch": 1.0}).next_batch()
    assert float((rows - 16384 / FULL_SCALE).abs().max()) < 1e-3


def test_polarity_is_the_sign() -> None:
    plain, flipped = (windows([ramp(1, 9000)], augment=augment).next_batch() for augment in ({}, {"polarity": 1.0}))
    places = windows([ramp(1, 9000)]).next_batch()
    assert float((plain - places).abs().max()) < 1 / 2**16
    assert float((flipped + places).abs().max()) < 2**-13  # other places in the table of noise
    assert float(flipped.max()) < 0


def test_a_muted_window_is_dequantised_silence_and_a_batch_is_never_silent() -> None:
    rows = windows([ramp(9000, 900)], augment={"mute": 1.0}).next_batch().amax(dim=(1, 2))
    assert sum(bool(0 < peak < 1 / 2**16) for peak in rows.tolist()) == 7
    assert float(rows.max()) > 0.2


def test_drawing_leaves_the_global_generator_alone() -> None:
    state = torch.get_rng_state()
    windows([ramp(1, 1000)], augment=RAVES).next_batch()
    assert torch.equal(torch.get_rng_state(), state)


def test_no_audio_and_mixed_channels_are_refused() -> None:
    with pytest.raises(DatasetError, match="no audio"):
        windows([Pcm(np.zeros((1, 0), np.int16))])
    with pytest.raises(DatasetError, match="channels"):
        windows([ramp(1, 10), ramp(1, 10, channels=2)])


@pytest.mark.parametrize("device", [None, "cpu"], ids=["segments", "copy"])
@pytest.mark.parametrize("hop", [None, 10, 1])
def test_tiles_hold_every_sample(hop: int | None, device: str | None) -> None:
    store = PcmStore([ramp(1, 150), ramp(1001, 64), ramp(2001, 20)], device=device)
    tiles = [store.window(*tile, 64) for tile in store.tiles(64, hop=hop)]
    seen = {int(value) for tile in tiles for value in tile[0].tolist()} - {0}
    assert seen == set(range(1, 151)) | set(range(1001, 1065)) | set(range(2001, 2021))
    assert all(tile.shape == (1, 64) for tile in tiles)
    if hop is None:
        assert len(tiles) == 3 + 1 + 1
        assert tiles[-1][0].tolist() == [0] * 22 + list(range(2001, 2021)) + [0] * 22


@pytest.mark.parametrize("resident", [True, False])
def test_some_windows_of_a_batch_are_those_of_the_whole_batch(resident: bool) -> None:
    elementwise = {name: probability for name, probability in ALL.items() if name not in ("mangle", "pitch")}
    for augment in (elementwise, ALL):
        whole = windows([ramp(1, 3000, 2), ramp(5001, 400, 2)], augment=augment)
        some = Windows(
            [ramp(1, 3000, 2), ramp(5001, 400, 2)],
            **{"window": 64, "batch": 8, "seed": 0, "device": "cpu", "augment": augment},
            **{"resident": resident, "rows": [1, 2, 6]},
        )
        for _ in range(20):
            expected, found = whole.next_batch()[[1, 2, 6]], some.next_batch()
            assert torch.equal(found, expected) if augment is elementwise else torch.allclose(found, expected, atol=1e-6)
            assert some.places == whole.places
