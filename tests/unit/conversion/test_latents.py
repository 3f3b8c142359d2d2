"""Latents as a table: an unchanged one is the conversion of its recording, an edited one sounds as it was edited."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from typer.testing import CliRunner

from rave_dist.archives import latents
from rave_dist.audio.metadata.read import read_metadata
from rave_dist.cli.main import app
from rave_dist.conversion.convert import Converter
from rave_dist.conversion.file import Target, convert_file
from rave_dist.conversion.latents import decode, encode
from rave_dist.conversion.latents_file import LatentsFile, LatentsInfo
from rave_dist.errors import AudioError, ConversionError, ModelNotFoundError
from rave_dist.identity import hash_file
from rave_dist.records import ConversionParameters, ModelCard
from rave_dist.storage.store import Store

HOP, LATENTS, RATE = 512, 4, 44100


@pytest.fixture
def card(local_store: Store, publish_tiny: Callable[..., ModelCard]) -> ModelCard:
    return publish_tiny(local_store, "drum")


def noise(samples: int, channels: int = 1) -> np.ndarray:
    return (np.random.default_rng(0).standard_normal((channels, samples)) * 0.2).astype(np.float32)


def record(path: Path, *, seconds: float = 1.0, rate: int = RATE, channels: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, noise(int(seconds * rate), channels).T, rate, subtype="PCM_16")
    return path


def encoded(store: Store, source: Path, table: Path, **options: Any) -> Path:
    (made,) = latents.encode(store, "drum", [str(source)], str(table), **{"seed": 3, "latent_noise": 1.0} | options)
    assert made.problem is None
    return table


def decoded(store: Store, table: Path, sound: Path, **options: Any) -> np.ndarray:
    (made,) = latents.decode(store, [str(table)], str(sound), **options)
    assert made.problem is None
    return np.asarray(soundfile.read(sound, dtype="int16", always_2d=True)[0])


def edited(path: Path, change: Callable[[pa.Table], pa.Table], *, metadata: bool = True) -> Path:
    table = pq.read_table(path)
    changed = change(table)
    target = path.with_name("edited.parquet")
    pq.write_table(changed.replace_schema_metadata(table.schema.metadata if metadata else None), target)
    return target


def with_column(name: str, values: Any) -> Callable[[pa.Table], pa.Table]:
    return lambda table: table.set_column(table.schema.get_field_index(name), name, values)


@pytest.mark.parametrize(("rate", "channels", "seconds"), [(RATE, 1, 1.0), (RATE, 2, 0.7), (48000, 1, 1.01), (8000, 3, 0.3)])
def test_an_unchanged_table_is_the_conversion(
    local_store: Store, card: ModelCard, tmp_path: Path, rate: int, channels: int, seconds: float
) -> None:
    """To the last bit, as the sound is one chunk: any rate, any number of channels, and an incomplete last frame."""
    source = record(tmp_path / "in.wav", seconds=seconds, rate=rate, channels=channels)
    table = encoded(local_store, source, tmp_path / "x.parquet")
    result = decoded(local_store, table, tmp_path / "x.wav")
    expected = tmp_path / "converted.wav"
    converter = Converter.load(local_store, card)
    convert_file(source, Target(expected, converter, ConversionParameters(seed=3, latent_noise=1.0), "wav"))
    np.testing.assert_array_equal(result, soundfile.read(expected, dtype="int16", always_2d=True)[0])
    assert soundfile.info(tmp_path / "x.wav").samplerate == rate
    assert result.any()


@pytest.mark.parametrize("rate", [RATE, 32000])
@pytest.mark.parametrize("latent_noise", [0.0, 1.0])
def test_chunks_only_round(local_store: Store, card: ModelCard, rate: int, latent_noise: float) -> None:
    converter, x = Converter.load(local_store, card), noise(60_001, 2)
    options = {"seed": 7, "latent_noise": latent_noise}
    expected = np.concatenate(list(converter.convert([x], sample_rate=rate, channels=2, **options)), axis=1)  # type: ignore[arg-type]
    info = LatentsInfo(
        model=card.reference,
        model_sample_rate=RATE,
        model_channels=1,
        hop=HOP,
        latents=LATENTS,
        sample_rate=rate,
        channels=2,
        samples=x.shape[1],
        subtype="PCM_16",
        source="x.wav",
        **options,  # type: ignore[arg-type]
    )
    for there, back in ((0.1, 0.1), (0.3, 0.2), (10.0, 0.15)):
        z = np.concatenate(list(encode(converter, [x], info, chunk_seconds=there)), axis=-1)
        assert z.shape == (2, LATENTS, info.frames)
        frames = z.reshape(2 * LATENTS, -1)
        blocks = [frames[:, i : i + 13] for i in range(0, info.frames, 13)]
        result = np.concatenate(list(decode(converter, blocks, info, frames=info.frames, chunk_seconds=back)), axis=1)
        assert result.shape == x.shape
        assert np.abs(result - expected).max() <= 1e-5 * np.abs(expected).max()


def test_the_table_says_what_it_is(local_store: Store, card: ModelCard, tmp_path: Path) -> None:
    mono = pq.read_table(encoded(local_store, record(tmp_path / "in.wav"), tmp_path / "x.parquet"))
    assert mono.schema.names == ["seconds", "z1", "z2", "z3", "z4"]
    assert mono.schema.types == [pa.float64(), *[pa.float32()] * LATENTS]
    assert mono.num_rows == -(-RATE // HOP)
    np.testing.assert_allclose(mono["seconds"], np.arange(mono.num_rows) * HOP / RATE)
    stereo = encoded(local_store, record(tmp_path / "two.wav", channels=2, rate=48000), tmp_path / "y.parquet", latent_noise=0)
    assert pq.read_schema(stereo).names == ["seconds", *(f"c{row}_z{index}" for row in (1, 2) for index in range(1, 5))]
    info = LatentsFile(stereo).info
    assert (info.model, info.model_sample_rate, info.hop) == (card.reference, RATE, HOP)
    assert (info.sample_rate, info.channels, info.samples, info.source) == (48000, 2, 48000, "two.wav")
    assert (info.seed, info.latent_noise) == (3, 0)


@pytest.mark.parametrize("extension", ["wav", "flac"])
def test_the_sound_says_what_it_is_derived_from(local_store: Store, card: ModelCard, tmp_path: Path, extension: str) -> None:
    source = record(tmp_path / "in.wav", seconds=0.2)
    decoded(local_store, encoded(local_store, source, tmp_path / "x.parquet"), tmp_path / f"x.{extension}")
    tags = dict(read_metadata(tmp_path / f"x.{extension}").tags)
    assert tags["DERIVED_FROM"] == "in.wav"
    assert tags["DERIVED_FROM_SHA256"] == hash_file(source)
    assert tags["MODEL"] == card.reference
    assert "table of latents" in tags["PARAMETERS"]
    assert "latents of in.wav" in tags["COMMENT"]
    assert f"through {card.reference}" not in tags["COMMENT"], "a service would take it for a conversion of its own"


def test_a_second_command_encodes_only_what_is_missing_and_keeps_edits(
    local_store: Store, card: ModelCard, tmp_path: Path
) -> None:
    folder, tables = tmp_path / "in", tmp_path / "tables"
    record(folder / "a.wav", seconds=0.2)

    def kept(**options: Any) -> dict[str, bool]:
        given = {"seed": 3, "latent_noise": 1.0} | options
        made = latents.encode(local_store, "drum", [str(folder)], str(tables), **given)
        return {Path(each.output).stem: each.kept for each in made}

    assert kept() == {"a": False}
    edited(tables / "a.parquet", with_column("z1", pa.array(np.zeros(18)))).rename(tables / "a.parquet")
    record(folder / "b.wav", seconds=0.3)
    before = (tables / "a.parquet").read_bytes()
    assert kept() == {"a": True, "b": False}
    assert (tables / "a.parquet").read_bytes() == before
    record(folder / "b.wav", seconds=0.4)
    assert kept() == {"a": True, "b": False}, "another recording"
    assert kept(seed=4) == {"a": False, "b": False}
    (tables / "b.parquet").write_bytes((tables / "b.parquet").read_bytes()[:-9])
    assert kept(seed=4) == {"a": True, "b": False}, "not a whole table"


def test_an_edited_table_in_an_s3_store_is_kept(local_store: Store, s3_store: Store, card: ModelCard, tmp_path: Path) -> None:
    source, output = record(tmp_path / "in" / "a.wav", seconds=0.2), s3_store.address("tables")

    def again(**options: Any) -> bool:
        (made,) = latents.encode(
            local_store, "drum", [str(source.parent)], output, **{"seed": 3, "latent_noise": 1.0, **options}
        )
        return made.kept

    assert not again()
    table = s3_store.download("tables/a.parquet", tmp_path / "a.parquet")
    s3_store.upload(edited(table, with_column("z1", pa.array(np.zeros(18)))), "tables/a.parquet")
    before = list(s3_store.list("tables"))
    assert again()
    assert list(s3_store.list("tables")) == before
    assert not again(latent_noise=0.5)


def test_an_edited_table_without_its_metadata_is_not_replaced(local_store: Store, card: ModelCard, tmp_path: Path) -> None:
    """As pandas writes it: it is named, and the other recordings are encoded."""
    folder, tables = tmp_path / "in", tmp_path / "tables"
    record(folder / "a.wav", seconds=0.2)
    options: dict[str, Any] = {"seed": 3, "latent_noise": 1.0}
    latents.encode(local_store, "drum", [str(folder)], str(tables), **options)
    edited(tables / "a.parquet", lambda rows: rows, metadata=False).rename(tables / "a.parquet")
    before = (tables / "a.parquet").read_bytes()
    record(folder / "b.wav", seconds=0.2)
    (a, b) = sorted(latents.encode(local_store, "drum", [str(folder)], str(tables), **options), key=lambda each: each.output)
    assert a.problem is not None
    assert "not replaced" in a.problem.what
    assert "another OUTPUT" in a.problem.fix
    assert (b.problem, (tables / "a.parquet").read_bytes()) == (None, before)
    whole = (tables / "b.parquet").read_bytes()
    footer = int.from_bytes(whole[-8:-4], "little")
    (tables / "b.parquet").write_bytes(whole[: -8 - footer] + bytes(footer) + whole[-8:])
    (_, b) = sorted(latents.encode(local_store, "drum", [str(folder)], str(tables), **options), key=lambda each: each.output)
    assert (b.problem, b.kept, (tables / "b.parquet").read_bytes()) == (None, False, whole), "a damaged table is written again"


def test_an_edit_changes_the_sound_where_it_is(local_store: Store, card: ModelCard, tmp_path: Path) -> None:
    table = encoded(local_store, record(tmp_path / "in.wav", seconds=2), tmp_path / "x.parquet")
    before = decoded(local_store, table, tmp_path / "before.wav")
    z1 = pq.read_table(table)["z1"].to_numpy().copy()
    z1[120:] += 3
    after = decoded(local_store, edited(table, with_column("z1", pa.array(z1, pa.float64()))), tmp_path / "after.wav")
    reached = 120 * HOP - card.receptive_field[1]
    assert reached > 0
    assert len(after) == len(before)
    np.testing.assert_array_equal(after[:reached], before[:reached])
    assert np.abs(after[120 * HOP :].astype(int) - before[120 * HOP :]).max() > 100


def test_the_length_follows_the_frames(local_store: Store, card: ModelCard, tmp_path: Path) -> None:
    table = encoded(local_store, record(tmp_path / "in.wav", rate=22050), tmp_path / "x.parquet")
    short = decoded(local_store, edited(table, lambda rows: rows.slice(0, 40)), tmp_path / "short.wav")
    assert len(short) == 40 * HOP // 2
    long = decoded(local_store, edited(table, lambda rows: pa.concat_tables([rows, rows])), tmp_path / "long.wav")
    assert len(long) == 2 * pq.read_metadata(table).num_rows * HOP // 2


def test_a_tool_may_drop_the_metadata_and_add_columns(local_store: Store, card: ModelCard, tmp_path: Path) -> None:
    table = encoded(local_store, record(tmp_path / "in.wav"), tmp_path / "x.parquet")
    expected = decoded(local_store, table, tmp_path / "x.wav")

    def change(rows: pa.Table) -> pa.Table:
        return rows.drop_columns("seconds").append_column("note", pa.array(["call"] * rows.num_rows))

    bare = edited(table, change, metadata=False)
    with pytest.raises(ConversionError, match="of which model") as caught:
        latents.decode(local_store, [str(bare)], str(tmp_path / "y.wav"))
    assert "--like" in caught.value.fix
    np.testing.assert_array_equal(decoded(local_store, bare, tmp_path / "y.wav", like=str(table)), expected)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda rows: rows.drop_columns("z2"), "the column z2 is missing"),
        (lambda rows: rows.append_column("z5", rows["z1"]), "the column z5 is not one"),
        (lambda rows: with_column("z1", pa.array(["high"] * rows.num_rows))(rows), "the column z1 has the type string"),
        (lambda rows: rows.slice(0, 0), "no rows"),
    ],
)
def test_tables_that_do_not_fit_are_refused(
    local_store: Store, card: ModelCard, tmp_path: Path, change: Callable[[pa.Table], pa.Table], what: str
) -> None:
    table = encoded(local_store, record(tmp_path / "in.wav", seconds=0.2), tmp_path / "x.parquet")
    with pytest.raises(ConversionError, match=what) as caught:
        latents.decode(local_store, [str(edited(table, change))], str(tmp_path / "y.wav"))
    assert caught.value.fix
    assert not (tmp_path / "y.wav").exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None, 1e300])
def test_a_value_that_is_not_finite_is_named(local_store: Store, card: ModelCard, tmp_path: Path, value: float | None) -> None:
    table = encoded(local_store, record(tmp_path / "in.wav", seconds=0.2), tmp_path / "x.parquet")
    z3: list[float | None] = pq.read_table(table)["z3"].to_pylist()
    z3[4] = value
    (made,) = latents.decode(
        local_store, [str(edited(table, with_column("z3", pa.array(z3, pa.float64()))))], str(tmp_path / "out")
    )
    assert made.problem is not None
    assert made.problem.what == "row 5 of the column z3 is NaN, infinite or missing"
    assert not (tmp_path / "out").exists()


def test_another_store_and_other_files_are_refused(local_store: Store, card: ModelCard, tmp_path: Path) -> None:
    table = encoded(local_store, record(tmp_path / "in.wav", seconds=0.2), tmp_path / "x.parquet")
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(ModelNotFoundError, match="drum"):
        latents.decode(Store(str(tmp_path / "elsewhere")), [str(table)], str(tmp_path / "y.wav"))
    text = tmp_path / "text.parquet"
    text.write_text("no table")
    with pytest.raises(ConversionError, match="not a Parquet file"):
        latents.decode(local_store, [str(text)], str(tmp_path / "y.wav"))
    with pytest.raises(ConversionError, match="no table"):
        latents.decode(local_store, [str(tmp_path / "elsewhere")], str(tmp_path / "y.wav"))
    with pytest.raises(ConversionError, match="one file, but there are 2"):
        latents.decode(local_store, [str(table), str(table)], str(tmp_path / "y.wav"))
    with pytest.raises(AudioError, match="no recording matches"):
        latents.encode(local_store, "drum", [str(tmp_path / "none.wav")], str(tmp_path / "z.parquet"), seed=0, latent_noise=1)


def test_the_commands_keep_a_folder_tree_and_report_damage(local_store: Store, card: ModelCard, tmp_path: Path) -> None:
    record(tmp_path / "in" / "deep" / "a.wav", seconds=0.2)
    record(tmp_path / "in" / "b.flac", seconds=0.2)
    (tmp_path / "in" / "c.wav").write_text("not a sound")
    run, store = CliRunner().invoke, ["--store", local_store.uri]
    done = run(app, ["encode", *store, "--model", "drum", str(tmp_path / "in"), str(tmp_path / "tables")])
    assert done.exit_code == 3, done.output
    found = {str(path.relative_to(tmp_path / "tables")) for path in (tmp_path / "tables").rglob("*.*")}
    assert found == {"deep/a.parquet", "b.parquet"}
    done = run(app, ["decode", *store, str(tmp_path / "tables"), str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.*")} == {"deep/a.wav", "b.flac"}
    assert run(app, ["decode", *store, str(tmp_path / "tables")]).exit_code == 2
