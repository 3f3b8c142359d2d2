"""A folder that is followed: what arrives, is still copied, changes, fails, goes; with real files and a real converter."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile

from rave_dist.archives.watched import watch
from rave_dist.conversion.convert import Converter
from rave_dist.conversion.corpus import Plan
from rave_dist.conversion.follow import Arrivals, convert_arrivals, follow, look_at
from rave_dist.conversion.table import read_table, write_table
from rave_dist.errors import ConversionError, StoreError
from rave_dist.identity import hash_file
from rave_dist.records import ConversionParameters, ConversionRecord, ModelCard
from rave_dist.storage.store import Store

Scripted = Callable[..., tuple[Path, ModelCard]]
Happens = dict[int, Callable[[], object]]
POLL, SETTLE = 3.0, 10.0


class Clock:
    """Time that passes only in waits; after given looks something happens in the folder, and after the last it ends."""

    def __init__(self, happens: Happens, looks: int) -> None:
        self.now = 1000.0
        self.waits: list[float] = []
        self._happens, self._looks = happens, looks

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.waits.append(seconds)
        if len(self.waits) == self._looks:
            raise KeyboardInterrupt
        self._happens.get(len(self.waits), lambda: None)()


def sound(path: Path, seconds: float = 0.1, *, level: float = 0.25) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.full(round(16000 * seconds), level), 16000)


class Inbox:
    """A folder, its OUTPUT, and a command that follows it for a number of looks."""

    def __init__(self, tmp_path: Path, store: Store, scripted: Scripted) -> None:
        self.folder, self.output, self.store = tmp_path / "in", tmp_path / "out", store
        self.folder.mkdir()
        self.scripted = scripted
        self.said: list[str] = []
        self.passes: list[list[str]] = []
        self.plans: tuple[Plan, ...] = ()
        self.records: tuple[ConversionRecord, ...] = ()

    def follow(self, happens: Happens, *, looks: int = 12, kinds: Sequence[str] = ("mirror",)) -> ConversionRecord:
        """The record of the first model."""
        models = [self.scripted(kind) for kind in kinds]
        look = look_at([card for _, card in models], str(self.folder), str(self.output), ConversionParameters(format="flac"))
        self.clock = Clock(happens, looks)
        arrivals = follow(
            look, poll_seconds=POLL, settle_seconds=SETTLE, say=self.said.append, clock=self.clock, wait=self.clock.wait
        )
        converters = {number: Converter(path, card) for number, (path, card) in enumerate(models)}
        self.plans, self.records = convert_arrivals(
            self.store, self._noted(arrivals), converters, chunk_seconds=0.5, say=self.said.append
        )
        return self.records[0]

    def _noted(self, arrivals: Iterator[Arrivals]) -> Iterator[Arrivals]:
        for each in arrivals:
            if each.tasks:
                self.passes.append([Path(task.source.name).name for task in each.tasks])
            yield each

    @property
    def results(self) -> set[str]:
        return {str(path.relative_to(self.output)) for path in self.output.rglob("*") if path.is_file()}


@pytest.fixture
def inbox(tmp_path: Path, local_store: Store, scripted: Scripted) -> Inbox:
    return Inbox(tmp_path, local_store, scripted)


def test_what_is_there_and_what_arrives_is_converted_once(inbox: Inbox) -> None:
    sound(inbox.folder / "first.wav")
    record = inbox.follow(
        {5: lambda: sound(inbox.folder / "deep" / "second.wav"), 6: lambda: sound(inbox.folder / "third.wav")}
    )
    assert inbox.passes == [["first.wav"], ["second.wav"], ["third.wav"]]
    assert inbox.results == {"first.flac", "deep/second.flac", "third.flac"}
    assert (record.converted, record.skipped, record.failed) == (3, 0, ())
    assert inbox.store.read_json(f"conversions/{record.id}/record.json") == record.to_json()


def test_an_empty_folder_is_waited_for(inbox: Inbox) -> None:
    assert inbox.follow({3: lambda: sound(inbox.folder / "a.wav")}).converted == 1
    assert inbox.follow({}).skipped == 1, "another command skips it"


def test_a_file_that_is_still_copied_is_not_read(inbox: Inbox) -> None:
    sound(inbox.folder.parent / "whole.wav", 2)
    data = (inbox.folder.parent / "whole.wav").read_bytes()
    copy = inbox.folder / "copy.wav"

    def grow(part: int) -> Callable[[], object]:
        return lambda: copy.write_bytes(data[: len(data) * part // 8])

    record = inbox.follow({look: grow(look) for look in range(1, 9)}, looks=14)
    assert inbox.passes == [["copy.wav"]]
    assert (record.converted, record.seconds, record.failed) == (1, 2.0, ())
    assert soundfile.info(inbox.output / "copy.flac").frames == 32000


def test_settling_takes_the_given_time_and_looks_have_pauses(inbox: Inbox) -> None:
    sound(inbox.folder / "a.wav")
    found: list[float] = []
    inbox.follow({look: lambda: found.append(len(inbox.results)) for look in range(1, 12)})
    assert found.index(1) + 1 == 5, "seen at 0 s; at 3, 6 and 9 s not settled; at 12 s it is"
    assert inbox.clock.waits == [POLL] * 12


def test_a_failure_is_repeated_only_for_a_changed_file(inbox: Inbox) -> None:
    bad = inbox.folder / "bad.wav"
    bad.write_bytes(b"not a sound")
    sound(inbox.folder / "good.wav")
    record = inbox.follow({}, looks=20)
    assert inbox.passes == [["bad.wav", "good.wav"]]
    assert [Path(item.source).name for item in record.failed] == ["bad.wav"]
    assert not record.is_complete
    assert sum("bad.wav" in text for text in inbox.said) == 1
    inbox.passes.clear()
    record = inbox.follow({8: lambda: sound(bad)}, looks=20)
    assert inbox.passes == [["bad.wav", "good.wav"], ["bad.wav"]]
    assert (record.converted, record.skipped, record.failed) == (1, 1, ())
    assert record.is_complete


def test_a_file_that_goes_before_it_settles_is_forgotten(inbox: Inbox) -> None:
    gone = inbox.folder / "gone.wav"
    sound(gone)
    record = inbox.follow({2: gone.unlink, 3: lambda: sound(inbox.folder / "stays.wav")})
    assert inbox.passes == [["stays.wav"]]
    assert (record.converted, record.failed) == (1, ())


def test_a_failed_file_that_is_removed_no_longer_counts_and_a_converted_one_does(inbox: Inbox) -> None:
    bad, good = inbox.folder / "bad.wav", inbox.folder / "good.wav"
    bad.write_bytes(b"not a sound")
    sound(good)
    record = inbox.follow({8: bad.unlink, 9: good.unlink})
    assert (record.converted, record.failed) == (1, ())
    write_table(inbox.store, inbox.plans[0])
    assert [Path(item.source).name for item in read_table(inbox.store, record.id)] == ["good.wav"]


def test_a_file_that_changes_is_converted_again(inbox: Inbox) -> None:
    path = inbox.folder / "a.wav"
    sound(path, 0.1)
    record = inbox.follow({6: lambda: sound(path, 0.2)})
    assert inbox.passes == [["a.wav"], ["a.wav"]]
    assert (record.converted, record.seconds) == (1, 0.2)
    assert soundfile.info(inbox.output / "a.flac").frames == 3200


def test_the_bytes_are_those_of_a_plain_conversion(
    inbox: Inbox, convert: Callable[..., ConversionRecord], tmp_path: Path
) -> None:
    inbox.follow(
        {look: (lambda name: lambda: sound(inbox.folder / name, 0.3))(f"{look}.wav") for look in (1, 4, 6)}, kinds=["frames"]
    )
    convert(inbox.folder, tmp_path / "plain", kind="frames")
    assert len(inbox.results) == 3
    # The comment names model and source, which are the same.
    assert {n: hash_file(inbox.output / n) for n in inbox.results} == {
        n: hash_file(tmp_path / "plain" / n) for n in inbox.results
    }


def test_a_folder_that_is_away_for_a_while_is_said_once(inbox: Inbox) -> None:
    sound(inbox.folder / "a.wav")
    moved = inbox.folder.with_name("moved")
    calls = 0
    _, card = inbox.scripted("mirror")
    look = look_at([card], str(inbox.folder), str(inbox.output), ConversionParameters(format="flac"))

    def failing() -> tuple[Plan, ...]:
        nonlocal calls
        calls += 1
        if 6 <= calls <= 8:
            raise StoreError("the server does not respond", where=str(moved))
        return look()

    clock, said = Clock({}, 12), list[str]()
    found: list[Arrivals] = []
    with pytest.raises(KeyboardInterrupt):
        found.extend(follow(failing, poll_seconds=POLL, settle_seconds=SETTLE, say=said.append, clock=clock, wait=clock.wait))
    assert [[task.output for task in each.tasks] for each in found] == [["a.flac"]]
    assert said == [f"{moved}: the server does not respond; trying again"]


def test_a_listing_that_takes_long_is_not_repeated_without_a_pause() -> None:
    clock = Clock({}, 3)

    def slow() -> tuple[Plan, ...]:
        clock.now += 60
        return ()

    with pytest.raises(KeyboardInterrupt):
        list(follow(slow, clock=clock, wait=clock.wait))
    assert clock.waits == pytest.approx([540] * 3), "a tenth of the time"


def test_what_cannot_be_followed_is_an_error_at_once(inbox: Inbox) -> None:
    _, card = inbox.scripted("mirror")
    for folder in (inbox.folder / "absent", inbox.folder / "a.wav"):
        sound(inbox.folder / "a.wav")
        with pytest.raises(ConversionError, match="only a folder can be watched"):
            look_at([card], str(folder), str(inbox.output), ConversionParameters(format="flac"))
    look = look_at([card], str(inbox.folder), str(inbox.folder / "out"), ConversionParameters(format="flac"))
    with pytest.raises(ConversionError, match="OUTPUT is inside"):
        next(follow(look))


def test_the_command_converts_what_arrives_until_sigterm_and_ends_with_the_totals(
    inbox: Inbox, local_store: Store, tmp_path: Path
) -> None:
    path, card = inbox.scripted("frames")
    local_store.upload(path, card.files["offline"].key)
    local_store.write_json(f"{card.key}/card.json", card.to_json())
    sound(inbox.folder / "first.wav", 1)
    (inbox.folder / "bad.wav").write_bytes(b"not a sound")
    arguments = ["--store", local_store.uri, "--model", "frames@1", "--watch", "--page", str(tmp_path / "page.html")]
    arguments += ["--format", "flac"]
    program = [sys.executable, "-m", "rave_dist", "convert", *arguments, str(inbox.folder), str(inbox.output)]
    command = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        for name in ("first", "second"):
            until = time.monotonic() + 240
            while not (inbox.output / f"{name}.flac").exists():
                assert command.poll() is None, command.communicate()
                assert time.monotonic() < until
                time.sleep(0.2)
            if name == "first":
                sound(inbox.folder / "second.wav", 1)
        time.sleep(1)  # for the entry of the journal
        command.send_signal(signal.SIGTERM)
        out, err = command.communicate(timeout=240)
    finally:
        command.kill()
        command.communicate()
    assert command.returncode == 3, err
    assert out.splitlines()[0].startswith("frames@1: 2 converted (0:02.0), 0 skipped, 1 failed")
    assert "bad.wav" in err
    assert "Stopped" not in err
    (record,) = (local_store.read_json(entry.key) for entry in local_store.list("conversions") if "record" in entry.key)
    assert sorted(item.state for item in read_table(local_store, record["id"])) == ["converted", "converted", "failed"]
    assert (tmp_path / "page.html").read_text().count("data:audio/mpeg") == 4


@pytest.mark.parametrize(("inputs", "workers"), [(("a", "b"), None), (("a",), 2)])
def test_what_cannot_be_combined_with_watching_is_refused(
    local_store: Store, inputs: tuple[str, ...], workers: int | None
) -> None:
    with pytest.raises(ConversionError) as caught:
        watch(
            local_store, ["m"], inputs, "out", parameters=ConversionParameters(format="flac"), chunk_seconds=1, workers=workers
        )
    assert caught.value.fix


def test_several_models_convert_what_arrives_each_to_its_folder(inbox: Inbox) -> None:
    bad = inbox.folder / "bad.wav"
    bad.write_bytes(b"not a sound")
    sound(inbox.folder / "first.wav")
    inbox.follow({8: lambda: sound(inbox.folder / "second.wav"), 9: bad.unlink}, looks=16, kinds=["mirror", "frames"])
    names = {f"{kind}/{name}.flac" for kind in ("mirror", "frames") for name in ("first", "second")}
    assert inbox.results == names
    assert [(r.model, r.converted, r.failed) for r in inbox.records] == [("mirror@1", 2, ()), ("frames@1", 2, ())]
    assert inbox.said.count("2 converted, 2 failed; waiting for recordings") == 1


def test_a_signal_before_anything_arrives_is_an_ordinary_stop(inbox: Inbox) -> None:
    with pytest.raises(KeyboardInterrupt):
        inbox.follow({})
