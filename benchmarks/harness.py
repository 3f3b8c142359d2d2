"""Common parts of the benchmarks: CPU time of a process tree, interleaving, machine, report.

CPU-seconds are user plus system time of the work and of all its processes. They are counted in two ways, each of which can only
miss time, and the larger count is used: (1) the kernel's sum over reaped children (exact, but without children of a parent
that ignores SIGCHLD, like Ray's raylet); (2) the last value of every descendant, sampled ten times a second (without the last
tenth of a second of each). Orphans stay in the tree: on Linux this process adopts them. The sampler's CPU is not counted.
"""

from __future__ import annotations

import ctypes
import json as json_module
import os
import platform
import resource
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import psutil

_SAMPLE_SECONDS = 0.1
_ORPHAN_SECONDS = 10.0
_PR_SET_CHILD_SUBREAPER = 36

Work = Sequence[str] | Callable[[], object]


@dataclass(frozen=True)
class Usage:
    """Resources used by a piece of work.

    ``peak_rss_bytes`` is the maximum resident memory of the process tree, ``largest_rss_bytes`` that of a single process.
    """

    cpu_seconds: float
    wall_seconds: float
    peak_rss_bytes: int
    largest_rss_bytes: int


class _Sampler(threading.Thread):
    """Samples the memory of this process's descendants, and the CPU time that each has used since the start."""

    def __init__(self, *, include_self: bool) -> None:
        super().__init__(daemon=True)
        self._self = psutil.Process()
        self._include_self = include_self
        self._before = {p.pid: _cpu_of(p) for p in self._self.children(recursive=True)}
        self._stop_event = threading.Event()
        self.cpu: dict[tuple[int, float], float] = {}
        self.peak = self.largest = 0
        self.own_seconds = 0.0

    def run(self) -> None:
        while not self._stop_event.wait(_SAMPLE_SECONDS):
            self.sample()
        self.own_seconds = time.thread_time()

    def sample(self) -> None:
        sizes = [self._self.memory_info().rss] if self._include_self else []
        for process in self._self.children(recursive=True):
            try:
                with process.oneshot():
                    sizes.append(process.memory_info().rss)
                    spent = _cpu_of(process) - self._before.get(process.pid, 0.0)
                    self.cpu[process.pid, process.create_time()] = spent
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        self.peak = max(self.peak, sum(sizes))
        self.largest = max([self.largest, *sizes])

    def finish(self) -> None:
        self._stop_event.set()
        self.join()
        self.sample()

    def reap_orphans(self) -> None:
        """Waits for left processes, so that the kernel counts them."""
        deadline = time.monotonic() + _ORPHAN_SECONDS
        while time.monotonic() < deadline:
            left = [p for p in self._self.children(recursive=True) if p.pid not in self._before]
            if not left:
                return
            for process in left:
                try:
                    os.waitpid(process.pid, os.WNOHANG)
                except ChildProcessError:
                    continue  # a grandchild: its parent reaps it
            self.sample()
            time.sleep(_SAMPLE_SECONDS)


def _cpu_of(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def measure(
    work: Work, *, env: Mapping[str, str] | None = None, cwd: Path | str | None = None, timeout: float | None = None
) -> Usage:
    """Runs a command (its output is discarded unless it fails) or a function, and returns its usage.

    Args:
        work: a command line, or a function without arguments; a function's memory includes this process's own.
        env: variables added to the environment of a command.
        cwd: folder of a command.
        timeout: seconds after which a command is killed.

    Raises:
        subprocess.CalledProcessError: the command failed; the end of its output is printed.
        subprocess.TimeoutExpired: it took longer than ``timeout``.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    sampler = _Sampler(include_self=callable(work))
    children_before = _seconds(resource.getrusage(resource.RUSAGE_CHILDREN))
    own_before = time.process_time()
    started = time.perf_counter()
    sampler.start()
    try:
        if callable(work):
            work()
        else:
            _command(list(work), env=env, cwd=cwd, timeout=timeout)
    finally:
        wall = time.perf_counter() - started
        own = time.process_time() - own_before if callable(work) else 0.0
        sampler.finish()
        own = max(0.0, own - sampler.own_seconds)
    sampler.reap_orphans()
    children = _seconds(resource.getrusage(resource.RUSAGE_CHILDREN)) - children_before
    return Usage(own + max(children, sum(sampler.cpu.values())), wall, sampler.peak, sampler.largest)


def _command(command: list[str], *, env: Mapping[str, str] | None, cwd: Path | str | None, timeout: float | None) -> None:
    try:
        subprocess.run(
            command,
            check=True,
            env={**os.environ, **(env or {})},
            cwd=cwd,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        print((error.output or b"").decode(errors="replace")[-3000:], file=sys.stderr)
        raise


def _seconds(usage: resource.struct_rusage) -> float:
    return usage.ru_utime + usage.ru_stime


def interleave(variants: Mapping[str, Callable[[], Usage]], *, rounds: int) -> dict[str, list[Usage]]:
    """Measures variants alternately, every other round in reverse order, so that drift of the machine affects all alike.

    Args:
        variants: by name, a function that prepares, calls `measure` and returns its usage.
        rounds: number of measurements of each.
    """
    results: dict[str, list[Usage]] = {name: [] for name in variants}
    for index in range(rounds):
        for name in list(variants) if index % 2 == 0 else list(variants)[::-1]:
            results[name].append(variants[name]())
    return results


def median(usages: Sequence[Usage]) -> Usage:
    """Median of each quantity."""
    return Usage(
        statistics.median(u.cpu_seconds for u in usages),
        statistics.median(u.wall_seconds for u in usages),
        int(statistics.median(u.peak_rss_bytes for u in usages)),
        int(statistics.median(u.largest_rss_bytes for u in usages)),
    )


def machine() -> str:
    """The machine and the relevant versions in one line, without a host name."""
    model = platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    parts = [
        model,
        f"{len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()} cores",
        f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        f"{platform.system()}, Python {platform.python_version()}",
    ]
    for package in ("torch", "ray", "acids-rave"):
        try:
            parts.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            continue
    return ", ".join(parts)


def report(
    name: str,
    rows: Sequence[Mapping[str, object]],
    ratios: Mapping[str, float],
    *,
    json: bool,
    notes: Sequence[str] = (),
) -> None:
    """Prints a benchmark's result: a Markdown table with its ratios and notes, or one JSON document.

    Args:
        name: the benchmark's name.
        rows: one mapping per row, all with the same keys; floats are shown with three significant digits.
        ratios: the results, by name.
        json: print ``{name, ratios, rows, notes, machine, date}`` instead of the table.
        notes: what was compared, repaired and counted.
    """
    date = datetime.now(UTC).date().isoformat()
    if json:
        document = {
            "name": name,
            "ratios": {key: round(value, 3) for key, value in ratios.items()},
            "rows": [dict(row) for row in rows],
            "notes": list(notes),
            "machine": machine(),
            "date": date,
        }
        print(json_module.dumps(document, indent=1))
        return
    lines = [f"## {name}", ""]
    if rows:
        lines += ["| " + " | ".join(rows[0]) + " |", "|" + "---|" * len(rows[0])]
        lines += ["| " + " | ".join(_cell(value) for value in row.values()) + " |" for row in rows]
        lines.append("")
    lines += [f"- {key}: **{value:.2f}**" for key, value in ratios.items()]
    lines += [f"- {note}" for note in notes]
    lines += ["", f"{machine()}; {date}"]
    print("\n".join(lines))


def _cell(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
