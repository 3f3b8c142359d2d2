"""Initial weights of a library's instruments: those of named models, or of a joint base trained on all instruments."""

from __future__ import annotations

import functools
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rave_dist.dataset.read import latest_manifest
from rave_dist.errors import DatasetError, LibraryError
from rave_dist.identity import content_id
from rave_dist.library.manifest import Library
from rave_dist.records import DatasetManifest, ModelCard, Problem, TrainingSpec, now
from rave_dist.storage.parallel import at_once
from rave_dist.storage.store import Store
from rave_dist.temporary import temporary_folder

if TYPE_CHECKING:
    from rave_dist.training.state.initialization import InitialWeights

_published_lock = threading.Lock()
_ARCHITECTURE = ("config", "override", "sample_rate", "channels")


@dataclass(frozen=True)
class JointBase:
    """The run of a library's joint base, and its dataset, which refers to the audio of the instruments' datasets."""

    spec: TrainingSpec
    dataset: DatasetManifest


def plan_joint_base(library: Library) -> JointBase | None:
    """The library's joint base, on the ingested datasets of its instruments; only reads the store.

    Returns:
        None if the manifest does not request a joint base, or nothing has been ingested yet.
    """
    spec = library.base_spec(dataset="")
    if spec is None:
        return None
    form = (spec.sample_rate, spec.channels)

    def part_of(name: str) -> DatasetManifest | None:
        try:
            part = latest_manifest(library.store, name, library.name)
        except DatasetError:
            return None  # refused later
        return part if (part.sample_rate, part.channels) == form else None

    found = zip(library.instruments, at_once(part_of, library.instruments), strict=True)
    parts = {name: part for name, part in found if part is not None}
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
    """Writes the dataset manifest of a joint base; its audio is already in the store."""
    base.dataset.save(store, base.dataset.folder.manifest)


def joint_base_problem(library: Library, instrument: str) -> Problem | None:
    """The reason why an instrument cannot start from the joint base; None if it can, or if it has another base."""
    base, joint = library.base(instrument), library.base_spec(dataset="")
    if base is None or not base.train or joint is None:
        return None
    own = library.training_spec(instrument, dataset="")
    others = [key for key in _ARCHITECTURE if getattr(own, key) != getattr(joint, key)]
    if not others:
        return None
    return Problem(
        what=f"it differs from the joint base in {', '.join(others)}",
        fix=f"set {others[0]} in defaults, or give this instrument a separate base",
    )


def find_initial_weights(library: Library, instrument: str, *, joint: str = "") -> InitialWeights | None:
    """The initial weights of an instrument; None if the manifest names no base.

    Args:
        library: the library.
        instrument: its name.
        joint: NAME@VERSION of the joint base, once it is trained.

    Raises:
        ModelNotFoundError: no such model or version, or its run is no longer in the store.
        ConfigurationError: no such stock run, or it does not have the requested weights.
        LibraryError: the instrument would start from its own latest version, which changes with every training.
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
            f"{instrument} would start from its own latest version, which changes with every training",
            where=f"{instrument}.base",
            fix=f"base: {card.reference}",
        )
    with _published_lock:  # so that of several threads one downloads them
        return _published(library.store, card)


@functools.lru_cache(maxsize=1)  # the instruments of a library usually share one; a version never changes
def _published(store: Store, card: ModelCard) -> InitialWeights:
    from rave_dist.registry.store import fetch_run
    from rave_dist.training.state.initialization import weights_of_model

    with temporary_folder("base") as folder:
        run = fetch_run(store, card, folder=Path(folder))
        return weights_of_model(run, version=card.version, origin=card.reference)
