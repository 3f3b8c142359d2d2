"""One vocabulary for text tags: that of Vorbis comments, and its names in INFO, ID3 and FFmpeg."""

from __future__ import annotations

import re

INFO_NAMES = {
    "INAM": "TITLE",
    "IART": "ARTIST",
    "ICMT": "COMMENT",
    "ICOP": "COPYRIGHT",
    "ICRD": "DATE",
    "IGNR": "GENRE",
    "IPRD": "ALBUM",
    "ITRK": "TRACKNUMBER",
    "ISFT": "SOFTWARE",
    "IKEY": "KEYWORDS",
    "ISBJ": "DESCRIPTION",
    "ISTR": "PERFORMER",
    "IENG": "ENGINEER",
    "ITCH": "TECHNICIAN",
    "ISRC": "SUPPLIER",
    "IARL": "ARCHIVAL_LOCATION",
    "ICMS": "COMMISSIONED",
    "IMED": "MEDIUM",
    "ISRF": "SOURCE_FORM",
    "ILNG": "LANGUAGE",
    "ICNT": "COUNTRY",
}
INFO_IDS = {name: key for key, name in INFO_NAMES.items()}
ID3_FRAMES = {
    "TITLE": "TIT2",
    "ARTIST": "TPE1",
    "ALBUM": "TALB",
    "COPYRIGHT": "TCOP",
    "DATE": "TDRC",
    "GENRE": "TCON",
    "TRACKNUMBER": "TRCK",
    "SOFTWARE": "TSSE",
}
_FFMPEG_NAMES = {"TRACK": "TRACKNUMBER", "ENCODER": "SOFTWARE", "DISC": "DISCNUMBER", "LICENCE": "LICENSE"}
# What containers say about themselves.
_OF_CONTAINERS = re.compile(
    "MAJOR_BRAND|MINOR_VERSION|COMPATIBLE_BRANDS|HANDLER_NAME|VENDOR_ID|DURATION|TLEN|BPS|NUMBER_OF_(FRAMES|BYTES)|_STATISTICS.*"
    "|WAVEFORMATEXTENSIBLE_CHANNEL_MASK|ITUNSMPB|DEVICECONFORMANCETEMPLATE|WM/ENCODINGTIME|ISVBR"
)
# What identifies or measures one recording, and is therefore wrong of any other.
_OF_THE_RECORDING = re.compile(
    "ISRC|TSRC|UMID|ACOUSTID.*|MUSICBRAINZ.*|REPLAYGAIN.*|R128_.*|ITUNNORM|BARCODE|DISCID|CDDB.*|ID3V2_PRIV.*|LOUDNESS.*|PEAK"
    "|(.*_)?(MD5|SHA1|SHA256|CRC|CRC32|CHECKSUM|FINGERPRINT|FILE_UID)"
)
_KEPT_HASH = re.compile("(SOURCE_)*DERIVED_FROM_SHA256")


def vorbis_name(name: str) -> str:
    """A name as a Vorbis comment may have it: capitals, ASCII without ``=``."""
    name = re.sub(r"[^ -<>-}]", "_", name.strip().upper())[:200]
    return _FFMPEG_NAMES.get(name, name) or "_"


def describes_container(name: str) -> bool:
    """Whether a tag is about the source's container, and no metadata of the recording."""
    return _OF_CONTAINERS.fullmatch(name) is not None


def identifies_recording(name: str) -> bool:
    """Whether a tag identifies or measures the source's samples, so that it is not true of other samples."""
    return _OF_THE_RECORDING.fullmatch(name) is not None and _KEPT_HASH.fullmatch(name) is None
