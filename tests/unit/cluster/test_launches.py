"""What is read from the log of Ray's launcher; its lines are those of Ray 2.60, with colours."""

from __future__ import annotations

import shlex

from rave_dist.cluster.launches import OUTPUT_LINES, read

INSTALL = "python3 ~/rave-dist/tools/install.py ~/rave-dist/.venv"
_OPTIONS = "-i ~/ray_bootstrap_key.pem -o StrictHostKeyChecking=no -o ControlPath=/tmp/ray_ssh_1/2/%C -o ConnectTimeout=120s"
_EXPORTS = "export RAY_HEAD_IP=10.0.0.1; "
_TRACEBACK = """\x1b[31mFull traceback: Traceback (most recent call last):
  File "/x/ray/autoscaler/_private/updater.py", line 172, in run
    self.do_update()
click.exceptions.ClickException: SSH command failed.
\x1b[39m"""


def _record(text: str, level: str = "INFO") -> str:
    return f"2026-11-26 15:13:47,051\t{level} updater.py:490 -- {text}\n"


def _contact(host: str, address: str) -> str:
    got = _record(f"\x1b[37mFetched IP\x1b[39m: \x1b[1m{address}\x1b[22m") + _record(
        f"NodeUpdater: {host}: Got IP  [LogTimer=0ms]"
    )
    return got + _command(address, "uptime")


def _command(address: str, command: str) -> str:
    full = f"source ~/.bashrc; export OMP_NUM_THREADS=1 PYTHONWARNINGS=ignore && ({_EXPORTS}{command})"
    ssh = f"ssh -tt {_OPTIONS} ubuntu@{address} bash --login -c -i {shlex.quote(full)}"
    running = _record(f"Running `\x1b[1m{_EXPORTS}{command}\x1b[22m\x1b[26m`", "VINFO")
    return running + _record(f"Full command is `\x1b[1m{ssh}\x1b[22m\x1b[26m`", "VVINFO")


def _copy(address: str, path: str) -> str:
    rsync = f"rsync --rsh ssh {_OPTIONS} -avz --exclude .venv --exclude *.egg-info {path} ubuntu@{address}:~/rave-dist/"
    return _record(f"Running `\x1b[1m{rsync}\x1b[22m\x1b[26m`", "VINFO")


def _failed(host: str, step: str = "Setup commands") -> str:
    return _record(f"NodeUpdater: {host}: {step} failed [LogTimer=1648ms]") + _gave_up(host)


def _gave_up(host: str) -> str:
    status = _record("\x1b[31mNew status: \x1b[1mupdate-failed\x1b[22m\x1b[26m\x1b[39m", "ERR")
    said = _record(_TRACEBACK, "ERR") + _record("\x1b[31mError message: SSH command failed.\x1b[39m", "ERR")
    return _record(f"NodeUpdater: {host}: Applied config abc  [LogTimer=2554ms]") + status + said


def _succeeded(host: str) -> str:
    started = _record(f"NodeUpdater: {host}: Ray start commands succeeded [LogTimer=8529ms]")
    return started + _record(f"NodeUpdater: {host}: Applied config abc  [LogTimer=18063ms]")


def test_a_failure_has_its_command_and_its_own_lines() -> None:
    log = _contact("a", "a") + _contact("b", "b") + _command("a", "chmod 600 ~/.rave-dist.env") + _command("a", INSTALL)
    log += _command("b", INSTALL) + "[b] PyTorch\r\n[a] PyTorch\r\nwarning of one of them\r\n[b] rave-dist and its packages\r\n"
    log += "[a] error: uv could not be installed:\r\n[a]     no space left\r\n\r\n" + _failed("a") + "[b] done\r\n"
    failed, other = (read(log)[name] for name in "ab")
    assert failed.failed
    assert failed.command == INSTALL
    assert failed.said == ("PyTorch", "error: uv could not be installed:", "    no space left")
    assert (other.failed, other.ended, other.command) == (False, False, INSTALL)
    assert other.said[-1] == "done"  # and nothing of the traceback


def test_lines_without_a_name_may_be_those_of_the_others() -> None:
    log = _contact("a", "a") + _command("a", "make data") + "alone\n"
    alone = read(log + _failed("a"))["a"]
    assert (alone.said, alone.mixed_with) == (("alone",), set())
    log += _contact("b", "b") + _command("b", "make data") + "of both\n" + _failed("a") + _failed("b")
    both = read(log)
    assert (both["a"].said, both["a"].mixed_with) == (("alone", "of both"), {"b"})
    assert (both["b"].said, both["b"].mixed_with) == (("of both",), {"a"})


def test_the_last_lines_are_kept() -> None:
    lines = "".join(f"line {index}\n" for index in range(100))
    said = read(_contact("a", "a") + _command("a", INSTALL) + lines + _failed("a"))["a"].said
    assert said == tuple(f"line {index}" for index in range(100 - OUTPUT_LINES, 100))


def test_a_start_that_fails_is_one_and_a_success_is_none() -> None:
    log = _contact("a", "a") + _command("a", "ray start") + "no such option\x1b[0m" + _failed("a", "Ray start commands")
    launch = read(log)["a"]
    assert (launch.failed, launch.command, launch.said) == (True, "ray start", ("no such option",))
    again = read(log + _contact("a", "a") + _command("a", "ray start") + "started\n" + _succeeded("a"))["a"]
    assert (again.failed, again.ended, again.succeeded) == (False, True, True)


def test_a_host_of_a_cloud_has_an_id_besides_its_address() -> None:
    launch = read(_contact("i-0abc", "10.0.0.7") + _command("10.0.0.7", INSTALL) + "broken\n" + _failed("i-0abc"))["10.0.0.7"]
    assert (launch.failed, launch.said) == (True, ("broken",))


def test_a_command_of_several_lines_is_whole() -> None:
    log = _contact("a", "a") + _command("a", "set -e\necho 'one `two`'\nfalse") + "one\n" + _failed("a")
    launch = read(log)["a"]
    assert (launch.command, launch.said) == ("set -e\necho 'one `two`'\nfalse", ("one",))


def test_ssh_and_rsync_speak_on_the_head() -> None:
    errors = "Warning: Permanently added 'a' (ED25519) to the list of known hosts.\n"
    errors += 2 * "ssh: connect to host b port 22: No route to host\r\n" + "rsync: write failed: No space left on device (28)\n"
    log = _contact("a", "a") + " 15:13:46 up 18:18\n" + _copy("a", "/home/you/rave-dist/") + "sending incremental file list\n"
    log += _contact("b", "b") + _gave_up("a")
    launches = read(log, errors)
    assert launches["a"].failed
    assert launches["a"].command == "rsync /home/you/rave-dist/ ~/rave-dist/"
    assert launches["a"].said == ("rsync: write failed: No space left on device (28)",)
    assert launches["b"].waits_for_ssh
    assert launches["b"].said == ("ssh: connect to host b port 22: No route to host",)
