"""Writes the further files of a published model; `rave_dist.registry.export` calls it in a fresh process."""

from __future__ import annotations

from pathlib import Path

from rave_dist.errors import VerificationError
from rave_dist.extensions import EXPORT_FORMATS


def write_request(*, out: str, name: str, offline: str, target: str) -> None:
    """Has an extension write a file from the offline export of a model; the arguments are JSON values.

    Args:
        out: the export's folder.
        name: the format.
        offline: file name of the offline TorchScript.
        target: file name to write.

    Raises:
        VerificationError: the extension wrote no file.
    """
    EXPORT_FORMATS[name].write(Path(out, offline), Path(out, target))
    if not Path(out, target).is_file():
        raise VerificationError(f"the export format {name} wrote no file", where=target, fix="correct or remove the extension")
