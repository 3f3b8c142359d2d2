"""The chunk iXML of field recorders: an XML document, of which some elements are facts of the recording's samples."""

from __future__ import annotations

import re
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, ParseError, SubElement, TreeBuilder, XMLParser

from rave_dist.audio.dsp.resample import resampled_length
from rave_dist.audio.metadata.text import MetadataError, decoded

_DECLARATION = re.compile(r"\s*<\?xml[^>]*\?>")
_MOST_DEPTH = 32
_MOST_ELEMENTS = 20_000
# Fingerprints, and what the chunk bext has.
_DROPPED = {"FILE_UID": "it identifies the recording", "FAMILY_UID": "it identifies the recording", "BEXT": "see bext"}
_DROPPED |= {"LOUDNESS": "it is that of the recording"}


def read_ixml(data: bytes | str) -> str:
    """A document as text.

    Raises:
        MetadataError: it is not well-formed, defines entities, or is nested too deeply.
    """
    return ElementTree.tostring(_root(data), encoding="unicode")


def _root(data: bytes | str) -> Element:
    text = _DECLARATION.sub("", decoded(data) if isinstance(data, bytes) else data)
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise MetadataError("it has a document type, which may define entities")
    limits = _Limits()
    try:
        parser = XMLParser(target=limits)
        for start in range(0, len(text), 4096):
            parser.feed(text[start : start + 4096])
        return parser.close()
    except (ParseError, ValueError, LookupError) as error:
        raise error if isinstance(error, MetadataError) else MetadataError(f"not well-formed ({error})") from error


class _Limits(TreeBuilder):
    """Builds a document that is neither too deep nor too large."""

    def __init__(self) -> None:
        super().__init__()
        self._depth = self._count = 0

    def start(self, tag: str, attrs: dict[str, str], /) -> Element:
        self._depth, self._count = self._depth + 1, self._count + 1
        if self._depth > _MOST_DEPTH or self._count > _MOST_ELEMENTS:
            raise MetadataError("its elements are nested too deeply, or too many")
        return super().start(tag, attrs)

    def end(self, tag: str, /) -> Element:
        self._depth -= 1
        return super().end(tag)


def adapt_ixml(
    document: str,
    *,
    rate: int,
    new_rate: int,
    same_channels: bool,
    bits: int,
    name: str,
    derivation: str,
    remarks: list[str],
) -> str:
    """The document of a file at another sample rate, which says that it is derived from ``name``."""
    root = _root(document)
    uid = root.findtext("FILE_UID") or ""
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in _DROPPED or (child.tag == "TRACK_LIST" and not same_channels):
                parent.remove(child)
                why = _DROPPED.get(str(child.tag), "the new file has other channels")
                remarks.append(f"iXML {child.tag}: {why}")
    _set_speed(root, rate, new_rate, bits)
    for point in root.iter("SYNC_POINT"):
        _move(point, "SYNC_POINT_LOW", "SYNC_POINT_HIGH", rate, new_rate)
        _move(point, "SYNC_POINT_EVENT_DURATION", None, rate, new_rate)
    history = root.find("HISTORY")
    history = SubElement(root, "HISTORY") if history is None else history
    _set(history, "PARENT_FILENAME", name)
    if uid:
        _set(history, "PARENT_UID", uid)
    note = root.findtext("NOTE") or ""
    _set(root, "NOTE", f"{derivation} {note}".strip())
    return ElementTree.tostring(root, encoding="unicode")


def _set_speed(root: Element, rate: int, new_rate: int, bits: int) -> None:
    speed = root.find("SPEED")
    if speed is None:
        return
    stated = speed.findtext("TIMESTAMP_SAMPLE_RATE") or speed.findtext("FILE_SAMPLE_RATE") or ""
    stamped_at = int(stated) if stated.strip().isdecimal() and 0 < int(stated) < 10**8 else rate
    _move(speed, "TIMESTAMP_SAMPLES_SINCE_MIDNIGHT_LO", "TIMESTAMP_SAMPLES_SINCE_MIDNIGHT_HI", stamped_at, new_rate)
    facts = ("FILE_SAMPLE_RATE", new_rate), ("TIMESTAMP_SAMPLE_RATE", new_rate), ("DIGITIZER_SAMPLE_RATE", new_rate)
    for tag, value in (*facts, ("AUDIO_BIT_DEPTH", bits)):
        if speed.find(tag) is not None:
            _set(speed, tag, str(value))


def _move(parent: Element, low: str, high: str | None, rate: int, new_rate: int) -> None:
    """A position in samples, whose upper 32 bits stand in an element of their own."""
    values = [parent.findtext(tag) or "0" for tag in (low, high) if tag is not None]
    if parent.find(low) is None or not all(value.strip().isdecimal() and int(value) < 2**32 for value in values):
        return
    position = resampled_length(sum(int(value) << 32 * index for index, value in enumerate(values)), rate, new_rate)
    _set(parent, low, str(position & 2**32 - 1 if high else position))
    if high is not None and (parent.find(high) is not None or position >> 32):
        _set(parent, high, str(position >> 32))


def _set(parent: Element, tag: str, text: str) -> None:
    child = parent.find(tag)
    (SubElement(parent, tag) if child is None else child).text = text
