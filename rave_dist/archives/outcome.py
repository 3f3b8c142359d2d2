"""What a conversion ends with: the page, if it is asked for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rave_dist.errors import ConversionError
from rave_dist.progress import SILENT, Progress
from rave_dist.records import ConversionRecord
from rave_dist.storage.schemes import is_remote, local_path
from rave_dist.storage.store import Store

if TYPE_CHECKING:
    from rave_dist.conversion.corpus import Plan


def check_page(page: str | Path | None) -> None:
    """Checks the address of a page before any work.

    Raises:
        ConversionError: it is not one of an HTML file in a folder that exists.
    """
    if page is None:
        return
    place = str(page)
    if not place.lower().endswith((".html", ".htm")):
        raise ConversionError("the page is an HTML file", where=place, fix="end its name in .html")
    if is_remote(place):
        return
    path = local_path(place)
    if os.path.isdir(path):
        raise ConversionError("a folder has the name of the page", where=place, fix="choose another name")
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        raise ConversionError("the page's folder does not exist", where=place, fix=f"make the folder {folder}")
    if not os.access(folder, os.W_OK):
        raise ConversionError("the page's folder cannot be written", where=place, fix="choose another folder")


def write_outcome(
    store: Store,
    plans: Sequence[Plan],
    records: Sequence[ConversionRecord],
    *,
    page: str | Path | None = None,
    progress: Progress = SILENT,
) -> None:
    """Writes the page of a conversion, if it is asked for.

    Args:
        store: with the tables of the journals.
        plans: of the conversions, one per model.
        records: their outcomes, in the same order.
        page: the HTML file, from `check_page`.
        progress: receives the stage.

    Raises:
        StoreError: the store cannot be read or written, or the page cannot be.
    """
    if page is None:
        return
    progress.stage("writing the page")
    from rave_dist.conversion.table import read_table
    from rave_dist.reports.conversion_page import ConvertedWith, write_conversion_page

    models = [
        ConvertedWith(record, plan.card, read_table(store, plan.id), plan.output)
        for plan, record in zip(plans, records, strict=True)
    ]
    write_conversion_page(store, models, page)
