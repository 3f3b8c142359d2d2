"""Plans the conversion of a corpus: output names, finished files, and conflicts of inputs and OUTPUT.

OUTPUT has the folder tree of the sources below the deepest folder that contains all inputs. Only the extension of a name
changes, and that of a WAV file does not. Where two sources would get the same name (``take.ogg`` and ``take.mp3``, or names
that differ only in case), or one the name of a folder (``take.mp3`` next to ``take.flac/``), they keep their extension as well
(``take.ogg.flac``), and are numbered if that is not enough. A source that FLAC cannot hold becomes a WAV file of the same name
when it is opened, so next to ``take.wav`` it keeps its extension too.

A conversion's id is a hash of the model's version, the parameters and OUTPUT. Workers and chunks are excluded because they
do not change the result, and inputs so that a corpus may grow. The journal has one entry per output, with the hashes of
source and output: a rerun repeats files without an entry, and files whose source or output has changed.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from unicodedata import normalize

from rave_dist.audio.io.patterns import Glob
from rave_dist.audio.io.sources import AudioSource, Listing, find_sources
from rave_dist.audio.io.walk import is_audio_name
from rave_dist.audio.io.write import check_writable_as, output_format
from rave_dist.errors import ConversionError, MissingKeyError
from rave_dist.identity import content_id
from rave_dist.options import AudioFormat
from rave_dist.records import ConversionFolder, ConversionItem, ConversionParameters, ModelCard, PassedOver
from rave_dist.storage.schemes import is_remote, local_path
from rave_dist.storage.store import Store

_CODE = 2  # increased when the same model and parameters produce other samples than before
_JOURNAL_THREADS = 16

FOREIGN = "a file that this service did not write is in the place of its output"
FOREIGN_FIX = "choose another OUTPUT; overwrite: true replaces the file"


@dataclass(frozen=True)
class Task:
    """One source and the key of its output below the plan's OUTPUT."""

    source: AudioSource
    output: str


@dataclass(frozen=True)
class Plan:
    """A conversion before it starts.

    ``output`` holds all outputs and is not part of the library's store; ``is_file``: the user named the one output.
    ``passed_over`` and ``notes`` are those of the listing of its inputs; ``protected`` are keys that must not be replaced.
    """

    id: str
    card: ModelCard
    parameters: ConversionParameters
    output: Store
    tasks: tuple[Task, ...]
    passed_over: tuple[PassedOver, ...] = ()
    notes: tuple[str, ...] = ()
    is_file: bool = False
    protected: frozenset[str] = frozenset()

    @property
    def folder(self) -> ConversionFolder:
        """Its folder in the library's store."""
        return ConversionFolder.of(self.id)

    def journal_key(self, task: Task) -> str:
        """The key of a task's entry in the library's store."""
        return self.folder.entry(content_id(task.output))

    def written_key(self, entry: ConversionItem) -> str:
        """The key of the output that an entry speaks of."""
        return entry.output.removeprefix(f"{self.output.uri}/")


def plan_conversion(card: ModelCard, inputs: Sequence[str], output: str, parameters: ConversionParameters) -> Plan:
    """Lists the sources and names their outputs.

    OUTPUT is a folder or an S3 prefix; for a single source it may be a file, ``x.flac`` or ``x.wav``, and its extension
    then determines the format.

    Raises:
        ConversionError: no inputs, OUTPUT is inside an input or contains one, or the model lacks a latent.
        AudioError: no recording matches an input, or the format does not support the parameters.
        StoreError: an input or OUTPUT cannot be read.
    """
    as_file = _names_a_file(output)
    if as_file:
        parameters = parameters.model_copy(update={"format": as_file})
    listing, whole = _list(inputs, output, parameters, as_file=bool(as_file))
    if not as_file:
        return _plan(card, Store(whole), parameters, listing, _tasks(listing, parameters))
    if len(listing.sources) > 1:
        raise ConversionError(
            f"OUTPUT is one file, but there are {len(listing.sources)} sources", where=output, fix="give a folder as OUTPUT"
        )
    folder, _, name = whole.rpartition("/")
    return _plan(card, Store(folder or "/"), parameters, listing, (Task(listing.sources[0], name),), file=whole)


def plan_conversions(
    cards: Iterable[ModelCard], inputs: Sequence[str], output: str, parameters: ConversionParameters, *, apart: bool = False
) -> list[Plan]:
    """A plan for each model, all of the same sources, which are listed once; of several models each has a folder below OUTPUT.

    The folder has the model's name, or NAME@VERSION where two of the models have the same name. So each plan is that of a
    conversion with this model alone and that folder as OUTPUT.

    Args:
        cards: the models; each counts once.
        inputs: as in `plan_conversion`.
        output: OUTPUT.
        parameters: of the conversions.
        apart: one model has a folder below OUTPUT too.

    Raises:
        ConversionError: as `plan_conversion`; no models, or OUTPUT is a file and there are several.
        AudioError: as `plan_conversion`.
        StoreError: as `plan_conversion`.
    """
    cards = list({card.reference: card for card in cards}.values())
    if not cards:
        raise ConversionError("there are no models to convert with", fix="publish a model, or name one with --model")
    if len(cards) == 1 and not apart:
        return [plan_conversion(cards[0], inputs, output, parameters)]
    if _names_a_file(output):
        raise ConversionError(
            f"OUTPUT is one file, but there are {len(cards)} models", where=output, fix="give a folder as OUTPUT"
        )
    listing, whole = _list(inputs, output, parameters, as_file=False)
    tasks = _tasks(listing, parameters)
    names = Counter(_fold(card.name) for card in cards)
    return [
        _plan(
            card, Store(f"{whole}/{card.name if names[_fold(card.name)] == 1 else card.reference}"), parameters, listing, tasks
        )
        for card in cards
    ]


def _list(inputs: Sequence[str], output: str, parameters: ConversionParameters, *, as_file: bool) -> tuple[Listing, str]:
    """The sources, and OUTPUT as a full path or address; refuses what cannot be converted."""
    parameters.treatment.check()
    if not inputs:
        raise ConversionError("there is nothing to convert", fix="give at least one file, folder, glob or s3:// prefix")
    check_format(parameters, where=output)
    whole = Store(output).uri
    if not is_remote(whole) and not as_file and os.path.exists(whole) and not os.path.isdir(whole):
        raise ConversionError("OUTPUT is a file", where=output, fix="give a folder, or for one source a name.flac or name.wav")
    for pattern in inputs:
        _refuse_inside(pattern, whole)
    listing = find_sources(inputs)
    for source in listing.sources:
        _refuse_overwriting(source, whole, as_file=as_file)
    return listing, whole


def _tasks(listing: Listing, parameters: ConversionParameters) -> tuple[Task, ...]:
    return tuple(Task(*pair) for pair in zip(listing.sources, _names(listing.sources, parameters.format), strict=True))


def _plan(
    card: ModelCard,
    output: Store,
    parameters: ConversionParameters,
    listing: Listing,
    tasks: tuple[Task, ...],
    *,
    file: str = "",
) -> Plan:
    parameters.controls.check(card.latents, where=card.reference)
    identity = parameters.to_json()
    del identity["salvage"]  # selects which files are converted, not how
    return Plan(
        id=content_id({"code": _CODE, "model": card.version, "parameters": identity, "output": file or output.uri}),
        card=card,
        parameters=parameters,
        output=output,
        tasks=tasks,
        passed_over=listing.passed_over,
        notes=listing.notes,
        is_file=bool(file),
    )


def check_format(parameters: ConversionParameters, *, where: str) -> None:
    """Checks that the format that all outputs are to have supports the sample rate and the channel count.

    Raises:
        AudioError: it does not.
    """
    if parameters.format != "keep":
        rate, channels = parameters.sample_rate or 1, parameters.channels or 1
        check_writable_as(parameters.format, sample_rate=rate, channels=channels, where=where)


def output_tag(plan: Plan, key: str) -> str:
    """Changes with an output's content: its tag in its store, and on a disk the time at which it was last touched.

    The modification time alone is that of its recording.

    Raises:
        StoreError: there is none.
    """
    tag = plan.output.stat(key).tag
    return f"{tag}-{os.stat(plan.output.address(key)).st_ctime_ns}" if plan.output.is_local else tag


def read_entry(store: Store, plan: Plan, task: Task) -> ConversionItem | None:
    """The journal's entry of a task, if there is one that this version can read."""
    try:
        return ConversionItem.model_validate_json(store.read_bytes(plan.journal_key(task)))
    except MissingKeyError:
        return None
    except ValueError:
        return None  # not an entry: the task is repeated, which replaces it


def split_done(store: Store, plan: Plan) -> tuple[list[Task], list[ConversionItem]]:
    """The remaining tasks, and the entries of the finished ones.

    A task is finished if the journal says so and the sizes and tags of source and output are unchanged. No audio is read.

    Raises:
        StoreError: the store or OUTPUT cannot be read.
    """

    def done(task: Task) -> ConversionItem | None:
        entry = read_entry(store, plan, task)
        if entry is None or not counts_as_done(entry, plan) or entry.source != task.source.name:
            return None
        if entry.source_fingerprint != task.source.fingerprint or not plan.output.exists(plan.written_key(entry)):
            return None
        return entry if output_tag(plan, plan.written_key(entry)) == entry.output_tag else None

    with ThreadPoolExecutor(_JOURNAL_THREADS) as pool:
        entries = list(pool.map(done, plan.tasks))
    to_do = [task for task, entry in zip(plan.tasks, entries, strict=True) if entry is None]
    return to_do, [entry for entry in entries if entry is not None]


def counts_as_done(entry: ConversionItem, plan: Plan) -> bool:
    """Whether an entry is a success under the plan's parameters."""
    return entry.state == "converted" or (entry.state == "salvaged" and plan.parameters.salvage)


def _names_a_file(output: str) -> str | None:
    """The format of an OUTPUT that is a file."""
    extension = os.path.splitext(output)[1].lower()
    if output.endswith("/") or not is_audio_name(f"x{extension}") or os.path.isdir(os.path.expanduser(output)):
        return None
    if extension not in (".flac", ".wav"):
        raise ConversionError(f"cannot write {extension} files", where=output, fix="end OUTPUT in .flac or .wav")
    return extension[1:]


def _names(sources: Sequence[AudioSource], file_format: AudioFormat) -> list[str]:
    """An output key for every source, unique even on file systems that ignore case and Unicode normalisation."""
    trees = [_parts(source.name.removesuffix(_printable(source.relative))) for source in sources]
    shared = 0
    while all(len(tree) > shared and tree[shared] == trees[0][shared] for tree in trees):
        shared += 1
    paths = ["/".join(tree[shared:] + _parts(_printable(source.relative))) for source, tree in zip(sources, trees, strict=True)]
    endings = [output_format(path) if file_format == "keep" else file_format for path in paths]
    short = [f"{_without_extension(path)}.{ending}" for path, ending in zip(paths, endings, strict=True)]
    folders = {_fold(str(folder)) for path in paths for folder in PurePosixPath(path).parents}
    wanted = Counter(_fold(name) for name in short)

    def is_alone(name: str) -> bool:
        """No other has this name, or that of the WAV file in the place of a FLAC file."""
        return wanted[_fold(name)] == 1 and (name.endswith(".wav") or not wanted[_fold(as_wav(name))])

    names: list[str] = []
    taken = {_fold(name) for name in short if is_alone(name)} | {_fold(as_wav(name)) for name in short if is_alone(name)}
    for path, name, ending in zip(paths, short, endings, strict=True):
        if not is_alone(name) or _meets(name, folders):
            name, number = f"{path}.{ending}", 1
            while _meets(name, taken) or _meets(name, folders):
                number += 1
                name = f"{path}-{number}.{ending}"
            taken |= {_fold(name), _fold(as_wav(name))}
        names.append(name)
    return names


def _meets(name: str, names: set[str]) -> bool:
    """Whether an output, or the WAV file in its place, has one of these names."""
    return bool({_fold(name), _fold(as_wav(name))} & names)


def as_wav(key: str) -> str:
    """The key of the WAV file that is written where FLAC cannot hold an output."""
    return str(PurePosixPath(key).with_suffix(".wav"))


def _parts(path: str) -> list[str]:
    return [part for part in path.removeprefix("s3:").split("/") if part]


def _printable(path: str) -> str:
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _fold(name: str) -> str:
    return normalize("NFC", name).casefold()


def _without_extension(path: str) -> str:
    pure = PurePosixPath(path)
    return str(pure.with_suffix("")) if is_audio_name(f"x{pure.suffix}") else path


def _refuse_inside(pattern: str, output: str) -> None:
    """Raises if an input would match its own outputs on the next run."""
    place = pattern if is_remote(pattern) else local_path(pattern)
    if not os.path.exists(place) and "**" in place:
        place = Glob.of(place, exists=os.path.lexists).root or "/"
    elif not is_remote(place) and not os.path.isdir(place):
        return  # a file, or a glob that cannot match its outputs
    linked: list[str] = []
    if is_remote(place):
        place = place.rstrip("/")
    else:
        linked = [
            os.path.join(parent, name)
            for parent, folders, _ in os.walk(place)
            for name in folders
            if os.path.islink(os.path.join(parent, name))
        ]
    if any(_is_within(output, folder) for folder in (place, *linked)):
        raise ConversionError(
            f"OUTPUT is inside the input {pattern}: the next run would convert its results",
            where=output,
            fix="choose an OUTPUT outside the recordings' folder",
        )


def _refuse_overwriting(source: AudioSource, output: str, *, as_file: bool) -> None:
    if _is_within(source.uri, output) and (not as_file or _real(source.uri) == _real(output)):
        raise ConversionError(
            "OUTPUT is this source itself" if as_file else f"this source is inside OUTPUT ({output})",
            where=source.name,
            fix="choose another OUTPUT: recordings are never written to",
        )


def _is_within(path: str, folder: str) -> bool:
    """Whether a path is a folder or inside it, links resolved."""
    path, folder = _real(path), _real(folder)
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _real(path: str) -> str:
    return path if is_remote(path) else os.path.realpath(Path(path))
