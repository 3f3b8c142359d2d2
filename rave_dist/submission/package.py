"""What a cluster gets of a library: a manifest in its store that refers only to what its hosts can reach.

In the store rather than in a folder that Ray copies to every host, so that no process depends on such a folder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import yaml

from rave_dist.errors import LibraryError, StoreError
from rave_dist.library.manifest import Library


def check_reachable(library: Library, names: Sequence[str], *, shared_store: bool) -> None:
    """Refuses a library that refers to files that a cluster does not have and an upload does not cover.

    Args:
        library: the library.
        names: of the instruments that are to be trained.
        shared_store: whether every host mounts the store's folder under its path.

    Raises:
        StoreError: the store is a folder of this machine.
        LibraryError: an instrument starts from a stock run, a folder of this machine, or ``on_end`` is a program in one.
    """
    if library.store.is_local and not shared_store:
        raise StoreError(
            "the store is a folder of this machine, which the cluster cannot reach",
            where=library.store.uri,
            fix="set store: s3://bucket/prefix in the manifest; or add --shared-store if every host mounts this folder under "
            "the same path",
        )
    on_end = library.manifest.on_end
    if isinstance(on_end, tuple | list) and "/" in on_end[0]:
        raise LibraryError(
            "the program is one of this machine, which the cluster does not have",
            where=f"on_end: {on_end[0]}",
            fix="give an http(s) address, or the name of a program that is on the PATH of the cluster's head",
        )
    for name in names:
        base = library.base(name)
        if base is not None and base.stock is not None:
            raise LibraryError(
                "the stock run is a folder of this machine, which the cluster cannot reach",
                where=f"{name}.base: {base.stock}",
                fix=f"train {name} here with rave-dist run --only {name}, and submit the others with --only",
            )


def package_manifest(library: Library, sources: Mapping[str, Sequence[str]]) -> str:
    """Writes a manifest with the same settings, for other machines, to the library's store.

    Args:
        library: the library.
        sources: of the instruments whose sources differ there.

    Returns:
        Its address.
    """
    manifest = library.manifest.model_dump(mode="json", exclude_unset=True)
    manifest["store"] = library.store.uri
    for name, instrument in manifest["instruments"].items():
        instrument["sources"] = list(sources.get(name, library.sources(name)))
    key = f"manifests/{library.name}.yaml"
    library.store.write_bytes(key, yaml.safe_dump(manifest, sort_keys=False, allow_unicode=True).encode())
    return library.store.address(key)
