"""Runs the quick tests on a second Python: ``.venv/bin/python .ci/second_python.py``.

That is another supported Python of this machine or, if there is none and we are root on Debian, that of Debian 13 in a root
made by debootstrap. If neither is available, a banner says so and the exit code is 0.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SUPPORTED = ("3.13", "3.12", "3.14", "3.11")
DEBIAN = Path("/var/tmp/rave-dist-debian-13")
PACKAGES = "ca-certificates,git,make,python3,python3-venv"
# Settings of the machine's package index, which the other root needs too.
NETWORK = ("PIP_", "UV_", "SSL_CERT_", "REQUESTS_CA_", "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "no_proxy")
CERTIFICATES = Path("etc/ssl/certs/ca-certificates.crt")


def run(*command: str | Path) -> None:
    """Runs a command in the repository; raises if it fails."""
    print("+", *command, flush=True)
    subprocess.run(command, cwd=ROOT, check=True)


def other_python() -> str | None:
    """A supported Python of another version than the environment's: on the PATH, or one of pyenv's."""
    mine = "{}.{}".format(*sys.version_info)
    pyenv = subprocess.run(["pyenv", "root"], capture_output=True, text=True).stdout.strip() if shutil.which("pyenv") else ""
    for version in SUPPORTED:
        found = [str(path) for path in Path(pyenv, "versions").glob(f"{version}.*/bin/python")] if pyenv else []
        ask = "import ensurepip, sys; print('{}.{}'.format(*sys.version_info))"
        for python in (f"python{version}", *found):
            # A name on the PATH may be a shim of a version manager without that Python.
            if version != mine and shutil.which(python):
                answer = subprocess.run([python, "-c", ask], capture_output=True, text=True)
                if answer.returncode == 0 and answer.stdout.strip() == version:
                    return python
    return None


def test_here(python: str) -> None:
    """Makes a second environment with uv, which is faster than pip, and runs the tests."""
    folder = ROOT / ".venv-second"
    uv = Path(sys.executable).with_name("uv")
    install = [uv, "pip", "install", "--python", folder, "--constraint", "constraints.txt"]
    run(uv, "venv", "--clear", "--python", python, folder)
    run(*install, "--editable", ".[dev]")
    run(*install, "--no-deps", "acids-rave")
    (folder / ".installed").touch()
    run("make", "quick", f"VENV={folder.name}")


def can_make_debian() -> bool:
    """Whether debootstrap is installed and may make a Debian root."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        return False
    if not shutil.which("debootstrap"):
        subprocess.run(["apt-get", "install", "-qq", "-y", "--no-install-recommends", "debootstrap"], stdout=subprocess.DEVNULL)
    return bool(shutil.which("debootstrap") and shutil.which("unshare"))


def test_in_debian() -> None:
    """Sets up and tests a copy of the tracked files in Debian 13, as a user would; mounts are private to this process."""
    if not (DEBIAN / "usr/bin/python3").exists():
        run("debootstrap", "--variant=minbase", f"--include={PACKAGES}", "trixie", DEBIAN)
    for file in (Path("etc/resolv.conf"), Path("etc/hosts"), CERTIFICATES):
        shutil.copyfile(Path("/") / file, DEBIAN / file)
    inner_cache, copy = DEBIAN / "root/.cache", DEBIAN / "srv/rave-dist"
    for folder in (inner_cache, copy):
        folder.mkdir(parents=True, exist_ok=True)
    cache = Path.home() / ".cache"
    cache.mkdir(exist_ok=True)
    run("bash", "-o", "pipefail", "-c", f"git ls-files -z | tar -c --null -T - | tar -x -C {copy}")
    kept = [f"{name}={value}" for name, value in os.environ.items() if name.startswith(NETWORK)]
    inside = "cd /srv/rave-dist && make quick"
    mounts = f"mount -t proc proc {DEBIAN}/proc && mount --rbind /dev {DEBIAN}/dev && mount --bind {cache} {inner_cache}"
    environment = ["env", "-i", "HOME=/root", "LANG=C.UTF-8", "PATH=/usr/bin:/bin:/usr/sbin:/sbin", *kept]
    chroot = ["chroot", str(DEBIAN), *environment, "bash", "-c", inside]
    run("unshare", "--mount", "--propagation", "private", "bash", "-c", f'{mounts} && exec "$@"', "bash", *chroot)


def main() -> None:
    """Runs the quick tests on a second Python if possible."""
    if python := other_python():
        test_here(python)
    elif can_make_debian():
        test_in_debian()
    else:
        line = "=" * 100
        print(f"{line}\nNOT RUN: the quick tests on a second Python: this machine has one and cannot make another\n{line}")


if __name__ == "__main__":
    main()
