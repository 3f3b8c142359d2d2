"""Models in the memory of a process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import torch

from rave_dist.conversion.batches import Batches
from rave_dist.conversion.convert import Converter
from rave_dist.conversion.encodings import KEPT, Encodings
from rave_dist.records import ModelCard
from rave_dist.storage.store import Store

MEMORY_PER_FILE_BYTE = 2
"""Bytes of memory that a loaded TorchScript needs for a byte of its file: weights, constants and code."""

MODELS_SHARE = 0.5
"""The part of memory that is used for models; the rest is for audio."""


def memory_for(card: ModelCard) -> int:
    """Bytes of memory that a loaded model needs."""
    return MEMORY_PER_FILE_BYTE * card.files["offline"].bytes


def load_converters(
    store: Store, cards: Mapping[int, ModelCard], *, device: str | None = None, trust: bool = False
) -> dict[int, Converter]:
    """Loads models from a store into this process, by their numbers.

    Args:
        store: a `Store`.
        cards: the models.
        device: where they run; None for the GPU of this machine if it has one.
        trust: load a file with operators that no export has.

    Raises:
        StoreError: a stored file is not the published one.
        UntrustedModelError: a file has operators that no export has.
        ConversionError: a file cannot convert.
    """
    torch.set_num_threads(1)  # a process for every core is faster; the samples do not depend on the number of threads
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    encoders = Counter(card.encoder for card in cards.values() if card.encoder)
    batches = Batches.on(device)
    encodings = {encoder: Encodings(KEPT * batches.threads) for encoder, count in encoders.items() if count > 1}
    return {
        number: Converter.load(store, card, device=device, trust=trust, encodings=encodings.get(card.encoder), batches=batches)
        for number, card in cards.items()
    }
