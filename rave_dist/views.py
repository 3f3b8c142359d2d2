"""Records returned by the Python API, displayed in notebooks with players and pictures.

The pictures need matplotlib and the sounds the store, so that both are loaded only when a notebook asks for them.
"""

from __future__ import annotations

from pydantic import PrivateAttr

from rave_dist import pipeline
from rave_dist.library.manifest import Library as LoadedLibrary
from rave_dist.records import ConversionRecord, ModelCard
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


class PublishedModel(ModelCard):
    """A model card with the store that it was read from."""

    _store: Store = PrivateAttr()

    @classmethod
    def of(cls, card: ModelCard, store: Store) -> PublishedModel:
        """The card, with its store."""
        model = cls.model_construct(**dict(card))
        model._store = store
        return model

    __hash__ = ModelCard.__hash__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ModelCard) and dict(self) == dict(other)

    def _repr_html_(self) -> str:
        from rave_dist.reports.notebook import model_html

        return model_html(self._store, self)


class Conversion(ConversionRecord):
    """A conversion record with the store of its journal."""

    _store: Store = PrivateAttr()

    @classmethod
    def of(cls, record: ConversionRecord, store: Store) -> Conversion:
        """The record, with its store."""
        conversion = cls.model_construct(**dict(record))
        conversion._store = store
        return conversion

    __hash__ = ConversionRecord.__hash__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ConversionRecord) and dict(self) == dict(other)

    def _repr_html_(self) -> str:
        from rave_dist.reports.notebook import conversion_html

        return conversion_html(self._store, self)
