"""Exit codes of the command line; README names them."""

from __future__ import annotations

from typing import Final

DONE: Final = 0
"""All done."""

FAILED: Final = 1
"""The command could not run; the message says what, where and the fix."""

USAGE: Final = 2
"""Wrong options or arguments."""

PARTIAL: Final = 3
"""Finished, but some items failed and are reported."""

INTERRUPTED: Final = 130
"""Stopped with Ctrl-C (128 and the number of SIGINT, as shells count)."""

TERMINATED: Final = 143
"""Stopped with SIGTERM (128 and the number of SIGTERM)."""
