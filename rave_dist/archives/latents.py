"""Recordings to tables of latents and back, in turn, in this process."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from rave_dist.errors import AudioError, ConversionError
from rave_dist.identity import hash_file
from rave_dist.progress import SILENT, Progress
from rave_dist.records import Problem
from rave_dist.storage.store import Store
from rave_dist.temporary import temporary_folder

if TYPE_CHECKING:
    from rave_dist.audio.io.sources import AudioSource
    from rave_dist.audio.io.write import Format
    from rave_dist.conversion.convert import Converter

_TABLE = ".parquet"
_SOUNDS = (".wav", ".flac")


@dataclass(frozen=True)
class Written:
    """A table or sound that was written, or is kept from before, or the problem for which it was not written."""

    source: str
    output: str
    seconds: float = 0.0
    kept: bool = False
    problem: Problem | None = None

    def to_json(self) -> dict[str, Any]:
        """For documents."""
        found = {"problem": self.problem.to_json()} if self.problem else {}
        return {"source": self.source, "output": self.output, "seconds": self.seconds, "kept": self.kept, **found}


def encode(
    store: Store,
    model: str,
    inputs: Sequence[str],
    output: str,
    *,
    seed: int,
    latent_noise: float,
    trust: bool = False,
    progress: Progress = SILENT,
) -> list[Written]:
    """Writes the latents of recordings as tables, keeping the folder tree.

    A table that is there, of the same recording, model and noise, is kept as it is: it may have been edited.

    Args:
        store: of the model.
        model: NAME or NAME@VERSION.
        inputs: files, folders, globs or ``s3://`` prefixes.
        output: a folder or ``s3://`` prefix; for a single recording it may be a file ending in .parquet.
        seed: picks the noise around the latents.
        latent_noise: its level.
        trust: load a model file with operators that no export has.
        progress: receives the number of finished recordings.

    Returns:
        The tables; a recording that cannot be read is one with a problem.

    Raises:
        ModelNotFoundError: no such model or version.
        ConversionError: no inputs, an OUTPUT that does not suit them, or the model cannot encode.
        AudioError: no recording matches an input.
        StoreError: the store or OUTPUT cannot be used.
    """
    progress.stage("listing recordings")
    from rave_dist.audio.io.sources import find_sources, local_copy
    from rave_dist.conversion.corpus import one_file, plan_conversion
    from rave_dist.records import ConversionParameters
    from rave_dist.registry.store import find

    card = find(store, model)
    if output.endswith(_TABLE):
        listed = find_sources(inputs).sources
        place, name = one_file(output, len(listed))
        named = [(listed[0], name)]
        if os.path.realpath(listed[0].uri) == os.path.realpath(place.address(name)):
            raise ConversionError("OUTPUT is this source itself", where=output, fix="choose another OUTPUT")
    else:  # with one extension for all, names stay different without it
        plan = plan_conversion(card, inputs, output, ConversionParameters(format="flac"))
        place, named = plan.output, [(task.source, str(PurePosixPath(task.output).with_suffix(_TABLE))) for task in plan.tasks]
    progress.stage("loading the model")
    from rave_dist.conversion.latents import encode_file
    from rave_dist.conversion.loading import load_converters

    converter = load_converters(store, {0: card}, trust=trust)[0]
    progress.stage("encoding")
    written = []
    for number, (source, key) in enumerate(named):
        progress.advance(number, len(named), "recordings")

        def write(path: Path, source: AudioSource = source, key: str = key) -> float | None:
            name = PurePosixPath(source.name).name
            with local_copy(source.uri) as local:
                sha256 = hash_file(local)
                wanted = {"model": card.reference, "seed": seed, "latent_noise": latent_noise, "source_sha256": sha256}
                if _has_table(place, key, wanted):
                    return None
                info = encode_file(local, converter, path, seed=seed, latent_noise=latent_noise, name=name, sha256=sha256)
            return info.samples / info.sample_rate

        written.append(_write(source.name, place, key, write))
    return written


def _has_table(place: Store, key: str, wanted: dict[str, Any]) -> bool:
    """Whether there is a table of this recording, model and noise, which may have been edited.

    Raises:
        ConversionError: there is a table that does not say of which model it is, as after an edit.
    """
    from rave_dist.audio.io.sources import local_copy
    from rave_dist.conversion.latents_file import is_table, read_info

    if not place.exists(key):
        return False
    with local_copy(place.address(key)) as path:
        if not is_table(path):
            return False
        try:
            info = read_info(path)
        except ConversionError as error:
            what = f"a table is in its place, which is not replaced: {error.what}"
            raise ConversionError(what, where=place.address(key), fix="move the table, or choose another OUTPUT") from error
    return all(getattr(info, name) == value for name, value in wanted.items())


def decode(
    store: Store,
    tables: Sequence[str],
    output: str,
    *,
    like: str | None = None,
    trust: bool = False,
    progress: Progress = SILENT,
) -> list[Written]:
    """Writes the sounds of tables of latents. All tables are checked before a model is loaded.

    Args:
        store: of the models that the tables name.
        tables: files, and folders with all tables below them.
        output: a folder or ``s3://`` prefix; for a single table it may be a file ending in .wav or .flac.
        like: a table whose metadata count for all; None for their own.
        trust: load a model file with operators that no export has.
        progress: receives the number of finished tables.

    Returns:
        The sounds; a table with a value that is NaN, infinite or missing is one with a problem.

    Raises:
        ModelNotFoundError: the store does not have a table's model.
        ConversionError: no table, not a table of latents, one that does not suit its model, or an unsuitable OUTPUT.
        StoreError: a table, the store or OUTPUT cannot be used.
    """
    progress.stage("checking the tables")
    from rave_dist.audio.io.write import output_format
    from rave_dist.conversion.corpus import one_file
    from rave_dist.conversion.latents_file import LatentsFile
    from rave_dist.registry.store import find

    found = [(path, name, LatentsFile(path, Path(like) if like else None)) for path, name in _tables(tables)]
    cards = {reference: find(store, reference) for reference in dict.fromkeys(table.info.model for _, _, table in found)}
    for path, _, table in found:
        table.info.check_fits(cards[table.info.model], where=str(path))
    if output.endswith(_SOUNDS):
        place, key = one_file(output, len(found))
        keys = [key]
    else:
        place = Store(output)
        keys = [f"{PurePosixPath(name).with_suffix('')}.{output_format(table.info.source)}" for _, name, table in found]
        if twice := [key for key, count in Counter(map(str.casefold, keys)).items() if count > 1]:
            raise ConversionError(f"two tables would become {twice[0]}", where=output, fix="decode them in several commands")
    progress.stage("loading models")
    from rave_dist.conversion.latents import decode_file
    from rave_dist.conversion.loading import load_converters

    converters: dict[str, Converter] = {}
    written = []
    for number, ((path, _, table), key) in enumerate(zip(found, keys, strict=True)):
        progress.advance(number, len(found), "tables")
        model = table.info.model
        if model not in converters:  # one at a time is in memory
            converters = {model: load_converters(store, {0: cards[model]}, trust=trust)[0]}
        file_format: Format = "flac" if key.endswith(".flac") else "wav"

        def write(
            target: Path, table: LatentsFile = table, converter: Converter = converters[model], kind: Format = file_format
        ) -> float:
            return decode_file(table, converter, target, kind)

        written.append(_write(str(path), place, key, write))
    return written


def morph(
    store: Store,
    models: Sequence[str],
    sounds: Sequence[str],
    output: str,
    *,
    amount: tuple[float, float],
    seed: int,
    latent_noise: float,
    trust: bool = False,
    progress: Progress = SILENT,
) -> Written:
    """Writes a sound between two sounds, two instruments of one encoder, or both.

    Args:
        store: of the models.
        models: one or two, NAME or NAME@VERSION.
        sounds: one or two recordings.
        output: a file ending in .wav or .flac.
        amount: how far from the first to the second, 0 to 1, at the beginning and at the end.
        seed: picks all noise.
        latent_noise: level of the noise around the latents.
        trust: load a model file with operators that no export has.
        progress: receives the stage.

    Returns:
        The sound; if a recording cannot be read, with the problem.

    Raises:
        ModelNotFoundError: no such model or version.
        ConversionError: neither two models nor two sounds, models without a common encoder, an amount that is out of range or
            changes between two models, or an OUTPUT that is not a file.
        AudioError: a recording is not found.
        StoreError: the store or OUTPUT cannot be used.
    """
    from rave_dist.audio.io.sources import find_sources, local_copy
    from rave_dist.conversion.corpus import one_file
    from rave_dist.conversion.morph import Amount, check_one_encoder, morph_files
    from rave_dist.registry.store import find

    far = Amount(*amount)
    far.check()
    if not (len(models) in (1, 2) and len(sounds) in (1, 2)) or len(models) + len(sounds) < 3:
        raise ConversionError(
            f"there are {len(models)} models and {len(sounds)} sounds",
            where="morph",
            fix="give two sounds with one model, one sound with two models, or two of both",
        )
    if len(models) == 2 and far.start != far.end:
        raise ConversionError("the amount cannot change between two models", where="--to", fix="leave out --to")
    if not output.endswith(_SOUNDS):
        raise ConversionError("OUTPUT is one sound", where=output, fix="end it in .wav or .flac")
    cards = [find(store, model) for model in models]
    if len(cards) == 2:
        check_one_encoder(*cards)
    progress.stage("listing recordings")
    sources = [find_sources([sound]).sources for sound in sounds]
    if several := next((given for given, found in zip(sounds, sources, strict=True) if len(found) > 1), None):
        raise ConversionError("there are several recordings", where=several, fix="name one of them")
    place, key = one_file(output, 1)
    for (source,) in sources:
        if os.path.realpath(source.uri) == os.path.realpath(place.address(key)):
            raise ConversionError("OUTPUT is this source itself", where=output, fix="choose another OUTPUT")
    progress.stage("loading the model")
    from rave_dist.conversion.loading import load_converters

    converters = list(load_converters(store, dict(enumerate(cards)), trust=trust).values())
    progress.stage("converting")

    def write(path: Path) -> float:
        with ExitStack() as stack:
            found = [(stack.enter_context(local_copy(source.uri)), PurePosixPath(source.name).name) for (source,) in sources]
            kind: Format = "flac" if key.endswith(".flac") else "wav"
            return morph_files(found, converters, path, kind, amount=far, seed=seed, latent_noise=latent_noise)

    return _write(" and ".join(source.name for (source,) in sources), place, key, write)


def _write(source: str, place: Store, key: str, write: Callable[[Path], float | None]) -> Written:
    """Writes one output, complete or not at all; what is wrong with its source is its problem alone.

    ``write`` returns its seconds, or None if the output that is there stays.
    """
    output = place.address(key)
    with temporary_folder("latents") as folder:
        path = Path(folder) / PurePosixPath(key).name
        try:
            seconds = write(path)
        except (AudioError, ConversionError) as error:
            return Written(source, output, problem=Problem(what=error.what, fix=error.fix))
        if seconds is None:
            return Written(source, output, kept=True)
        place.upload(path, key)
    return Written(source, output, seconds)


def _tables(given: Sequence[str]) -> Iterator[tuple[Path, str]]:
    """The tables' paths, and their names below OUTPUT."""
    for each in given:
        path = Path(each).expanduser()
        below = sorted(path.rglob(f"*{_TABLE}")) if path.is_dir() else [path] if path.is_file() else []
        if not below:
            raise ConversionError("there is no table of latents", where=each, fix="give a .parquet file, or a folder with some")
        for table in below:
            yield table, str(table.relative_to(path)) if path.is_dir() else table.name
