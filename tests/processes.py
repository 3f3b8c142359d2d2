"""Processes that tests start, by what is in their command lines: Ray's workers have the name of their task there."""

from __future__ import annotations

import psutil


def descendants(title: str) -> list[psutil.Process]:
    """Those of this process; one that ends meanwhile is none."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if title in "".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found
