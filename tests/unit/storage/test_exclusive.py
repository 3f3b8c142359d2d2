"""Exclusive creation where hard links are refused: one winner, whole content, and no crash that blocks or tears."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rave_dist.errors import StoreError
from rave_dist.storage.store import Store
from tests.file_systems import exfat, missing_for_exfat

ROOT = Path(__file__).parents[3]
WITHOUT_LINKS = """
import os, sys
from pathlib import Path
from rave_dist.storage.store import Store
from file_systems import forbid_hard_links
forbid_hard_links(int(sys.argv[1]))
store = Store(sys.argv[2])
"""

pytestmark = pytest.mark.slow


def python(code: str, *arguments: object, **options: object) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    command = [sys.executable, "-c", WITHOUT_LINKS + code, *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options)  # type: ignore[call-overload,no-any-return]


def answer(process: subprocess.Popen[str], said: str = "") -> str:
    out, _ = process.communicate(said, timeout=60)
    assert process.returncode == 0
    return out.strip()


@pytest.fixture(params=["linkless", "exfat"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A folder for a store: of any file system, in processes whose kernel refuses hard links; and one of a real exFAT."""
    if request.param == "linkless":
        yield tmp_path / "store"
    elif missing := missing_for_exfat():
        pytest.skip(missing)
    else:
        with exfat(tmp_path) as mounted:
            yield mounted / "store"


@pytest.mark.parametrize("error", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS])
def test_the_first_wins_and_the_second_changes_nothing(error: int, tmp_path: Path) -> None:
    said = answer(
        python(
            "try: os.link(sys.executable, sys.argv[2] + '-link')\n"
            "except OSError as error: refused = error.errno\n"
            "print(refused, store.claim('a/k', b'first'), store.claim('a/k', b'second'), store.read_bytes('a/k'))",
            error,
            tmp_path / "store",
        )
    )
    assert said == f"{error} True False b'first'"
    assert [entry.key for entry in Store(str(tmp_path / "store")).list()] == ["a/k"]


def test_eight_processes_have_one_winner_and_its_content(place: Path) -> None:
    rounds = 6
    code = (
        "sys.stdin.readline()\n"
        f"print(*[int(store.claim(f'claims/{{n}}', sys.argv[3].encode() * 5000)) for n in range({rounds})])"
    )
    processes = [python(code, errno.EPERM, place, number) for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        won = [[int(word) for word in said.split()] for said in pool.map(lambda p: answer(p, "go\n"), processes)]
    store = Store(str(place))
    for attempt in range(rounds):
        winners = [number for number in range(8) if won[number][attempt]]
        assert len(winners) == 1
        assert store.read_bytes(f"claims/{attempt}") == str(winners[0]).encode() * 5000
    assert len(list(store.list("claims"))) == rounds


KILLED_AT = """
import signal
wanted, seen = sys.argv[3], 0
def die(event, arguments):
    # The audit events of open, os.link, os.rename and fcntl.flock come before the system call.
    if event == wanted and str(Path(sys.argv[2])) in str(arguments) or event == wanted == "fcntl.flock":
        os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(die)
store.claim("k", b"of the dead" * 1000)
"""


@pytest.mark.parametrize("event", ["os.mkdir", "open", "os.link", "fcntl.flock", "os.rename", "os.remove"])
def test_a_claimer_killed_at_any_call_neither_blocks_nor_tears(event: str, place: Path) -> None:
    dead = python(KILLED_AT, errno.EPERM, place, event)
    dead.communicate(timeout=60)
    assert dead.returncode == -signal.SIGKILL, f"{event} never happened"
    code = "print(store.claim('k', b'of the living'), store.read_bytes('k')[:13])"
    expected = "True b'of the living'" if event != "os.remove" else "False b'of the deadof'"
    assert answer(python(code, errno.EPERM, place)) == expected
    assert [entry.key for entry in Store(str(place)).list()] == ["k"]


def test_a_claimer_killed_with_the_lock_in_hand_releases_it(place: Path) -> None:
    code = (
        "from rave_dist.storage.exclusive import _locked\n"
        "Path(sys.argv[2]).mkdir()\n"
        "with _locked(Path(sys.argv[2])):\n    print('held', flush=True)\n    sys.stdin.readline()"
    )
    holder = python(code, errno.EPERM, place)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    waiting = python("print('asks', flush=True)\nprint(store.claim('k', b'v'))", errno.EPERM, place)
    assert waiting.stdout is not None
    assert waiting.stdout.readline() == "asks\n"
    holder.kill()
    holder.communicate()
    assert waiting.stdout.read() == "True\n"
    waiting.communicate()


def test_exfat_takes_all_that_a_store_does(tmp_path: Path) -> None:
    if missing := missing_for_exfat():
        pytest.skip(missing)
    with exfat(tmp_path) as mounted:
        store = Store(str(mounted / "new" / "store"))
        store.check_writable()
        assert list(mounted.iterdir()) == [], "the check left something"
        assert (store.free_bytes() or 0) < 64 << 20
        with pytest.raises(StoreError, match=r"about 1\.0 GiB are needed, but \d+ MiB are free"):
            store.check_writable(needed_bytes=1 << 30)

        store.write_bytes("Žluťoučký/kůň – 鳥.json", b"1")
        store.write_bytes("Žluťoučký/kůň – 鳥.json", b"2")
        assert store.read_bytes("Žluťoučký/kůň – 鳥.json") == b"2"
        assert store.claim("models/Rebana/card.json", b"one")
        assert not store.claim("models/REBANA/CARD.json", b"two"), "names without case are one name"
        assert store.read_bytes("models/rebana/card.json") == b"one"
        with pytest.raises(StoreError) as caught:
            store.write_bytes("take: one?.json", b"")
        assert caught.value.where.endswith("take: one?.json")
        assert "name" in caught.value.what
        assert caught.value.fix
        store.delete_folder("models")
        assert [entry.key for entry in store.list()] == ["Žluťoučký/kůň – 鳥.json"]

        stores = [Store(store.uri) for _ in range(8)]
        start = threading.Barrier(8)

        def claim(writer: int) -> bool:
            start.wait()
            return stores[writer].claim("claimed", str(writer).encode())

        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(claim, range(8)))
        assert won.count(True) == 1
        assert store.read_bytes("claimed") == str(won.index(True)).encode()
