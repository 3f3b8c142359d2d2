"""A derived file is as old as its source."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rave_dist.audio.metadata.times import keep_time


def test_the_time_of_the_source_is_kept_to_the_nanosecond(tmp_path: Path) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_bytes(b"")
    target.write_bytes(b"content")
    os.utime(source, ns=(5, 1_714_763_850_123_456_789))
    keep_time(source, target)
    assert target.stat().st_mtime_ns == source.stat().st_mtime_ns
    assert target.read_bytes() == b"content"
    with pytest.raises(FileNotFoundError):
        keep_time(source, tmp_path / "missing")
