"""A source's metadata as they are true of the file that is derived from it: other positions, other facts, another identity."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from rave_dist.audio.dsp.resample import resampled_length
from rave_dist.audio.metadata.guano import adapt_guano
from rave_dist.audio.metadata.ixml import adapt_ixml
from rave_dist.audio.metadata.markers import fits
from rave_dist.audio.metadata.record import Bext, Cue, Loop, Metadata, Sampler

_TEXTS = ("TITLE", "DESCRIPTION", "SOFTWARE", "PERFORMER", "ENCODED_BY")


@dataclass(frozen=True)
class NewFile:
    """The file that is derived from a source.

    Attributes:
        source_name: the source's file name.
        source_rate: its sample rate in Hz.
        source_channels: its number of channels.
        sample_rate: of the new file, in Hz.
        channels: of the new file.
        bits: per sample of the new file.
        samples: of the new file, per channel; None if not known.
        tags: that the new file has of its own; ``TITLE``, ``DESCRIPTION``, ``SOFTWARE`` and ``COMMENT`` are among them.
    """

    source_name: str
    source_rate: int
    source_channels: int
    sample_rate: int
    channels: int
    bits: int
    samples: int | None
    tags: tuple[tuple[str, str], ...]

    def moved(self, position: int) -> int:
        """A position of the source, in samples of the new file: the nearest one, halves up."""
        return resampled_length(position, self.source_rate, self.sample_rate)


def adapt(source: Metadata, new: NewFile) -> Metadata:
    """The metadata of the new file; its remarks are those of the source and what is not true of the new file."""
    remarks = list(source.remarks)
    own = dict(new.tags)
    return Metadata(
        tags=tuple(_tags(source, new)),
        bext=source.bext and _bext(source.bext, new, own, remarks),
        ixml=source.ixml
        and adapt_ixml(
            source.ixml,
            rate=new.source_rate,
            new_rate=new.sample_rate,
            same_channels=new.channels == new.source_channels,
            bits=new.bits,
            name=new.source_name,
            derivation=own["DESCRIPTION"],
            remarks=remarks,
        ),
        guano=adapt_guano(
            source.guano,
            rate=new.source_rate,
            new_rate=new.sample_rate,
            samples=new.samples,
            name=new.source_name,
            derivation=own["DESCRIPTION"],
            remarks=remarks,
        ),
        wamd=source.wamd,
        cues=tuple(_cues(source.cues, new, remarks)),
        sampler=source.sampler and _sampler(source.sampler, new, remarks),
        remarks=tuple(dict.fromkeys(remarks)),
    )


def _tags(source: Metadata, new: NewFile) -> Iterator[tuple[str, str]]:
    """The new file's own tags, then the source's; of a name that both have, the source's is ``SOURCE_`` and the name."""
    comment = source.tag("COMMENT")
    for name, text in new.tags:
        yield name, f"{comment.rstrip('. ')}. {text}" if name == "COMMENT" and comment else text
    own = {name for name, _ in new.tags} | set(_TEXTS)
    for name, text in source.tags:
        if (name, text) != ("COMMENT", comment):
            yield f"SOURCE_{name}" if name in own else name, text
    if source.bext is not None:
        fields = (("DESCRIPTION", source.bext.description), ("ORIGINATOR", source.bext.originator))
        for name, text in (*fields, ("ORIGINATOR_REFERENCE", source.bext.reference)):
            if text and (name, text) not in source.tags:
                yield f"SOURCE_{name}", text


def _bext(bext: Bext, new: NewFile, own: dict[str, str], remarks: list[str]) -> Bext:
    if bext.reference:
        remarks.append("bext OriginatorReference: it identifies the recording; the tag SOURCE_ORIGINATOR_REFERENCE has it")
    mode = {1: "mono", 2: "stereo"}.get(new.channels, "multitrack")
    step = f"A=PCM,F={new.sample_rate},W={new.bits},M={mode},T={own['TITLE'].replace(',', ' ')}; {own['SOFTWARE']}"
    return Bext(
        description=f"{own['TITLE']}. {own['DESCRIPTION']}",
        originator=own["SOFTWARE"],
        date=bext.date,
        time=bext.time,
        time_reference=new.moved(bext.time_reference),
        history="\r\n".join((*bext.history.splitlines(), step)),
    )


def _cues(cues: tuple[Cue, ...], new: NewFile, remarks: list[str]) -> Iterator[Cue]:
    for cue in cues:
        start, stop = new.moved(cue.position), new.moved(cue.position + cue.length)
        if not _inside(stop if cue.length else start, new):
            remarks.append(f"cue {cue.number}: its position {cue.position} is behind the end")
            continue
        yield replace(cue, position=start, length=stop - start)


def _sampler(sampler: Sampler, new: NewFile, remarks: list[str]) -> Sampler:
    loops: list[Loop] = []
    for loop in sampler.loops:
        first, stop = new.moved(loop.first), new.moved(loop.last + 1)
        if stop <= first or not _inside(stop, new):
            remarks.append(f"smpl loop {loop.number}: its end {loop.last} is behind the end")
            continue
        loops.append(replace(loop, first=first, last=stop - 1))
    return replace(sampler, loops=tuple(loops))


def _inside(position: int, new: NewFile) -> bool:
    return fits(position) and (new.samples is None or position <= new.samples)
