"""The order of a model's publications, and the attribution of published versions.

::

    models/<name>/publications/<number>.json   `rave_dist.records.Publication`

A publisher takes the next number, which only one can create, before it writes the card; so the latest version is the one with
the highest number that has a card, whatever the clocks of the publishers say.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from rave_dist.identity import canonical_json
from rave_dist.records import ModelCard, ModelFolder, PastCredit, Publication, now
from rave_dist.storage.store import Store

_NUMBER = re.compile(r"/(\d+)\.json$")


def announce(store: Store, name: str, version: str) -> int:
    """Takes the next number in the order of a model's publications; returns it.

    The last number is used again if a publisher of this version died after it took it, or while it wrote its entry.
    """
    entry = canonical_json(Publication(version=version, at=now()).to_json()) + b"\n"
    number = max(numbers(store, name), default=0)
    if number:
        key = ModelFolder.publication(name, number)
        last = Publication.find(store, key)
        if last is None:
            store.write_bytes(key, entry)
        if last is None or last.version == version:
            return number
    number += 1
    while not store.claim(ModelFolder.publication(name, number), entry):
        number += 1
    return number


def numbers(store: Store, name: str) -> list[int]:
    """All numbers that publishers of a model have taken, in order."""
    found = (_NUMBER.search(entry.key) for entry in store.list(ModelFolder.publications(name)))
    return sorted(int(match[1]) for match in found if match)


def versions(store: Store, name: str) -> Iterator[str]:
    """The versions of a model, the latest first; one whose publisher died may have no card."""
    for number in reversed(numbers(store, name)):
        entry = Publication.find(store, ModelFolder.publication(name, number))
        if entry is not None:  # not removed since it was listed, and not cut when its publisher died
            yield entry.version


def refresh_credit(store: Store, card: ModelCard, credit: Mapping[str, str]) -> ModelCard:
    """A card with this attribution, rewritten in the store if it had another one, which its history keeps."""
    if card.credit == dict(credit):
        return card
    past = PastCredit(credit=card.credit, until=now())
    card = card.model_copy(update={"credit": dict(credit), "past_credits": (*card.past_credits, past)})
    card.save(store, card.folder.card)
    return card
