"""Published models in the store, found by name, fetched by hash.

Files are named by `rave_dist.records.ModelFolder`. A version never changes except in its attribution.
"""

from __future__ import annotations

import hashlib
import pickle
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rave_dist.errors import DamagedObjectError, MissingKeyError, ModelNotFoundError
from rave_dist.identity import ID_LENGTH, canonical_json
from rave_dist.records import ModelCard, ModelFolder, RunFolder, TrainingSpec
from rave_dist.registry.files import PUBLISH_AGAIN
from rave_dist.registry.files import fetch as fetch
from rave_dist.registry.publications import versions
from rave_dist.storage.store import Store
from rave_dist.suggest import suggest

_REFERENCE = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]{0,62})(@(?P<version>[0-9a-f]{1,64}|latest))?")
_CARD = ModelFolder("", "").card
_TRAIN_AGAIN = "delete the run's result.json and run rave-dist train, which writes it again from the last checkpoint"
_LARGEST_CARD = 1 << 20


def list_models(store: Store, on_invalid: Callable[[DamagedObjectError], None] = lambda error: None) -> list[ModelCard]:
    """All published versions, by name and in the order of their publication.

    Args:
        store: of the models.
        on_invalid: called with the error of each card that is not valid; the others are listed.
    """
    return _cards(store, ModelFolder.versions(), on_invalid)


def list_latest(store: Store) -> list[ModelCard]:
    """The latest version of every published model, by name; models without a valid card are left out."""
    named: dict[str, dict[str, ModelCard]] = {}
    for card in list_models(store):
        named.setdefault(card.name, {})[card.version] = card
    # As `find` decides, which reads a card again.
    return [
        next((cards[version] for version in versions(store, name) if version in cards), list(cards.values())[-1])
        for name, cards in named.items()
    ]


def find_all(store: Store, references: Sequence[str] | None) -> list[ModelCard]:
    """The models of these references, or the latest version of every published model.

    Raises:
        ModelNotFoundError: as `find`.
        DamagedObjectError: as `find`.
    """
    return list_latest(store) if references is None else [find(store, reference) for reference in references]


def find(store: Store, reference: str) -> ModelCard:
    """A model by NAME (its latest version), NAME@VERSION, or NAME@ and the beginning of one version.

    Raises:
        ModelNotFoundError: no such model or version, with the nearest name.
        DamagedObjectError: its card is not valid.
    """
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        raise ModelNotFoundError(f"{reference!r} is not a model", where=store.uri, fix=_suggest_model(store, reference))
    name, version = match["name"], match["version"] or "latest"
    card = _latest(store, name) if version == "latest" else find_card(store, ModelFolder.of(name, version))
    if card is not None:
        return card
    damaged: list[DamagedObjectError] = []
    cards = _cards(store, ModelFolder.versions(name), damaged.append)
    begins = [card for card in cards if card.version.startswith(version)]
    if damaged and not (begins or (cards and version == "latest")):
        raise damaged[0]
    if not cards:
        raise ModelNotFoundError(f"no model is called {name!r}", where=store.uri, fix=_suggest_model(store, name))
    if version == "latest":  # the order of its publications was lost
        return cards[-1]
    if len(begins) == 1:
        return begins[0]
    raise ModelNotFoundError(
        f"{len(begins) or 'no'} versions of {name} begin with {version!r}",
        where=store.uri,
        fix=f"one of: {', '.join(card.reference for card in begins or cards)}",
    )


def fetch_run(store: Store, card: ModelCard, *, folder: Path) -> RunFolder:
    """Local copies of the configuration and the weights of the run that a model was exported from.

    Args:
        store: of the run.
        card: the model's card.
        folder: target folder; created if necessary.

    Raises:
        ModelNotFoundError: the run no longer exists, or has been trained further since.
    """
    run = RunFolder(folder)
    try:
        store.download(card.run_folder.config, run.config)
        store.download(card.run_folder.weights, run.weights)
    except MissingKeyError as error:
        raise ModelNotFoundError(
            f"the run of {card.reference} is not in this store", where=error.where, fix=f"train {card.name} again"
        ) from error
    if model_version(run, where=store.address(card.run_folder.weights)) != card.version:
        raise ModelNotFoundError(
            f"the run of {card.reference} has been trained further since",
            where=store.address(card.run_key),
            fix=f"publish it, and use {card.name}",
        )
    return run


def model_version(run: RunFolder, *, where: str = "") -> str:
    """The version of a run folder's model: a hash of its weights (names, types, shapes, bytes) and its configuration.

    Args:
        run: a local run folder.
        where: the address of the weights that ``run`` has a copy of.

    Raises:
        DamagedObjectError: the weights cannot be read.
    """
    import torch

    try:
        weights: dict[str, Any] = torch.load(run.weights, map_location="cpu", weights_only=True)
    except (EOFError, RuntimeError, pickle.UnpicklingError) as error:
        raise DamagedObjectError("the weights are damaged", where=where or str(run.weights), fix=_TRAIN_AGAIN) from error
    return _hash_weights(weights, hashlib.sha256(Path(run.config).read_bytes()))


def encoder_version(run: RunFolder, spec: TrainingSpec) -> str:
    """Hash of all that the output of a run's encoder depends on, equal for models that share it.

    Args:
        run: a local run folder, with intact weights.
        spec: the run.
    """
    import torch

    weights: dict[str, Any] = torch.load(run.weights, map_location="cpu", weights_only=True)
    # It says whether phase 2 has begun.
    kept = {name: value for name, value in weights.items() if name.startswith("encoder.") and not name.endswith("warmed_up")}
    facts = {key: getattr(spec, key) for key in ("config", "override", "sample_rate", "channels")}
    return _hash_weights(kept, hashlib.sha256(canonical_json(facts)))


def _hash_weights(weights: Mapping[str, Any], digest: hashlib._Hash) -> str:
    """Hash of names, types, shapes and values of tensors, after what ``digest`` has."""
    import torch

    for name, tensor in sorted(weights.items()):
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:ID_LENGTH]


def find_card(store: Store, folder: ModelFolder) -> ModelCard | None:
    """The card of a version; None if it is not published, or not valid."""
    try:
        return _read_card(store, folder.card)
    except (MissingKeyError, DamagedObjectError):
        return None


def _read_card(store: Store, key: str) -> ModelCard:
    """A card under the key that its name and version give it."""
    card = ModelCard.load(store, key)
    try:
        canonical_json(card.to_json())
    except ValueError as error:  # one card that cannot be written as JSON would fail a whole list
        what = "this card is nested too deeply, or has text that is not Unicode"
        raise DamagedObjectError(what, where=store.address(key), fix=PUBLISH_AGAIN) from error
    if card.folder.card != key:
        raise DamagedObjectError(
            f"this card is of {card.reference}, not of its folder", where=store.address(key), fix=PUBLISH_AGAIN
        )
    return card


def _cards(store: Store, prefix: str, on_invalid: Callable[[DamagedObjectError], None] = lambda error: None) -> list[ModelCard]:
    cards = []
    for entry in store.list(prefix):
        if entry.key.endswith(_CARD):
            try:
                if entry.bytes > _LARGEST_CARD:
                    what = f"a card of {entry.bytes:,} bytes, which has at most {_LARGEST_CARD:,}"
                    raise DamagedObjectError(what, where=store.address(entry.key), fix=PUBLISH_AGAIN)
                cards.append(_read_card(store, entry.key))
            except MissingKeyError:
                continue  # removed since
            except DamagedObjectError as error:
                on_invalid(error)
    return sorted(cards, key=lambda card: (card.name, card.publication, card.created_at, card.version))


def _latest(store: Store, name: str) -> ModelCard | None:
    cards = (find_card(store, ModelFolder.of(name, version)) for version in versions(store, name))
    return next((card for card in cards if card is not None), None)


def _suggest_model(store: Store, name: str) -> str:
    names = sorted({card.name for card in list_models(store)})
    return suggest(name, names) or "train and publish one first"
