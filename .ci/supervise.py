"""Runs a command and leaves nothing of it behind: ``python3 .ci/supervise.py SECONDS COMMAND...``.

Tests start servers, browsers and Rays. Should a test's process crash, what it started would live on, hold this run's output
open and look like a run that never ends. Orphans become children of this process, which ends them when the command has ended
or its time is up; then the exit code is the command's, or 124.
"""

import ctypes
import os
import signal
import subprocess
import sys
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36


def children() -> list[int]:
    """The process ids of this process's children."""
    return [int(pid) for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()]


def main(seconds: float, command: list[str]) -> int:
    """Runs a command for so many seconds at most; returns its exit code."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        code = process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        print(f"not done after {seconds:g} s: {' '.join(command)}", file=sys.stderr, flush=True)
        code = 124
    while left := children():  # whose own children come here next
        for pid in left:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), sys.argv[2:]))
