"""Published files, fetched by hash and checked before they are loaded."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from rave_dist.errors import DamagedObjectError, StoreError
from rave_dist.identity import ID_LENGTH, hash_file
from rave_dist.records import ExportKind, ModelCard
from rave_dist.records.words import words
from rave_dist.registry.operators import check_operators
from rave_dist.storage.atomic import replacing
from rave_dist.storage.store import Store

PUBLISH_AGAIN = "delete its folder and publish the run again"


def fetch(store: Store, card: ModelCard, kind: ExportKind = "offline", *, folder: Path, trust: bool = False) -> Path:
    """A local copy of a published file, in a cache that processes may share.

    Its keys and paths are derived from the card's name and version; the card is validated as input.

    Args:
        store: of the model.
        card: the model's card.
        kind: the file to fetch.
        folder: the cache; created if necessary.
        trust: accept a file with operators that no export of this program has.

    Raises:
        DamagedObjectError: the card is not valid.
        StoreError: the stored file is not the published one.
        UntrustedModelError: the file has operators that no export has.
    """
    try:
        card = ModelCard.model_validate(card.to_json())
    except ValidationError as error:
        raise DamagedObjectError(
            f"not a valid card ({words(error.errors()[0])})", where=repr(card.name), fix=PUBLISH_AGAIN
        ) from error
    if kind not in card.files:
        raise DamagedObjectError(f"this card names no {kind} file", where=store.address(card.folder.card), fix=PUBLISH_AGAIN)
    file, key = card.files[kind], card.folder.file(kind)
    path = folder / f"{card.name}-{card.version}-{kind}-{file.sha256[:ID_LENGTH]}.ts"
    if not path.exists() or hash_file(path) != file.sha256:
        with replacing(path) as temporary:
            store.download(key, temporary)
            if hash_file(temporary) != file.sha256:
                raise StoreError(
                    f"{card.reference} is not the published file: its sha256 differs",
                    where=store.address(key),
                    fix=f"delete {card.key} and publish the run again",
                )
    if not trust:
        check_operators(path, where=store.address(key))
    return path
