"""What the instruments of a library start from: found by the names that the manifest gives, or trained on all of them."""

from __future__ import annotations

import functools
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rave_dist.dataset.read import latest_manifest
from rave_dist.errors import DatasetError, LibraryError
from rave_dist.identity import content_id
from rave_dist.library.manifest import Library
from rave_dist.records import DatasetManifest, ModelCard, Problem, TrainingSpec, now
from rave_dist.storage.store import Store

if TYPE_CHECKING:
    from rave_dist.training.state.initialization import InitialWeights

_ARCHITECTURE = ("config", "override", "sample_rate", "channels")


@dataclass(frozen=True)
class JointBase:
    """The run of a library's own base, and its dataset, which refers to the audio of the instruments' datasets."""

    spec: TrainingSpec
    dataset: DatasetManifest


def plan_joint_base(library: Library) -> JointBase | None:
    """The library's own base, trained on the ingested datasets of its instruments; reads the store and writes nothing.

    Returns:
        None where the manifest does not ask for a joint base, or nothing is ingested yet.
    """
    spec = library.base_spec(dataset="")
    if spec is None:
        return None
    parts: dict[str, DatasetManifest] = {}
    for name in library.instruments:
        try:
            part = latest_manifest(library.store, name, library.name)
        except DatasetError:
            continue  # it will be refused itself
        if (part.sample_rate, part.channels) == (spec.sample_rate, spec.channels):
            parts[name] = part
    if not parts:
        return None
    joint = DatasetManifest(
        id=content_id(sorted(part.id for part in parts.values())),
        instrument=spec.instrument,
        sample_rate=spec.sample_rate,
        channels=spec.channels,
        sources=tuple({source.source_id: source for part in parts.values() for source in part.sources}.values()),
        rejected=(),
        shards=tuple({shard.key: shard for part in parts.values() for shard in part.shards}.values()),
        used_seconds=sum(part.used_seconds for part in parts.values()),
        created_at=now(),
    )
    credit: dict[str, dict[str, None]] = {}
    for name in parts:
        for key, value in (library.settings(name).credit or {}).items():
            credit.setdefault(key, {})[value] = None
    together = {key: "; ".join(values) for key, values in credit.items()}
    return JointBase(spec.model_copy(update={"dataset": joint.id, "credit": together}), joint)


def write_joint_dataset(store: Store, base: JointBase) -> None:
    """Writes the dataset manifest of a joint base; its audio is in the store already."""
    base.dataset.save(store, base.dataset.folder.manifest)


def joint_base_problem(library: Library, instrument: str) -> Problem | None:
    """Why an instrument cannot start from the library's own base; None where it can, or where it has another."""
    base, joint = library.base(instrument), library.base_spec(dataset="")
    if base is None or not base.train or joint is None:
        return None
    own = library.training_spec(instrument, dataset="")
    others = [key for key in _ARCHITECTURE if getattr(own, key) != getattr(joint, key)]
    if not others:
        return None
    return Problem(
        what=f"it differs from the library's base in {', '.join(others)}",
        fix=f"set {others[0]} in defaults, or give this instrument a base of its own",
    )


def find_initial_weights(library: Library, instrument: str, *, joint: str = "") -> InitialWeights | None:
    """What an instrument starts from; None where the manifest names no base.

    Args:
        joint: NAME@VERSION of the library's own base, once it is trained.

    Raises:
        ModelNotFoundError: no such model or version, or its run is no longer in the store.
        ConfigurationError: no such stock run, or it has not kept what is asked for.
        LibraryError: an instrument that would start from its own latest version, which is another every time.
    """
    base = library.base(instrument)
    if base is None or (base.train and not joint):
        return None
    from rave_dist.registry.store import find
    from rave_dist.training.state.initialization import weights_of_stock_run

    if base.stock is not None:
        return weights_of_stock_run(Path(base.stock), resume=base.resume, ema=base.ema)
    reference = base.model or joint
    card = find(library.store, reference)
    if base.model == instrument:
        raise LibraryError(
            f"{instrument} would start from its own latest version, which every training replaces",
            where=f"{instrument}.base",
            fix=f"base: {card.reference}",
        )
    return _published(library.store, card)


@functools.lru_cache(maxsize=1)  # mostly the instruments of a library share one; a version never changes
def _published(store: Store, card: ModelCard) -> InitialWeights:
    from rave_dist.registry.store import fetch_run
    from rave_dist.training.state.initialization import weights_of_model

    with tempfile.TemporaryDirectory(prefix="rave-dist-base-") as folder:
        run = fetch_run(store, card, folder=Path(folder))
        return weights_of_model(run, version=card.version, origin=card.reference)
