"""A recording that is written to while it is read is named; what was read of it is not taken for the recording."""

from __future__ import annotations

import os

import numpy as np
import pytest
import soundfile

from rave_dist.audio.io.open import open_audio
from rave_dist.audio.io.sources import check_as_listed, list_sources
from rave_dist.errors import StoreError

CHANGES = {
    "grows": lambda path: path.write_bytes(path.read_bytes() + bytes(4410)),
    "is cut": lambda path: os.truncate(path, path.stat().st_size - 2),
    "is overwritten": lambda path: os.utime(path, ns=(1, 1)),
    "is removed": lambda path: path.unlink(),
    "is replaced": lambda path: os.replace(path.with_suffix(".flac"), path),
}


@pytest.fixture
def recording(tmp_path, tone):
    soundfile.write(tmp_path / "take.flac", tone(2.0), 44100)
    soundfile.write(tmp_path / "take.wav", tone(2.0), 44100)
    return tmp_path / "take.wav"


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_while_reading_is_an_error_that_cannot_be_salvaged(recording, change):
    with open_audio(recording) as decoder:
        blocks = decoder.blocks(0.5)
        next(blocks)
        CHANGES[change](recording)
        with pytest.raises(StoreError) as caught:
            list(blocks)
    assert caught.value.where == str(recording)
    assert caught.value.what
    if change != "is removed":
        assert caught.value.what == "the file changed while it was read"
        assert "complete" in caught.value.fix


@pytest.mark.parametrize("change", CHANGES)
def test_a_source_that_is_not_what_was_listed_is_named(recording, change):
    (source,) = list_sources([str(recording)])
    check_as_listed(source)
    CHANGES[change](recording)
    with pytest.raises(StoreError) as caught:
        check_as_listed(source)
    assert caught.value.where == str(recording)


def test_an_unchanged_recording_can_be_read_twice(recording, tone):
    for _ in range(2):
        with open_audio(recording) as decoder:
            assert np.concatenate(list(decoder.blocks()), axis=1).shape == (1, 88200)
