"""Which engine trains and is exported: RAVE, as the package acids-rave, under its own licence.

Imports nothing of it, so that commands which only name the engine start at once.
"""

from __future__ import annotations

from importlib import metadata

from rave_dist.records import Engine

NAME = "acids-rave"
VERSION = "2.3.1"  # the one version that rave-dist supports
INSTALL = f"pip install --no-deps {NAME}=={VERSION}"  # its needs are among ours, without the pins that ask for Python 3.11
LICENCE = "CC BY-NC 4.0"  # its LICENSE file; the package's metadata say MIT


def installed_engine() -> Engine:
    """The engine of this installation; where it is not installed, the one that rave-dist asks for."""
    try:
        version = metadata.version(NAME)
    except metadata.PackageNotFoundError:
        version = VERSION
    return Engine(name=NAME, version=version, licence=LICENCE)
