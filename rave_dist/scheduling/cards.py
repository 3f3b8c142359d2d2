"""Cards that can be rented: memory and arithmetic, from the makers' data sheets, and an estimate of a step's time.

A RAVE step is many small convolutions: it reaches a fraction of a card's peak and never takes less than its launches.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from rave_dist.errors import ConfigurationError
from rave_dist.suggest import suggest

_CORE_GFLOPS = 45.0  # that one core of a current server does in a step
_PEAK_SHARE = 0.15  # of a card's peak, that a step reaches; not measured, low on purpose
_LEAST_STEP_SECONDS = 0.03  # the launches of a step's kernels

CPU = "this machine"
"""The name of CPUs in records."""


@dataclass(frozen=True)
class Card:
    """A type of GPU: Ray's name of it, memory in GiB, TFLOPS in single precision."""

    name: str
    gib: int
    tflops: float

    def step_seconds(self, core_seconds: float) -> float:
        """The estimated time of a step that takes one CPU core this long."""
        return max(_LEAST_STEP_SECONDS, core_seconds * _CORE_GFLOPS / (1000 * self.tflops * _PEAK_SHARE))


CARDS = {
    card.name: card
    for card in (
        Card("T4", 16, 8.1),
        Card("V100", 16, 15.7),
        Card("A10G", 24, 31.2),
        Card("L4", 24, 30.3),
        Card("RTX-3070", 8, 20.3),
        Card("RTX-3090", 24, 35.6),
        Card("RTX-4090", 24, 82.6),
        Card("A100", 40, 19.5),
        Card("A100-80G", 80, 19.5),
        Card("L40S", 48, 91.6),
        Card("H100", 80, 67.0),
        Card("H200", 141, 67.0),
    )
}


def find_card(name: str) -> Card:
    """A card by its name, in any letter case.

    Raises:
        ConfigurationError: there is no such card, with the most similar one.
    """
    for known, card in CARDS.items():
        if known.casefold() == name.casefold().replace(" ", "-"):
            return card
    raise ConfigurationError(f"no card is called {name!r}", where="--gpu", fix=suggest(name, CARDS))


def is_kind(device: str, card: Card | None) -> bool:
    """Whether a device, by its name in records, is a card of this type; without a card, whether it is a CPU."""
    if card is None:
        return device == CPU
    words = re.split(r"[^a-z0-9]+", device.casefold())  # "NVIDIA A100-SXM4-80GB" is an A100-80G, "NVIDIA L40S" no L4

    def parts(one: Card) -> list[str]:
        return one.name.casefold().split("-")

    kinds = [one for one in CARDS.values() if all(part in words or f"{part}b" in words for part in parts(one))]
    return card == max(kinds, key=lambda one: len(parts(one)), default=None)
