"""A laptop and hosts on this machine: namespaces, each with a network, processes and folders of its own.

What is real: the network (a bridge, a wire per host), sshd, rsync, the processes of each host, which see and signal no
others, the folders ``/tmp``, ``/run``, ``/dev/shm`` and home. What stands in: all share the machine's kernel, programs and
disk; the user ``ubuntu`` has the rights of root, since the environment may be in root's home; a host's environment is this
one, on which its changes lie in memory, so that an installation finds all packages installed.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LAPTOP = "192.0.2.1"
PROGRAMS = ("setpriv", "unshare", "nsenter", "ip", "ssh", "sshd", "ssh-keygen", "rsync")
_PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
_NAMESPACES = ("--mount", "--net", "--pid", "--uts")
_UNSHARE = ("unshare", *_NAMESPACES, "--fork", "--kill-child", "--mount-proc")
_PREFIX = Path(sys.prefix)

_PRIVATE = """
set -eu
hostname {name}
ip link set lo up
mkdir -p {own}/home {own}/tmp {own}/environment
mount --bind {own}/home {home}
mount --bind {folder}/passwd /etc/passwd
mount -t tmpfs none /dev/shm
mount -t tmpfs none /run
mkdir -m 755 /run/sshd
mount -t tmpfs none {own}/environment
mkdir {own}/environment/upper {own}/environment/work
mount -t overlay none -o lowerdir={prefix},upperdir={own}/environment/upper,workdir={own}/environment/work {prefix}
for kept in {prefix} {base}; do
    case $kept in /tmp/*) mkdir -p {own}$kept; mount --rbind $kept {own}$kept;; esac
done
mount --rbind {own}/tmp /tmp
"""
_HOST = """
until ip link show eth0 >/dev/null 2>&1; do sleep 0.1; done
ip address add {address}/24 dev eth0
ip link set eth0 up
exec /usr/sbin/sshd -D -f {folder}/sshd_config
"""
_BRIDGE = """
ip link add lan type bridge
ip address add {laptop}/24 dev lan
ip link set lan up
touch {folder}/lan-is-up
while :; do sleep 1000 & wait $!; done
"""
_ATTEMPT = """
ip link add lan type bridge
mount -t tmpfs none /run
cd /run
mkdir lower upper work all
mount -t overlay none -o lowerdir=lower,upperdir=upper,workdir=work all
"""
# Nothing is downloaded: the packages are those of the environment, which also builds rave-dist.
_SSHD = """
HostKey {folder}/host_key
AuthorizedKeysFile .ssh/authorized_keys
PasswordAuthentication no
UsePAM no
PidFile none
SetEnv PIP_NO_INDEX=1 PIP_NO_BUILD_ISOLATION=0 PYTHONDONTWRITEBYTECODE=1
"""


def why_not() -> str:
    """Why this machine cannot have such hosts; empty if it can."""
    missing = [program for program in PROGRAMS if shutil.which(program, path=_PATH) is None]
    if missing:
        return f"not installed: {', '.join(missing)} (Debian: openssh-server openssh-client rsync iproute2 util-linux)"
    done = subprocess.run(
        [*_UNSHARE, "sh", "-ec", _ATTEMPT], env={**os.environ, "PATH": _PATH}, capture_output=True, text=True, check=False
    )
    return f"namespaces are not allowed here ({done.stderr.strip() or done.returncode})" if done.returncode else ""


def _wait_for(holds: Callable[[], Any], what: str) -> Any:
    until = time.monotonic() + 120
    while not (found := holds()):
        if time.monotonic() > until:
            raise AssertionError(f"did not start: {what}")
        time.sleep(0.05)
    return found


def _first_child(process: int, *, generations: int) -> int:
    """A process that this one starts, for example in new namespaces."""
    for _ in range(generations):
        children = Path(f"/proc/{process}/task/{process}/children")
        process = int(_wait_for(children.read_text, "the namespaces").split()[0])
    return process


@dataclass
class SeparateHosts:
    """The laptop and the hosts; `close` ends all of their processes.

    Attributes:
        folder: for everything; not in ``/tmp``, which each host has for itself.
        addresses: of the hosts, in 192.0.2.0/24.
    """

    folder: Path
    addresses: tuple[str, ...]
    _laptop: int = 0
    _hosts: dict[str, int] = field(default_factory=dict)
    _processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def home(self) -> Path:
        """The home folder, the same path on all of them."""
        return self.folder / "home"

    @property
    def running(self) -> tuple[str, ...]:
        """Addresses of the hosts that have power."""
        return tuple(self._hosts)

    def own(self, name: str) -> Path:
        """Where the folders of the laptop or of a host are, seen from outside."""
        return self.folder / name

    def start(self) -> None:
        """Starts the laptop, with a key, and the hosts, which accept it."""
        self.home.mkdir()
        passwd = Path("/etc/passwd").read_text()
        (self.folder / "passwd").write_text(f"ubuntu:x:0:0::{self.home}:/bin/bash\n{passwd}")
        (self.folder / "sshd_config").write_text(_SSHD.format(folder=self.folder))
        key = self.own("laptop") / "home" / ".ssh" / "id_ed25519"
        key.parent.mkdir(parents=True, mode=0o700)
        for file in (key, self.folder / "host_key"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(file)], check=True)
        self._laptop = self._enter([], "laptop", _BRIDGE.format(laptop=LAPTOP, folder=self.folder), generations=1)
        _wait_for(lambda: (self.folder / "lan-is-up").exists(), "the laptop")
        for address in self.addresses:
            ssh = self.own(address) / "home" / ".ssh"
            ssh.mkdir(parents=True, mode=0o700)
            shutil.copy(key.with_suffix(".pub"), ssh / "authorized_keys")
            # As on Debian, Ray's shells read it; the interpreter is the one of the environment.
            (ssh.parent / ".bashrc").write_text(f"PATH={sys.base_prefix}/bin:$PATH\n")
            (ssh.parent / "rave-dist").mkdir()
            (ssh.parent / "rave-dist" / ".venv").symlink_to(_PREFIX)
            self.boot(address)

    def boot(self, address: str) -> None:
        """Starts a host, whose disk is as it was left."""
        script = _HOST.format(address=address, folder=self.folder)
        host = self._enter(self._inside(self._laptop), f"host-{address.rpartition('.')[2]}", script, generations=2, own=address)
        wire = f"to-{address}"
        inside = ["nsenter", "--target", str(self._laptop), "--net", "ip", "link"]
        for command in (
            ("add", wire, "type", "veth", "peer", "name", "eth0", "netns", str(host)),
            ("set", wire, "master", "lan"),
            ("set", wire, "up"),
        ):
            subprocess.run([*inside, *command], env={**os.environ, "PATH": _PATH}, check=True)
        self._hosts[address] = host

    def lose(self, address: str) -> None:
        """Takes a host's power away."""
        os.kill(self._hosts.pop(address), signal.SIGKILL)

    def processes(self, address: str, pattern: str) -> list[str]:
        """The commands of a host's processes that contain a text."""
        listed = subprocess.run(
            [*self._inside(self._hosts[address]), "ps", "-eo", "args", "ww"], capture_output=True, text=True, check=True
        ).stdout
        return [line for line in listed.splitlines()[1:] if pattern in line]

    def command(self, command: str, **environment: str) -> list[str]:
        """The arguments of a command of the laptop's shell, in a folder with this code."""
        values = {"HOME": str(self.home), "PATH": f"{_PREFIX}/bin:{_PATH}", "USER": "ubuntu", **environment}
        shell = f"cd {self.home}/rave-dist && {command}"
        return [*self._inside(self._laptop), "env", "-i", *(f"{k}={v}" for k, v in values.items()), "bash", "-c", shell]

    def run(self, command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Runs a command of the laptop's shell."""
        return subprocess.run(self.command(command, **environment), capture_output=True, text=True, check=False)

    def keep_running(self, command: str) -> None:
        """Starts a command of the laptop's shell that runs until the end."""
        with open(self.folder / "laptop.log", "ab") as log:
            arguments = self.command(f"exec {command}")
            self._processes.append(subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log))

    def close(self) -> None:
        """Ends all processes, and removes all folders."""
        for address in self.running:
            self.lose(address)
        if self._laptop:
            os.kill(self._laptop, signal.SIGKILL)
        for process in self._processes:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    @staticmethod
    def _inside(process: int) -> list[str]:
        return ["nsenter", "--target", str(process), *_NAMESPACES]

    def _enter(self, outside: list[str], name: str, script: str, *, generations: int, own: str | None = None) -> int:
        """Starts a shell with private folders in new namespaces; its process id, seen from outside."""
        private = _PRIVATE.format(
            name=name,
            own=shlex.quote(str(self.own(own or name))),
            folder=self.folder,
            home=self.home,
            prefix=_PREFIX,
            base=sys.base_prefix,
        )
        with open(self.folder / f"{name}.log", "ab") as log:
            self._processes.append(
                subprocess.Popen(
                    ["setpriv", "--pdeathsig", "KILL", *outside, *_UNSHARE, "bash", "-c", private + script],
                    env={**os.environ, "PATH": _PATH},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
            )
        return _first_child(self._processes[-1].pid, generations=generations)
