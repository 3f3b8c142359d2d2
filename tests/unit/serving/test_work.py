"""The work of a request is limited by channels times samples at the model's rate, for declared and for decoded sound."""

from __future__ import annotations

from typing import Any

import pytest

from rave_dist.audio.io.open import AudioInfo
from rave_dist.errors import LimitError
from rave_dist.records import ConversionParameters, ModelCard
from rave_dist.serving.schema import Limits
from rave_dist.serving.work import work_limit


@pytest.fixture
def card(backend: Any) -> ModelCard:
    return backend.cards[0]


def test_fifteen_megabytes_of_many_channels_are_refused_by_their_header(card: ModelCard) -> None:
    """256 channels of 16 bit at 100 Hz: 290 s, but 3.3 thousand million samples for the model."""
    sound = AudioInfo(100, 256, 29_000, "WAV")
    with pytest.raises(LimitError, match=r"256, which are allowed for 7\.65 seconds"):
        work_limit(Limits(), sound, card, ConversionParameters(format="flac"))


@pytest.mark.parametrize("samples", [None, 0, 100])
def test_a_header_that_lies_is_found_out_while_decoding(card: ModelCard, samples: int | None) -> None:
    check = work_limit(Limits(), AudioInfo(100, 256, samples, "WAV"), card, ConversionParameters(format="flac"))
    check(7.0)
    with pytest.raises(LimitError, match="too many channels"):
        check(8.0)


def test_channels_that_are_asked_for_are_work_too(card: ModelCard) -> None:
    limits = Limits(model_samples=10 * 44_100)
    mono = AudioInfo(44_100, 1, 5 * 44_100, "WAV")
    work_limit(limits, mono, card, ConversionParameters(channels=2))
    with pytest.raises(LimitError, match="8, which are allowed"):
        work_limit(limits, mono, card, ConversionParameters(channels=8))


def test_seconds_are_limited_as_before(card: ModelCard) -> None:
    with pytest.raises(LimitError, match="longer than 900 seconds"):
        work_limit(Limits(), AudioInfo(8000, 1, 8000 * 901, "WAV"), card, ConversionParameters(format="flac"))
    stereo = work_limit(Limits(), AudioInfo(44_100, 2, 44_100 * 900, "FLAC"), card, ConversionParameters(format="flac"))
    stereo(900.0)
    with pytest.raises(LimitError, match="longer than 900 seconds"):
        stereo(900.1)


def test_so_many_channels_that_one_second_is_too_much(card: ModelCard) -> None:
    with pytest.raises(LimitError, match="4000"):
        work_limit(Limits(), AudioInfo(48_000, 4000, 10, "WAV"), card, ConversionParameters(format="flac"))
