"""Runs a command and ends all processes that it started: ``python3 .ci/supervise.py SECONDS COMMAND...``.

Tests start servers, browsers and Ray. If a test process crashes, these would continue to run and keep this run's output open,
so that the run would never end. Orphans become children of this process, which collects those that end. It ends the others when
the command has ended or its time limit is exceeded; the exit code is the command's, or 124.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36


def children() -> list[int]:
    """The process ids of this process's children."""
    return [int(pid) for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()]


def main(seconds: float, command: list[str]) -> int:
    """Runs a command with a time limit in seconds; returns its exit code."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    end = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < end:
        for pid in children():
            if pid != process.pid:
                os.waitpid(pid, os.WNOHANG)
        time.sleep(0.5)
    code = process.poll()
    if code is None:
        print(f"not done after {seconds:g} s: {' '.join(command)}", file=sys.stderr, flush=True)
        code = 124
    while left := children():  # their children become ours next
        for pid in left:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), sys.argv[2:]))
