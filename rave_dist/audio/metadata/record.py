"""The metadata of a file, whatever its container."""

from __future__ import annotations

from dataclasses import dataclass

LOOP_KINDS = ("forward", "alternating", "backward")


@dataclass(frozen=True)
class Bext:
    """The fields of a Broadcast Wave file that are used; ``time_reference`` counts samples since midnight."""

    description: str = ""
    originator: str = ""
    reference: str = ""
    date: str = ""
    time: str = ""
    time_reference: int = 0
    history: str = ""


@dataclass(frozen=True)
class Cue:
    """A marker, or a region where ``length`` is not 0; both in samples. ``purpose`` has 4 characters, of regions."""

    number: int
    position: int
    length: int = 0
    label: str = ""
    note: str = ""
    purpose: str = "rgn "
    text: str = ""


@dataclass(frozen=True)
class Loop:
    """A loop from its first to its last sample; ``kind`` counts in `LOOP_KINDS`, and 0 plays are without end."""

    number: int
    kind: int
    first: int
    last: int
    fraction: int = 0
    plays: int = 0


@dataclass(frozen=True)
class Sampler:
    """How a sampler plays a file; ``note`` is the MIDI note at which it sounds as recorded."""

    note: int = 60
    fraction: int = 0
    manufacturer: int = 0
    product: int = 0
    smpte_format: int = 0
    smpte_offset: int = 0
    loops: tuple[Loop, ...] = ()


@dataclass(frozen=True)
class Metadata:
    """The metadata of a file.

    Attributes:
        tags: texts by the names that Vorbis comments have, in capitals; a name may occur several times.
        bext: of Broadcast Wave.
        ixml: an XML document.
        guano: keys, with their namespaces, and values.
        wamd: numbers and contents of Wildlife Acoustics' fields.
        cues: markers and regions.
        sampler: notes and loops.
        remarks: what was not taken over, and why.
    """

    tags: tuple[tuple[str, str], ...] = ()
    bext: Bext | None = None
    ixml: str | None = None
    guano: tuple[tuple[str, str], ...] = ()
    wamd: tuple[tuple[int, bytes], ...] = ()
    cues: tuple[Cue, ...] = ()
    sampler: Sampler | None = None
    remarks: tuple[str, ...] = ()

    def tag(self, name: str) -> str:
        """The first text of a name, or an empty one."""
        return next((text for key, text in self.tags if key == name), "")

    @property
    def kinds(self) -> tuple[str, ...]:
        """What there is, in words."""
        loops = 0 if self.sampler is None else len(self.sampler.loops)
        there = {
            "bext": self.bext is not None,
            "iXML": self.ixml is not None,
            "GUANO": bool(self.guano),
            "wamd": bool(self.wamd),
            f"{len(self.cues)} cue points": bool(self.cues),
            f"smpl with {loops} loops": self.sampler is not None,
        }
        return (*(name for name, is_there in there.items() if is_there), *dict.fromkeys(name for name, _ in self.tags))
