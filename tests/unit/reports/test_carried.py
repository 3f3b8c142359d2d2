"""What of the recordings' metadata a page counts as carried over, and as left out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from rave_dist.audio.io.open import open_audio
from rave_dist.conversion.describe import OWN_TAGS, Origin, describe
from rave_dist.records import ConversionItem, ConversionParameters
from rave_dist.reports.carried import Carried
from tests.sample_records import model_card


def item(name: str, carried: tuple[str, ...] = (), not_carried: tuple[str, ...] = ()) -> ConversionItem:
    values = {"source": name, "source_sha256": "", "output": name, "state": "converted"}
    return ConversionItem.model_validate({**values, "carried": carried, "not_carried": not_carried})


def counted(*items: ConversionItem) -> Carried:
    found = Carried()
    for each in items:
        found.add(each)
    return found


def test_files_are_counted_by_kind_whatever_the_number_of_parts() -> None:
    found = counted(
        item("a.wav", ("bext", "3 cue points", "smpl with 1 loops", "ARTIST", *OWN_TAGS)),
        item("b.wav", ("bext", "12 cue points")),
        item("c.wav", ("bext",)),
    )
    assert list(found.kept) == [("bext", 3), ("cue points", 2), ("ARTIST", 1), ("smpl", 1)]
    assert not list(found.left)


def test_what_was_left_out_has_its_reason_and_an_example_and_counts_each_file_once() -> None:
    cues = tuple(f"cue {number}: its position {10**number} is behind the end" for number in (1, 2))
    found = counted(item("a.wav", (), cues), item("b.wav", (), (cues[1], "bext UMID: it identifies the recording")))
    assert [(files, source) for _, _, files, source in found.left] == [(2, "a.wav"), (1, "b.wav")]
    assert ("bext UMID", "it identifies the recording", 1, "b.wav") in found.left


def test_memory_is_bounded_where_each_file_has_a_tag_of_its_own() -> None:
    found = counted(*(item(f"{i}.wav", (f"TAG_{'x' * i}",)) for i in range(1, 1500)))
    assert len(list(found.kept)) == 1000


def test_a_recording_without_metadata_gives_a_result_with_its_own_tags_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(100), 16000)
    card = model_card(credit={"performer": "Someone", "licence": "CC BY 4.0"})
    origin = Origin("0" * 64, "a.wav", damage="cut off")
    with open_audio(path) as decoder:
        metadata = describe(path, decoder, card, ConversionParameters(), origin, bits=16, samples=100)
    assert set(metadata.kinds) == set(OWN_TAGS)
