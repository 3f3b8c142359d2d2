"""What Ray's launcher did on each host, from its log ``monitor.out``: which command it runs there, or at which one it failed.

Several hosts are set up at once, and the output of their commands has no name of a host; `tools/install.py` marks its
lines with one.
"""

from __future__ import annotations

import re
import shlex
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

OUTPUT_LINES = 12
"""Lines of output that are kept of a command."""

_COLOUR = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_RECORD = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}\t(\w+) [\w.]+:\d+ -- (.*)")
_TAG = re.compile(r"\[([\w.:-]+)\] (.*)")
_COMMANDS = ("Running `", "Full command is `")
_SHELL = re.compile(r"Full command is `(ssh .*)`", re.DOTALL)
_WRAPPED = re.compile(r"source ~/\.bashrc; export [^&]* && \((.*)\)", re.DOTALL)
_EXPORTS = re.compile(r"(?:export RAY_\w+=[^;]*;\s*)+")
_RSYNC = re.compile(r"Running `rsync .*\s(\S+) (?:[^@\s]+@)([^:\s]+):(\S+)`")
_ADDRESS = re.compile(r"Fetched IP: (\S+)")
_UPDATER = re.compile(r"NodeUpdater: (\S+): (.*?)\s*\[LogTimer=")
_TEST = "uptime"  # the command with which Ray waits for SSH


@dataclass
class Launch:
    """The latest set-up of a host.

    Attributes:
        address: of the host.
        command: the last one that was started there.
        own_output: its last lines that name the host.
        output: its last lines, of which some may be from the hosts of ``mixed_with``, where commands ran at the same time.
        ended: whether the set-up has ended.
        succeeded: whether Ray was started.
    """

    address: str
    command: str = ""
    own_output: deque[str] = field(default_factory=lambda: deque(maxlen=OUTPUT_LINES))
    output: deque[str] = field(default_factory=lambda: deque(maxlen=OUTPUT_LINES))
    mixed_with: set[str] = field(default_factory=set)
    ended: bool = False
    succeeded: bool = False

    @property
    def failed(self) -> bool:
        """Whether it ended without Ray."""
        return self.ended and not self.succeeded

    @property
    def waits_for_ssh(self) -> bool:
        """Whether no command has run there yet."""
        return self.command in ("", _TEST)

    @property
    def on_head(self) -> bool:
        """Whether it is a command of the head: the attempt to connect, or a copy."""
        return self.waits_for_ssh or self.command.startswith("rsync ")

    def start(self, command: str) -> None:
        """Begins the next command."""
        self.command, self.mixed_with = command, set()
        self.own_output.clear()
        self.output.clear()

    @property
    def said(self) -> tuple[str, ...]:
        """What the command printed at last; only lines that name the host, if there are any and others' may be among them."""
        return tuple(self.own_output if self.own_output and self.mixed_with else self.output)


def read(log: str, errors: str = "") -> dict[str, Launch]:
    """The latest launch of each host.

    Args:
        log: the text of ``monitor.out``.
        errors: the text of ``monitor.err``, with what SSH and rsync say on the head.

    Returns:
        Launches by the hosts' addresses.
    """
    launches: dict[str, Launch] = {}
    fetched: deque[str] = deque()
    addresses: dict[str, str] = {}
    for is_record, text in _entries(log):
        running = [launch for launch in launches.values() if not launch.ended]
        if not is_record:
            _keep(text, running)
        elif started := _started(text):
            address, command = started
            if address not in launches or launches[address].ended:
                launches[address] = Launch(address)
            launches[address].start(command)
        elif match := _ADDRESS.fullmatch(text):
            fetched.append(match[1])
        elif match := _UPDATER.match(text):
            host, event = match.groups()
            if event == "Got IP" and fetched:
                addresses[host] = fetched.popleft()
            launch = launches.get(addresses.get(host, host))
            if launch is not None:
                launch.succeeded = launch.succeeded or event == "Ray start commands succeeded"
                launch.ended = launch.ended or event.startswith("Applied config")
    for launch in launches.values():
        if launch.on_head and not launch.succeeded:
            launch.output.clear()
            launch.output.extend(_said_on_head(launch, errors))
    return launches


def _entries(log: str) -> Iterator[tuple[bool, str]]:
    """Records of Ray, whole, and the lines between them, which commands have printed."""
    record: list[str] | None = None
    for line in _COLOUR.sub("", log).replace("\r", "").splitlines():
        match = _RECORD.search(line)
        if match is None:
            if record is not None:
                record.append(line)
                if line.endswith("`"):
                    yield True, "\n".join(record)
                    record = None
            elif line.strip():
                yield False, line.rstrip()
            continue
        if before := line[: match.start()].strip():
            yield False, before
        text = match[2]
        if record is not None:
            yield True, "\n".join(record)
        # A command of several lines ends with its quotation mark, a traceback with the next record.
        is_open = text.startswith(_COMMANDS) and not text.endswith(("`", "as a test."))
        record = [text] if is_open or text.startswith("Full traceback") else None
        if record is None:
            yield True, text


def _started(text: str) -> tuple[str, str] | None:
    """Host and command, if this record announces one."""
    if match := _RSYNC.fullmatch(text):
        return match[2], f"rsync {match[1]} {match[3]}"
    if not (match := _SHELL.fullmatch(text)):
        return None
    words = shlex.split(match[1])
    target = next((index for index, word in enumerate(words) if "@" in word), None)
    if target is None:
        return None
    command = words[-1]
    if wrapped := _WRAPPED.fullmatch(command):
        command = wrapped[1]
    return words[target].rpartition("@")[2], _EXPORTS.sub("", command, count=1).strip()


def _keep(line: str, running: list[Launch]) -> None:
    """Gives a line of output to the host that it names, else to all that may have printed it."""
    tag = _TAG.fullmatch(line)
    for launch in running:
        if tag and tag[1] == launch.address:
            launch.own_output.append(tag[2])
            launch.output.append(tag[2])
            return
    for launch in running:
        launch.output.append(line)
        launch.mixed_with.update(other.address for other in running if other is not launch)


def _said_on_head(launch: Launch, errors: str) -> Iterable[str]:
    """What the head's SSH or rsync said at last of a host."""
    lines = _COLOUR.sub("", errors).replace("\r", "").splitlines()
    about = rf"^ssh: .*\b{re.escape(launch.address)}\b" + ("" if launch.waits_for_ssh else "|^rsync")
    return list(dict.fromkeys(line for line in lines if re.search(about, line)))[-3:]
