"""A writer that knows nothing of the gap finds its own bytes, and the gap lies between them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rave_dist.audio.io.gapped_file import GappedFile


@given(
    gap=st.integers(0, 12).flatmap(lambda start: st.integers(0, 9).map(lambda size: range(start, start + size))),
    steps=st.lists(st.tuples(st.integers(0, 20), st.binary(max_size=12)), max_size=8),
)
def test_the_file_is_that_without_a_gap_with_the_gap_in_it(tmp_path_factory: pytest.TempPathFactory, gap: range, steps) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path_factory.getbasetemp() / "gapped"
    plain = bytearray()
    with open(path, "w+b", buffering=0) as file:
        gapped = GappedFile(file, gap)
        steps = [(0, bytes(range(1, 14))), *steps]  # the header, longer than the place of any gap
        for place, data in steps:
            place = min(place, len(plain))
            assert gapped.seek(place) == gapped.tell() == place
            assert gapped.write(data) == len(data)
            plain[place : place + len(data)] = data
            assert gapped.tell() == place + len(data)
        assert gapped.seek(0, os.SEEK_END) == len(plain)
        gapped.fill(b"g" * len(gap))
        seen = bytearray()
        gapped.seek(0)
        buffer = bytearray(5)
        while count := gapped.readinto(buffer):
            seen += buffer[:count]
        assert seen == plain
    assert path.read_bytes() == plain[: gap.start] + b"g" * len(gap) + plain[gap.start :]


def test_a_gap_is_filled_exactly(tmp_path: Path) -> None:
    with open(tmp_path / "a", "w+b", buffering=0) as file, pytest.raises(ValueError, match="3 bytes for a gap of 4"):
        GappedFile(file, range(2, 6)).fill(b"abc")
