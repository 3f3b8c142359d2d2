"""Plans the conversion of a corpus: output names, finished files, and conflicts of inputs and OUTPUT.

OUTPUT has the folder tree of the sources below the deepest folder that contains all inputs (`rave_dist.conversion.names`).

A conversion's id is a hash of the model's version, the parameters and OUTPUT. Workers and chunks are excluded because they
do not change the result, and inputs so that a corpus may grow. The journal has one entry per output, with the hashes of
source and output: a rerun repeats files without an entry, and files whose source or output has changed.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from rave_dist.audio.io.patterns import Glob
from rave_dist.audio.io.sources import AudioSource, Listing, find_sources
from rave_dist.audio.io.walk import is_audio_name
from rave_dist.audio.io.write import check_writable_as
from rave_dist.conversion.names import fold, output_names
from rave_dist.errors import ConversionError, MissingKeyError
from rave_dist.identity import content_id
from rave_dist.records import ConversionFolder, ConversionItem, ConversionParameters, ModelCard, PassedOver
from rave_dist.storage.schemes import is_remote, local_path
from rave_dist.storage.store import Store

_CODE = 2  # increased when the same model and parameters produce other samples than before
_JOURNAL_THREADS = 16
_ENTRIES_AT_ONCE = 1000

Find = Callable[[Sequence[str]], Listing]
"""Lists inputs, as `rave_dist.audio.io.sources.find_sources` does."""

FOREIGN = "a file that this service did not write is in the place of its output"
FOREIGN_FIX = "choose another OUTPUT; overwrite: true replaces the file"


@dataclass(frozen=True, slots=True)  # there may be a hundred thousand
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


def plan_conversion(
    card: ModelCard,
    inputs: Sequence[str],
    output: str,
    parameters: ConversionParameters,
    *,
    find: Find = find_sources,
) -> Plan:
    """Lists the sources with ``find`` and names their outputs.

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
    listing, whole = _list(inputs, output, parameters, as_file=bool(as_file), find=find)
    if not as_file:
        return _plan(card, Store(whole), parameters, listing, _tasks(listing, parameters))
    place, name = one_file(output, len(listing.sources))
    return _plan(card, place, parameters, listing, (Task(listing.sources[0], name),), file=whole)


def plan_conversions(
    cards: Iterable[ModelCard],
    inputs: Sequence[str],
    output: str,
    parameters: ConversionParameters,
    *,
    apart: bool = False,
    find: Find = find_sources,
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
        find: lists the inputs.

    Raises:
        ConversionError: as `plan_conversion`; no models, or OUTPUT is a file and there are several.
        AudioError: as `plan_conversion`.
        StoreError: as `plan_conversion`.
    """
    cards = list({card.reference: card for card in cards}.values())
    if not cards:
        raise ConversionError("there are no models to convert with", fix="publish a model, or name one with --model")
    if len(cards) == 1 and not apart:
        return [plan_conversion(cards[0], inputs, output, parameters, find=find)]
    if _names_a_file(output):
        raise ConversionError(
            f"OUTPUT is one file, but there are {len(cards)} models", where=output, fix="give a folder as OUTPUT"
        )
    listing, whole = _list(inputs, output, parameters, as_file=False, find=find)
    tasks = _tasks(listing, parameters)
    names = Counter(fold(card.name) for card in cards)
    return [
        _plan(
            card, Store(f"{whole}/{card.name if names[fold(card.name)] == 1 else card.reference}"), parameters, listing, tasks
        )
        for card in cards
    ]


def _list(
    inputs: Sequence[str], output: str, parameters: ConversionParameters, *, as_file: bool, find: Find
) -> tuple[Listing, str]:
    """The sources, and OUTPUT as a full path or address; refuses what cannot be converted."""
    parameters.treatment.check()  # before the listing
    if not inputs:
        raise ConversionError("there is nothing to convert", fix="give at least one file, folder, glob or s3:// prefix")
    check_format(parameters, where=output)
    whole = Store(output).uri
    if not is_remote(whole) and not as_file and os.path.exists(whole) and not os.path.isdir(whole):
        raise ConversionError("OUTPUT is a file", where=output, fix="give a folder, or for one source a name.flac or name.wav")
    for pattern in inputs:
        _refuse_inside(pattern, whole)
    listing = find(tuple(inputs))
    for source in listing.sources:
        _refuse_overwriting(source, whole, as_file=as_file)
    return listing, whole


def _tasks(listing: Listing, parameters: ConversionParameters) -> tuple[Task, ...]:
    return tuple(Task(*pair) for pair in zip(listing.sources, output_names(listing.sources, parameters.format), strict=True))


def _plan(
    card: ModelCard,
    output: Store,
    parameters: ConversionParameters,
    listing: Listing,
    tasks: tuple[Task, ...],
    *,
    file: str = "",
) -> Plan:
    parameters = parameters_for(card, parameters)
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


def one_file(output: str, inputs: int) -> tuple[Store, str]:
    """The folder and the name of an OUTPUT that is a file.

    Raises:
        ConversionError: there are several inputs.
    """
    if inputs > 1:
        raise ConversionError(f"OUTPUT is one file, but there are {inputs} inputs", where=output, fix="give a folder as OUTPUT")
    folder, _, name = Store(output).uri.rpartition("/")
    return Store(folder or "/"), name


def parameters_for(card: ModelCard, parameters: ConversionParameters) -> ConversionParameters:
    """The parameters of a conversion with this model: named changes are those of its latents.

    Raises:
        ConversionError: a value is out of range, or the model lacks a latent or the scores that are asked for.
    """
    parameters.treatment.check()
    controls = parameters.controls.resolved(card.named_latents, where=card.reference)
    controls.check(card.latents, where=card.reference)
    if parameters.treatment.only_above is not None and card.familiarity is None:
        raise ConversionError(
            "this model was published by an earlier version, and cannot say how familiar a sound is",
            where=card.reference,
            fix=f"leave out --only-above, or delete {card.key} in the store and publish the run again",
        )
    return parameters.model_copy(update={"controls": controls})


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


def finished(store: Store, plan: Plan) -> Iterator[ConversionItem | None]:
    """The entry of each of a plan's tasks that is finished, in their order; None for the others.

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
        return entry.without_scores if output_tag(plan, plan.written_key(entry)) == entry.output_tag else None

    tasks = iter(plan.tasks)
    with ThreadPoolExecutor(_JOURNAL_THREADS) as pool:
        while some := list(islice(tasks, _ENTRIES_AT_ONCE)):
            yield from pool.map(done, some)


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
