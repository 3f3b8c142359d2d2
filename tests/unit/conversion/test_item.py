"""One source, from its address to its journal entry: what is written, what is refused, and that nothing else happens."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from rave_dist.conversion.convert import Converter
from rave_dist.conversion.corpus import finished, plan_conversion
from rave_dist.conversion.item import Outcome, convert_source
from rave_dist.errors import StoreError
from rave_dist.identity import hash_file
from rave_dist.records import ConversionParameters, ModelCard
from rave_dist.storage.store import Store

Run = Callable[..., dict[str, Outcome]]


@pytest.fixture
def run(scripted: Callable[..., tuple[Path, ModelCard]], local_store: Store) -> Run:
    """Converts all that is not done, here; outcomes by the name of the source."""

    def convert(
        given: Path | str, output: Path | str, *, kind: str = "frames", store: Store = local_store, **parameters: object
    ) -> dict[str, Outcome]:
        path, card = scripted(kind)
        converter = Converter(path, card)
        plan = plan_conversion(card, [str(given)], str(output), ConversionParameters(**{"format": "flac", **parameters}))  # type: ignore[arg-type]
        to_do = [task for task, done in zip(plan.tasks, finished(store, plan), strict=True) if done is None]
        return {Path(t.source.uri).name: convert_source(store, t, [(plan, converter)], chunk_seconds=0.5)[0] for t in to_do}

    return convert


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """Four intact recordings and four that are not."""
    folder = tmp_path / "recordings"
    (folder / "deep").mkdir(parents=True)
    rng = np.random.default_rng(0)

    def write(name: str, seconds: float, rate: int, channels: int, subtype: str) -> Path:
        soundfile.write(folder / name, rng.standard_normal((int(seconds * rate), channels)) * 0.1, rate, subtype=subtype)
        return folder / name

    write("mono.wav", 1.3, 16000, 1, "PCM_16")
    write("deep/wide.flac", 0.7, 48000, 2, "PCM_24")
    write("deep/six.wav", 0.4, 44100, 6, "FLOAT")
    write("short.wav", 0.001, 8000, 1, "PCM_U8")
    cut = write("cut.wav", 1.0, 16000, 1, "PCM_16")
    os.truncate(cut, 20_000)
    rotten = bytearray(write("rotten.flac", 2.0, 44100, 1, "PCM_16").read_bytes())
    rotten[len(rotten) // 2 : len(rotten) // 2 + 2000] = bytes(2000)
    (folder / "rotten.flac").write_bytes(rotten)
    (folder / "empty.wav").write_bytes(b"")
    (folder / "text.wav").write_text("not a sound\n" * 50)
    nan = np.zeros(16000, np.float32)
    nan[700] = np.nan
    soundfile.write(folder / "nan.wav", nan, 16000, subtype="FLOAT")
    return folder


BAD = {"cut.wav", "rotten.flac", "empty.wav", "text.wav", "nan.wav"}


def hashes(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): hash_file(p) for p in folder.rglob("*") if p.is_file()}


def test_good_ones_are_converted_bad_ones_named_and_sources_untouched(run: Run, recordings: Path, tmp_path: Path) -> None:
    before = hashes(recordings)
    outcomes = run(recordings, tmp_path / "out")
    assert hashes(recordings) == before
    assert {name for name, outcome in outcomes.items() if outcome.item.state == "failed"} == BAD
    assert all(outcomes[name].item.reason for name in BAD)
    assert set(hashes(tmp_path / "out")) == {"mono.flac", "short.flac", "deep/wide.flac", "deep/six.flac"}
    for name, subtype in (("mono.wav", "PCM_16"), ("deep/wide.flac", "PCM_24"), ("deep/six.wav", "PCM_24")):
        source, result = soundfile.info(recordings / name), soundfile.info(tmp_path / "out" / Path(name).with_suffix(".flac"))
        assert (result.frames, result.samplerate, result.channels) == (source.frames, source.samplerate, source.channels)
        assert result.subtype == subtype
    item = outcomes["mono.wav"].item
    assert (item.source_sha256, item.output_sha256) == (before["mono.wav"], hash_file(tmp_path / "out/mono.flac"))
    assert item.seconds == pytest.approx(1.3)
    with soundfile.SoundFile(tmp_path / "out/mono.flac") as result:
        assert before["mono.wav"] in result.comment
        assert "frames@1" in result.comment


def test_a_rerun_does_what_is_missing_and_nothing_else(run: Run, recordings: Path, tmp_path: Path) -> None:
    run(recordings, tmp_path / "out")
    made = hashes(tmp_path / "out")
    assert set(run(recordings, tmp_path / "out")) == BAD
    (tmp_path / "out/deep/six.flac").unlink()
    (tmp_path / "out/mono.flac").write_bytes(b"half a file")
    again = run(recordings, tmp_path / "out")
    assert {name for name, outcome in again.items() if outcome.item.state == "converted" and not outcome.skipped} == {
        "six.wav",
        "mono.wav",
    }
    assert hashes(tmp_path / "out") == made


def test_content_decides_not_time(run: Run, recordings: Path, tmp_path: Path) -> None:
    run(recordings, tmp_path / "out")
    for place in (recordings / "mono.wav", tmp_path / "out/deep/wide.flac"):
        os.utime(place, (1, 1))
    again = run(recordings, tmp_path / "out")
    assert {name for name, outcome in again.items() if outcome.skipped} == {"mono.wav", "wide.flac"}
    assert set(run(recordings, tmp_path / "out")) == BAD, "the journal has the new times"
    shutil.copyfile(recordings / "short.wav", recordings / "mono.wav")
    again = run(recordings, tmp_path / "out")
    assert not again["mono.wav"].skipped
    assert soundfile.info(tmp_path / "out/mono.flac").samplerate == 8000


def test_salvage_converts_what_can_be_read_and_says_so(run: Run, recordings: Path, tmp_path: Path) -> None:
    run(recordings, tmp_path / "out")
    outcomes = run(recordings, tmp_path / "out", salvage=True)
    assert set(outcomes) == BAD, "the intact ones are done already"
    states = {name: outcome.item.state for name, outcome in outcomes.items()}
    assert states == dict.fromkeys(("cut.wav", "rotten.flac", "nan.wav"), "salvaged") | dict.fromkeys(
        ("empty.wav", "text.wav"), "failed"
    )
    cut = outcomes["cut.wav"].item
    assert cut.reason
    assert cut.seconds == pytest.approx((20_000 - 44) / 2 / 16000)
    assert soundfile.info(tmp_path / "out/cut.flac").frames == (20_000 - 44) // 2
    assert set(run(recordings, tmp_path / "out", salvage=True)) == {"empty.wav", "text.wav"}
    assert set(run(recordings, tmp_path / "out")) == BAD, "without salvage, damage is a failure again"


def test_rate_channels_and_format_can_be_asked_for(run: Run, recordings: Path, tmp_path: Path) -> None:
    run(recordings / "deep" / "six.wav", tmp_path / "out" / "two.wav", sample_rate=22050, channels=2)
    result = soundfile.info(tmp_path / "out" / "two.wav")
    assert (result.format, result.samplerate, result.channels, result.frames) == ("WAV", 22050, 2, 8820)


def test_a_store_may_be_all_there_is(run: Run, recordings: Path, tmp_path: Path, s3_store: Store) -> None:
    for path in recordings.rglob("*.*"):
        s3_store.upload(path, f"in/{path.relative_to(recordings)}")
    outcomes = run(f"{s3_store.uri}/in", f"{s3_store.uri}/out", store=s3_store)
    assert {name for name, outcome in outcomes.items() if outcome.item.state == "failed"} == BAD
    assert [e.key for e in s3_store.list("out")] == [
        "out/deep/six.flac",
        "out/deep/wide.flac",
        "out/mono.flac",
        "out/short.flac",
    ]
    assert set(run(f"{s3_store.uri}/in", f"{s3_store.uri}/out", store=s3_store)) == BAD
    run(recordings, tmp_path / "out")
    assert s3_store.read_bytes("out/deep/wide.flac") == (tmp_path / "out/deep/wide.flac").read_bytes()


def test_a_place_that_cannot_be_written_ends_it_all(run: Run, recordings: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "deep").write_text("a file where a folder is needed")
    with pytest.raises(StoreError, match="a file exists where a folder is needed"):
        run(recordings / "deep", tmp_path / "out" / "deep" / "results")


KILLED = """
import os, signal, sys
import numpy as np
from rave_dist.audio.io.write import AudioWriter
with AudioWriter(sys.argv[1], sample_rate=8000, channels=1) as writer:
    writer.write(np.zeros((1, 100_000), np.float32))
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_writer_leaves_nothing_that_counts(run: Run, recordings: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    killed = subprocess.run([sys.executable, "-c", KILLED, out / "mono.flac"], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(list(out.iterdir())) == 1, "its unfinished file"
    run(recordings / "mono.wav", out)
    assert [p.name for p in out.iterdir()] == ["mono.flac"]


def test_a_model_that_answers_with_infinity_is_the_source_s_failure(run: Run, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    soundfile.write(tmp_path / "in/loud.wav", np.full(2000, 0.95), 16000)
    soundfile.write(tmp_path / "in/soft.wav", np.full(2000, 0.2), 16000)
    outcomes = run(tmp_path / "in", tmp_path / "out", kind="broken")
    assert outcomes["loud.wav"].item.state == "failed"
    assert outcomes["soft.wav"].item.clipped_samples == 2000
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["soft.flac"]


class Growing(Converter):
    """Appends to its source before it converts, as a recorder does."""

    source: Path

    def convert(self, blocks, **options):  # type: ignore[no-untyped-def,override]
        with open(self.source, "ab") as file:
            file.write(bytes(3200))
        return super().convert(blocks, **options)


@pytest.mark.parametrize("salvage", [False, True])
def test_a_source_that_grows_is_named_and_leaves_neither_output_nor_journal_of_another_content(
    scripted: Callable[..., tuple[Path, ModelCard]], local_store: Store, recordings: Path, tmp_path: Path, salvage: bool
) -> None:
    converter = Growing(*scripted("frames"))
    converter.source = recordings / "mono.wav"
    parameters = ConversionParameters(format="flac", salvage=salvage)
    plan = plan_conversion(converter.card, [str(converter.source)], str(tmp_path / "out"), parameters)
    (outcome,) = convert_source(local_store, plan.tasks[0], [(plan, converter)], chunk_seconds=0.5)
    assert (outcome.item.state, outcome.item.reason) == ("failed", "the file changed while it was read")
    assert not any((tmp_path / "out").rglob("*.flac"))
    (again,) = convert_source(local_store, plan.tasks[0], [(plan, Converter(*scripted("frames")))], chunk_seconds=0.5)
    assert again.item.reason == "the file changed while it was read", "it is not what was listed"
    plan = plan_conversion(converter.card, [str(converter.source)], str(tmp_path / "out"), parameters)
    (done,) = convert_source(local_store, plan.tasks[0], [(plan, Converter(*scripted("frames")))], chunk_seconds=0.5)
    assert (done.item.state, done.item.source_sha256) == ("converted", hash_file(converter.source))


def test_an_output_has_the_time_of_its_recording_and_is_still_known_from_another(run: Run, tmp_path: Path) -> None:
    """Two conversions write the same file, of the same size and time: neither takes the other's result for its own."""
    source = tmp_path / "in" / "dawn.wav"
    source.parent.mkdir()
    soundfile.write(source, np.random.default_rng(0).standard_normal(8000) * 0.1, 16000)
    os.utime(source, (1_234_567_890, 1_234_567_890))
    made = {}
    for seed in (1, 2):
        outcome = run(source.parent, tmp_path / "out", format="keep", seed=seed)["dawn.wav"]
        output = Path(outcome.item.output)
        assert output.name == "dawn.wav"
        assert output.stat().st_mtime == source.stat().st_mtime == 1_234_567_890
        made[seed] = output.read_bytes()
    assert made[1] != made[2]
    assert len(made[1]) == len(made[2])
    assert run(source.parent, tmp_path / "out", format="keep", seed=2) == {}
    run(source.parent, tmp_path / "out", format="keep", seed=1)
    assert output.read_bytes() == made[1]


def test_remarks_about_a_source_are_in_its_entry(run: Run, tmp_path: Path) -> None:
    stale = tmp_path / "in" / "stale.wav"
    stale.parent.mkdir()
    soundfile.write(stale, np.full(16_000, 0.1), 16_000)
    data = bytearray(stale.read_bytes())
    data[40:44] = (8000).to_bytes(4, "little")  # the recorder updated its header last after a quarter of the recording
    stale.write_bytes(data)
    item = run(stale, tmp_path / "out")["stale.wav"].item
    assert item.state == "converted"
    assert item.seconds == 1.0
    assert item.notes == ("the header declares 0.250 s; all 1.000 s that the file holds are used",)
