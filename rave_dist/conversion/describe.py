"""What a converted file says about itself: its recording, its model, and what is still true of the recording's metadata.

Its title and its description say that it is no recording. The recordist's names and licence stay in their fields, the model's
credit is that of the performer. The same source, model and parameters give the same texts: none of them is a time of today.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Protocol

import rave_dist
from rave_dist.audio.metadata.adapt import NewFile, adapt
from rave_dist.audio.metadata.read import read_metadata
from rave_dist.audio.metadata.record import Metadata
from rave_dist.records import ConversionParameters, ModelCard

if TYPE_CHECKING:
    from rave_dist.conversion.latents_file import LatentsInfo  # which imports pyarrow

OWN_TAGS = (
    *("TITLE", "DESCRIPTION", "COMMENT", "DERIVED_FROM", "DERIVED_FROM_SHA256", "DERIVED_FROM_FORMAT", "DERIVED_FROM_DAMAGE"),
    *("MODEL", "MODEL_VERSION", "ENGINE", "ENGINE_LICENCE", "PERFORMER", "MODEL_LICENCE", "PARAMETERS", "SOFTWARE"),
)
"""The tags that a result has of its own; a recording's tag of such a name becomes ``SOURCE_`` and the name."""

_LICENCES = ("licence", "license")


class Facts(Protocol):
    """What is used of an open source: a `Decoder`, or an `OpenFile`."""

    sample_rate: int
    channels: int
    format: str
    subtype: str


@dataclass
class _Facts:
    """`Facts` of a recording that is not at hand."""

    sample_rate: int
    channels: int
    format: str
    subtype: str


@dataclass(frozen=True)
class Origin:
    """The source of a conversion, as its output names it.

    Attributes:
        sha256: of the source's bytes.
        name: of the source, with or without its folders; empty for a sound without a name, which came in a request.
        damage: of a salvaged source.
    """

    sha256: str
    name: str = ""
    damage: str | None = None

    @property
    def called(self) -> str:
        """The name without folders, or the beginning of the hash."""
        return PurePosixPath(self.name).name or f"sha256 {self.sha256[:12]}"


def describe(
    source: Path,
    facts: Facts,
    card: ModelCard,
    parameters: ConversionParameters,
    origin: Origin,
    *,
    bits: int,
    samples: int | None,
) -> Metadata:
    """The metadata of a converted file; ``remarks`` name what was not carried from the source, and why.

    Args:
        source: the recording, a local file.
        facts: of the open recording.
        card: of the model.
        parameters: of the conversion.
        origin: how the output names the recording.
        bits: per sample of the output.
        samples: of the output per channel, if known.
    """
    new = NewFile(
        source_name=origin.called,
        source_rate=facts.sample_rate,
        source_channels=facts.channels,
        sample_rate=parameters.sample_rate or facts.sample_rate,
        channels=parameters.channels or facts.channels,
        bits=bits,
        samples=samples,
        tags=tuple(_tags(facts, (card,), parameters, origin)),
    )
    return adapt(read_metadata(source), new)


def describe_latents(
    info: LatentsInfo, cards: Sequence[ModelCard], *, remark: str, bits: int, samples: int, other: LatentsInfo | None = None
) -> Metadata:
    """The metadata of the sound of latents, which has none of its recording's own.

    Args:
        info: about the latents.
        cards: of the models that play them.
        remark: how they became what is played.
        bits: per sample of the sound.
        samples: of the sound per channel.
        other: about those of a second recording.
    """
    recordings = [each for each in (info, other) if each is not None]
    names = " and ".join(PurePosixPath(each.source).name for each in recordings)
    origin = Origin(", ".join(each.source_sha256 for each in recordings), names)
    facts = _Facts(info.sample_rate, info.channels, info.source_format, info.subtype)
    parameters = ConversionParameters(seed=info.seed, latent_noise=info.latent_noise)
    rate, channels = info.sample_rate, info.channels
    tags = tuple(_tags(facts, cards, parameters, origin, remark))
    new = NewFile(origin.called, rate, channels, rate, channels, bits, samples, tags)
    return adapt(Metadata(), new)


def _tags(
    facts: Facts, cards: Sequence[ModelCard], parameters: ConversionParameters, origin: Origin, remark: str = ""
) -> Iterator[tuple[str, str]]:
    software = f"rave-dist {rave_dist.__version__}"
    model = " and ".join(card.reference for card in cards)
    engine = _each(f"{card.engine.name} {card.engine.version}" for card in cards)
    damage = f"; damaged source: {origin.damage}" if origin.damage else ""
    changes = "".join(f", {name} {value}" for name, value in parameters.changes.items())
    noise = f"latent noise {parameters.latent_noise:g}{changes}{remark and f', {remark}'}"
    yield "TITLE", f"Derived from {origin.called} by {model}"
    yield "DESCRIPTION", f"Not a recording: computed from the recording {origin.called} by the neural model {model} ({engine})."
    # A service recognises its own conversions by this sentence; the sound of latents, which may be edited, has another one.
    how, name = ("latents of ", "played by") if remark else ("", "through")
    of = f"{PurePosixPath(origin.name).name} (sha256 {origin.sha256})" if origin.name else f"sha256 {origin.sha256}"
    yield "COMMENT", f"rave-dist: {how}{of} {name} {model}, seed {parameters.seed}, {noise}{damage}"
    yield "DERIVED_FROM", origin.called
    yield "DERIVED_FROM_SHA256", origin.sha256
    yield "DERIVED_FROM_FORMAT", f"{facts.format} {facts.subtype}, {facts.sample_rate} Hz, channels: {facts.channels}"
    if origin.damage:
        yield "DERIVED_FROM_DAMAGE", origin.damage
    yield "MODEL", model
    yield "MODEL_VERSION", _each(card.version for card in cards)
    yield "ENGINE", engine
    yield "ENGINE_LICENCE", _each(card.engine.licence for card in cards)
    if credited := [card for card in cards if card.credit]:
        yield "PERFORMER", _each(f"{card.name}: {_credit(card)}" for card in credited)
    if licences := _each(text for card in cards for key, text in sorted(card.credit.items()) if key.lower() in _LICENCES):
        yield "MODEL_LICENCE", licences
    rate, channels = parameters.sample_rate or facts.sample_rate, parameters.channels or facts.channels
    yield "PARAMETERS", f"seed {parameters.seed}, {noise}, {rate} Hz, channels: {channels}"
    yield "SOFTWARE", software


def _credit(card: ModelCard) -> str:
    return "; ".join(f"{key}: {text}" for key, text in sorted(card.credit.items()))


def _each(texts: Iterable[str]) -> str:
    """Different texts, each once."""
    return " and ".join(dict.fromkeys(texts))
