"""What is true of the recording is true of the new file: positions, times, rates; the rest is named."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
from field_recordings import IXML
from hypothesis import given
from hypothesis import strategies as st

from rave_dist.audio.metadata.adapt import NewFile, adapt
from rave_dist.audio.metadata.ixml import read_ixml
from rave_dist.audio.metadata.record import Bext, Cue, Loop, Metadata, Sampler

OWN = (("TITLE", "Derived"), ("DESCRIPTION", "Not a recording"), ("COMMENT", "mine"), ("SOFTWARE", "rave-dist"))
NEW = NewFile("a.wav", 48000, 2, 44100, 2, 24, 88_200, OWN)

RATES = st.sampled_from((8000, 22050, 44100, 48000, 96000, 250_000, 384_000))


@given(rate=RATES, new_rate=RATES, position=st.integers(0, 2**31), length=st.integers(0, 2**20))
def test_positions_are_the_nearest_samples(rate: int, new_rate: int, position: int, length: int) -> None:
    new = replace(NEW, source_rate=rate, sample_rate=new_rate, samples=None)
    cues = adapt(Metadata(cues=(Cue(1, position, length),)), new).cues
    if (position + length) * new_rate / rate >= 2**32 - 1:
        return
    cue = cues[0]
    for before, after in ((position, cue.position), (position + length, cue.position + cue.length)):
        assert abs(Fraction(before, rate) - Fraction(after, new_rate)) <= Fraction(1, 2 * new_rate)


@given(rate=RATES, new_rate=RATES, seconds=st.integers(0, 86_399))
def test_whole_seconds_of_the_time_reference_stay_whole(rate: int, new_rate: int, seconds: int) -> None:
    new = replace(NEW, source_rate=rate, sample_rate=new_rate)
    bext = adapt(Metadata(bext=Bext(time_reference=seconds * rate)), new).bext
    assert bext is not None
    assert bext.time_reference == seconds * new_rate


def test_what_lies_behind_the_end_is_named() -> None:
    """Of a damaged recording only the beginning is converted."""
    cues = (Cue(1, 96_000), Cue(2, 96_160), Cue(3, 95_000, 2000))
    loops = (Loop(1, 0, 0, 95_999), Loop(2, 0, 0, 96_200))
    found = adapt(Metadata(cues=cues, sampler=Sampler(loops=loops)), NEW)
    assert found.cues == (Cue(1, 88_200),)
    assert found.sampler is not None
    assert found.sampler.loops == (Loop(1, 0, 0, 88_199),)
    assert [remark.split(":")[0] for remark in found.remarks] == ["cue 2", "cue 3", "smpl loop 2"]


def test_the_recording_s_own_title_is_in_a_field_of_its_own() -> None:
    tags = (("TITLE", "Teich"), ("ARTIST", "Anna"), ("COMMENT", "one."), ("COMMENT", "two"), ("SOFTWARE", "Reaper"))
    found = adapt(Metadata(tags=tags), NEW)
    assert found.tags == (
        ("TITLE", "Derived"),
        ("DESCRIPTION", "Not a recording"),
        ("COMMENT", "one. mine"),
        ("SOFTWARE", "rave-dist"),
        ("SOURCE_TITLE", "Teich"),
        ("ARTIST", "Anna"),
        ("SOURCE_COMMENT", "two"),
        ("SOURCE_SOFTWARE", "Reaper"),
    )


@pytest.mark.parametrize(
    ("stated", "length", "rate", "expected"),
    [("48000", "2.0", "44100", "2.000000"), ("480000", "0.2", "441000", "0.200000"), ("nonsense", "2.0", "44100", "2.000000")],
)
def test_guano_with_time_expansion_keeps_its_factor(stated: str, length: str, rate: str, expected: str) -> None:
    found = dict(adapt(Metadata(guano=(("Samplerate", stated), ("Length", length))), NEW).guano)
    assert (found["Samplerate"], found["Length"]) == (rate, expected)
    assert next(iter(found)) == "GUANO|Version", "the first field, as the specification wants it"


def test_ixml_of_another_timestamp_rate() -> None:
    """Recorders with pull-down count midnight's samples at another rate than the file's."""
    document = read_ixml(IXML.replace("<TIMESTAMP_SAMPLE_RATE>48000", "<TIMESTAMP_SAMPLE_RATE>96000"))
    adapted = adapt(Metadata(ixml=document), NEW).ixml
    assert adapted is not None
    assert f"<TIMESTAMP_SAMPLES_SINCE_MIDNIGHT_LO>{round((2**32 + 48_000) * 44_100 / 96_000)}<" in adapted
    assert "<TIMESTAMP_SAMPLE_RATE>44100<" in adapted
