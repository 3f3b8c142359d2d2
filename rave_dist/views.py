"""Records returned by the Python API, displayed in notebooks with players and pictures.

The pictures need matplotlib and the sounds the store, so that both are loaded only when a notebook asks for them.
"""

from __future__ import annotations

from typing import Self

from pydantic import PrivateAttr

from rave_dist import pipeline
from rave_dist.library.manifest import Library as LoadedLibrary
from rave_dist.records import ConversionRecord, ModelCard, Record
from rave_dist.storage.store import Store


class Library(LoadedLibrary):
    """A validated manifest with its defaults applied and its paths resolved against the manifest's folder.

    Make one with `Library.load` from a file or with `Library.from_dict` from a dict.

    Args:
        manifest: the validated manifest.
        path: of the manifest; relative paths in it are relative to its folder.

    Attributes:
        name: the library's name.
        store: of datasets, runs and models.

    Example:
        >>> library = rd.Library.load("library.yaml")
        >>> library.name, library.instruments
        ('drums', ('rebana',))
    """

    def __repr__(self) -> str:
        return f"Library({str(self.path)!r})"

    def _repr_html_(self) -> str:
        from rave_dist.reports.notebook import library_html

        return library_html(self, pipeline.status(self))


class _FromStore(Record):
    """A record with the store that it was read from; equal to the same record without."""

    _store: Store = PrivateAttr()

    @classmethod
    def of(cls, record: Record, store: Store) -> Self:
        """A record, with its store."""
        view = cls.model_construct(**dict(record))
        view._store = store
        return view

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Record) and dict(self) == dict(other)


class PublishedModel(_FromStore, ModelCard):
    """A model card with the store that it was read from."""

    __hash__ = ModelCard.__hash__

    def _repr_html_(self) -> str:
        from rave_dist.reports.notebook import model_html

        return model_html(self._store, self)


class Conversion(_FromStore, ConversionRecord):
    """A conversion record with the store of its journal."""

    __hash__ = ConversionRecord.__hash__

    def _repr_html_(self) -> str:
        from rave_dist.reports.notebook import conversion_html

        return conversion_html(self._store, self)
