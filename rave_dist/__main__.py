"""``rave-dist`` and ``python -m rave_dist``: answers Ctrl-C and unforeseen errors in one line from the first moment on."""

from __future__ import annotations

import os
import sys
from types import TracebackType

EXIT_INTERRUPTED = 130
STOPPED = "stopped: nothing half-written is kept as finished; the same command takes up where this one left off"


def _last_words(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    sys.stderr.write(f"error unexpected {kind.__name__}: {error}\n  fix run again with --debug and send us the traceback\n")


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line and exits the process.

    A command that was stopped leaves without the interpreter's own clearing up: an interrupted start of Ray leaves threads
    behind that crash in the middle of it.

    Args:
        arguments: what stands after the command's name; None takes the process's own.
    """
    if arguments is not None:
        sys.argv[1:] = arguments
    if "--debug" not in sys.argv:
        sys.excepthook = _last_words
    try:
        from rave_dist.cli import command  # takes a while: Ctrl-C must be answered meanwhile

        command()(prog_name="rave-dist")
    except KeyboardInterrupt:
        sys.stderr.write(f"{STOPPED}\n")
    except SystemExit as ending:
        if ending.code != EXIT_INTERRUPTED:
            raise
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(EXIT_INTERRUPTED)


if __name__ == "__main__":
    main()
