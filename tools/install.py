"""Makes a virtual environment and installs rave-dist into it: ``python3 tools/install.py FOLDER [dev]``.

Uses the standard library only. ``dev`` adds the packages of the tests.

PyTorch is installed first, in the build for this machine: uv selects one of PyTorch's own indexes by the card's driver. If
they cannot be reached, pip installs the build of its index; on PyPI that is the one with CUDA. Everything else is installed by
pip, so that the user's settings of pip (mirrors, certificates, local wheels) apply.

acids-rave is installed without its dependencies: see pyproject.toml.
"""

# Readable for older versions of Python too, which then get the line that says what is needed.
from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

OLDEST, NEWEST = (3, 11), (3, 14)
ROOT = Path(__file__).resolve().parents[1]
CONSTRAINTS = ["--constraint", str(ROOT / "constraints.txt")]
LARGE = re.compile(r"Downloading (?:\S*/)?(\S+?)-\d\S* \((\d{3,}\.\d MB|[4-9]\d\.\d MB|\d\S* GB)\)")

WHAT_HAPPENS = """\
Installing rave-dist into {folder} with Python {version}.
  without an NVIDIA card: 0.7 GB to download, 2.6 GB on disk, 4 minutes on a fast line
  with one:               3.3 GB to download, 6.5 GB on disk, 6 minutes on a fast line
A second set-up takes the downloads from the cache. To choose the build of PyTorch: make setup TORCH=cpu, or TORCH=cu130."""

WITHOUT_PYTORCH_INDEX = """\
  PyTorch's own index did not serve ({reason}).
  PyTorch is now installed from pip's index; PyPI has the build for NVIDIA cards (2.5 GB more), which also runs without one."""


def mark() -> str:
    """A mark for lines of this host, if `ray up` runs this on a worker: the head's log has those of all workers."""
    connection = os.environ.get("SSH_CONNECTION", "").split()
    return f"[{connection[2]}] " if "RAY_HEAD_IP" in os.environ and len(connection) == 4 else ""


def say(message: str) -> None:
    """Prints a message at once."""
    print("\n".join(mark() + line for line in message.splitlines()), flush=True)


def fail(message: str) -> None:
    """Ends the program with an error message."""
    sys.exit("\n".join(mark() + line for line in f"error: {message}".splitlines()))


def run(command: list[str]) -> list[str] | None:
    """Runs pip or uv, printing large downloads and a sign of life every 30 s; returns its output if it fails."""
    done = threading.Event()

    def say_so() -> None:
        began = time.monotonic()
        while not done.wait(30):
            say(f"  running for {time.monotonic() - began:.0f} s")

    threading.Thread(target=say_so, daemon=True).start()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        large = LARGE.search(line)
        if large:
            say(f"  downloading {large[1]}, {large[2]}")
        elif line.startswith("Installing collected packages") and "," in line:
            say(f"  unpacking {line.count(',') + 1} packages")
    done.set()
    return (lines or ["no output"]) if process.wait() else None


def must(command: list[str], what: str) -> None:
    """Runs pip or uv; ends the program with its last lines if it fails."""
    lines = run(command)
    if lines:
        fail(f"{what} could not be installed:\n" + "".join(lines[-20:]))


def make_environment(folder: Path) -> str:
    """Makes the environment if necessary; returns its Python."""
    if not OLDEST <= sys.version_info[:2] <= NEWEST:
        have, span = "{}.{}".format(*sys.version_info), "{}.{} to {}.{}".format(*OLDEST, *NEWEST)
        fail(f"this is Python {have}; rave-dist needs {span}: make setup PYTHON=python3.13")
    if not (importlib.util.find_spec("venv") and importlib.util.find_spec("ensurepip")):
        fail("Python's venv module is missing; on Debian and Ubuntu: apt-get install python3-venv")
    python = folder / "bin" / "python"
    if not python.exists():
        say(f"Making {folder}")
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    return str(python)


def install_torch(python: str, pip: list[str]) -> None:
    """Installs PyTorch unless the environment already has the pinned version."""
    pinned = re.search(r"^torch==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned is not None
    ask = f"from importlib.metadata import version; import sys; sys.exit(version('torch').split('+')[0] != '{pinned[1]}')"
    if subprocess.run([python, "-c", ask], stderr=subprocess.DEVNULL).returncode == 0:
        return
    say("PyTorch")
    must([*pip, "uv"], "uv")
    uv = [str(Path(python).with_name("uv")), "pip", "install", "--python", python, *CONSTRAINTS, "--torch-backend"]
    asked = os.environ.get("TORCH")
    if asked:
        must([*uv, asked, "torch", "torchaudio"], f"the build {asked!r} of PyTorch")
        return
    lines = run([*uv, "auto", "torch", "torchaudio"])
    if lines:
        say(WITHOUT_PYTORCH_INDEX.format(reason=" ".join(lines[0].split())))
        must([*pip, "torch", "torchaudio"], "PyTorch")


def main(folder: Path, *extras: str) -> None:
    """Installs all packages into an environment."""
    python = make_environment(folder)
    say(WHAT_HAPPENS.format(folder=folder, version=sys.version.split()[0]))
    pip = [python, "-m", "pip", "install", "--disable-pip-version-check", "--progress-bar", "off", *CONSTRAINTS]
    install_torch(python, pip)
    say("rave-dist and its packages")
    must([*pip, "--editable", f"{ROOT}[{','.join(extras)}]" if extras else str(ROOT)], "the packages")
    must([*pip, "--no-deps", "acids-rave"], "acids-rave")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
