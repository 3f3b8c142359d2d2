"""Names of outputs: the folder tree of the sources, and no two names that a file system could take for one.

Only the extension of a name changes, and that of a WAV file does not. Where two sources would get the same name (``take.ogg``
and ``take.mp3``, or names that differ only in case), or one the name of a folder (``take.mp3`` next to ``take.flac/``), they
keep their extension as well (``take.ogg.flac``), and are numbered if that is not enough. A source that FLAC cannot hold becomes
a WAV file of the same name when it is opened, so next to ``take.wav`` it keeps its extension too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath
from unicodedata import normalize

from rave_dist.audio.io.sources import AudioSource
from rave_dist.audio.io.walk import is_audio_name, printable
from rave_dist.audio.io.write import output_format
from rave_dist.options import AudioFormat


def output_names(sources: Sequence[AudioSource], file_format: AudioFormat) -> list[str]:
    """An output key for every source, unique even on file systems that ignore case and Unicode normalisation.

    One folder at a time, so that little more than the names themselves is in memory.
    """
    trees = {root: _parts(root) for root in map(_root, sources)}
    shared, first = 0, next(iter(trees.values()))
    while all(len(tree) > shared and tree[shared] == first[shared] for tree in trees.values()):
        shared += 1

    def path_of(index: int) -> str:
        source = sources[index]
        return "/".join(trees[_root(source)][shared:] + _parts(printable(source.relative)))

    folders: set[str] = set()
    groups: dict[str, list[int]] = {}
    for index in range(len(sources)):
        folder = fold(path_of(index).rpartition("/")[0])
        groups.setdefault(folder, []).append(index)
        while folder and folder not in folders:
            folders.add(folder)
            folder = folder.rpartition("/")[0]
    names = [""] * len(sources)
    for group in groups.values():
        for index, name in zip(group, _in_one_folder([path_of(index) for index in group], file_format, folders), strict=True):
            names[index] = name
    return names


def as_wav(key: str) -> str:
    """The key of the WAV file that is written where FLAC cannot hold an output."""
    return str(PurePosixPath(key).with_suffix(".wav"))


def fold(name: str) -> str:
    """A name as the least exact of file systems compares it."""
    return normalize("NFC", name).casefold()


def _in_one_folder(paths: Sequence[str], file_format: AudioFormat, folders: set[str]) -> list[str]:
    endings = [output_format(path) if file_format == "keep" else file_format for path in paths]
    short = [f"{_without_extension(path)}.{ending}" for path, ending in zip(paths, endings, strict=True)]
    wanted = Counter(map(fold, short))

    def is_alone(name: str) -> bool:
        """No other has this name, or that of the WAV file in the place of a FLAC file."""
        return wanted[fold(name)] == 1 and (name.endswith(".wav") or not wanted[fold(as_wav(name))])

    names: list[str] = []
    taken = {each for name in short if is_alone(name) for each in (fold(name), fold(as_wav(name)))}
    for path, name, ending in zip(paths, short, endings, strict=True):
        if not is_alone(name) or _meets(name, folders):
            name, number = f"{path}.{ending}", 1
            while _meets(name, taken) or _meets(name, folders):
                number += 1
                name = f"{path}-{number}.{ending}"
            taken |= {fold(name), fold(as_wav(name))}
        names.append(name)
    return names


def _meets(name: str, names: set[str]) -> bool:
    """Whether an output, or the WAV file in its place, has one of these names."""
    return bool({fold(name), fold(as_wav(name))} & names)


def _root(source: AudioSource) -> str:
    """The folder that a source was found by."""
    return source.name.removesuffix(printable(source.relative))


def _parts(path: str) -> list[str]:
    return [part for part in path.removeprefix("s3:").split("/") if part]


def _without_extension(path: str) -> str:
    pure = PurePosixPath(path)
    return str(pure.with_suffix("")) if is_audio_name(f"x{pure.suffix}") else path
