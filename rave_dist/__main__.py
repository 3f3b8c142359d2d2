"""``rave-dist`` and ``python -m rave_dist``: handles signals and internal errors from the start, with one-line messages."""

from __future__ import annotations

import sys
from types import TracebackType

from rave_dist import signals
from rave_dist.exit_codes import DONE, FAILED, INTERRUPTED, TERMINATED
from rave_dist.terminal.encoding import accept_all_characters, drop_unwritten


def _report_internal_error(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    sys.stderr.write(
        f"internal error: {kind.__name__}: {error}\n"
        "  fix rerun with --debug and report the traceback (where: see CONTRIBUTING.md, or SECURITY.md if it is confidential)\n"
    )


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line and exits the process.

    Args:
        arguments: the command-line arguments; None uses those of the process.
    """
    if arguments is not None:
        sys.argv[1:] = arguments
    if "--debug" not in sys.argv:
        sys.excepthook = _report_internal_error
    try:
        signals.install()
        accept_all_characters()
        from rave_dist.cli.main import command  # slow; signals must be handled meanwhile

        command()(prog_name="rave-dist")
    except KeyboardInterrupt as stop:
        signals.say_stopped(lambda text: sys.stderr.write(f"{text}\n"))
        signals.end(signals.exit_code(stop))
    except SystemExit as ending:
        if ending.code in (INTERRUPTED, TERMINATED):
            signals.end(ending.code)
        code = ending.code if isinstance(ending.code, int) else FAILED if ending.code else DONE
        if not drop_unwritten():
            code = code or FAILED
        signals.finish(code)
        raise SystemExit(code) from ending


if __name__ == "__main__":
    main()
