"""What a program, and a web address, get at the end of a command; and that nothing that goes wrong there matters to it."""

from __future__ import annotations

import json
import os
import stat
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest
from typer.testing import CliRunner

from rave_dist import on_end, pipeline
from rave_dist.checks import check_library
from rave_dist.cli import app
from rave_dist.errors import ClusterError, InUseError, LibraryError
from rave_dist.leases import hold_library
from rave_dist.library.manifest import Library, load_library
from rave_dist.on_end import notifying
from rave_dist.records import Problem
from tests.sample_records import run_record

Heard = list[tuple[str, dict[str, str], Any]]


@pytest.fixture
def server() -> Iterator[tuple[str, Heard]]:
    """A web server that notes what is posted to it; /NNN answers with that code, /moved with a redirect."""
    heard: Heard = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            heard.append((self.path, dict(self.headers), json.loads(body)))
            code = self.path.rpartition("/")[2]
            self.send_response(302 if code == "moved" else int(code) if code.isdigit() else 200)
            self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_GET(self) -> None:
            pytest.fail("only POST arrives with the summary")

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{made.server_address[1]}", heard
        made.shutdown()


def library_of(folder: Path, on_end: Any) -> Library:
    path = folder / "library.yaml"
    instruments = {name: {"sources": [f"{name}.wav"]} for name in ("tabla", "bells")}
    path.write_text(json.dumps({"name": "band", "store": "./store", "on_end": on_end, "instruments": instruments}))
    return load_library(path)


def program(folder: Path, text: str, name: str = "notify") -> str:
    path = folder / name
    path.write_text(f"#!{sys.executable}\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return f"./{name}"


NOTES = "import os, sys; open('told.json', 'w').write(sys.stdin.read()); open('how.txt', 'w').write(repr(sys.argv[1:]))"


def tell(library: Library, *, error: BaseException | None = None) -> list[str]:
    """Ends a command of one finished and one failed instrument; returns its warnings."""
    said: list[str] = []
    with notifying(library, "run", said.append) as end:
        end.begin()
        if error is not None:
            raise error
        failed = run_record(instrument="bells", state="failed", error=Problem(what="too little audio"))
        end.records, end.complete = [run_record(state="done"), failed], False
    return said


def test_a_program_gets_the_summary_and_its_arguments_without_a_shell(tmp_path: Path) -> None:
    library = library_of(tmp_path, [program(tmp_path, NOTES), "$HOME", "two words; touch shell"])
    assert tell(library) == []
    told = json.loads((tmp_path / "told.json").read_text())
    assert (tmp_path / "how.txt").read_text() == "['$HOME', 'two words; touch shell']"
    assert not (tmp_path / "shell").exists()
    assert (told["library"], told["command"], told["state"]) == ("band", "run", "partial")
    assert told["text"] == "band: 1 of 2 instruments are done; not done: bells (too little audio)"
    assert [(each["name"], each["state"]) for each in told["instruments"]] == [("tabla", "done"), ("bells", "failed")]


def test_an_address_gets_the_same(tmp_path: Path, server: tuple[str, Heard]) -> None:
    address, heard = server
    assert tell(library_of(tmp_path, f"{address}/night?key=1")) == []
    ((path, headers, told),) = heard
    assert (path, headers["Content-Type"]) == ("/night?key=1", "application/json")
    assert told["text"].startswith("band: 1 of 2 instruments are done")


def test_a_command_that_failed_is_told_too(tmp_path: Path, server: tuple[str, Heard]) -> None:
    address, heard = server
    library = library_of(tmp_path, address)
    with pytest.raises(ClusterError):
        tell(library, error=ClusterError("Ray does not answer", fix="start it"))
    with pytest.raises(KeyError):
        tell(library, error=KeyError("x"))
    assert [(told["state"], told["error"]["what"]) for _, _, told in heard] == [
        ("failed", "Ray does not answer"),
        ("failed", "KeyError: 'x'"),
    ]
    assert heard[0][2]["error"]["fix"] == "start it"


@pytest.mark.parametrize(
    ("on_end", "problem"),
    [
        (["./absent"], "there is no program './absent'"),
        (["./not-executable"], "there is no program './not-executable'"),
        (["./no-program"], "./no-program could not be run"),
        (["./fails"], "./fails ended with exit code 7: the mail server is away"),
        (["./fails", "nul\0"], "could not be run"),
        ("{server}/500", "127.0.0.1 answered 500"),
        ("{server}/secret/moved", "127.0.0.1 answered 302"),
        ("http://127.0.0.1:1/secret", "127.0.0.1 could not be reached"),
    ],
)
def test_what_goes_wrong_is_a_warning_that_keeps_the_address_secret(
    tmp_path: Path, server: tuple[str, Heard], on_end: Any, problem: str
) -> None:
    (tmp_path / "not-executable").write_text("")
    os.chmod(program(tmp_path, "", "no-program").replace(".", str(tmp_path), 1), 0o755)
    (tmp_path / "no-program").write_text("#!/absent/interpreter\n")
    program(tmp_path, "import sys; print('hello'); print('the mail server is away', file=sys.stderr); sys.exit(7)", "fails")
    if isinstance(on_end, str):
        on_end = on_end.replace("{server}", server[0])
    (warning,) = tell(library_of(tmp_path, on_end))
    assert warning.startswith("warning: on_end: ")
    assert problem in warning
    assert "secret" not in warning


def test_a_program_that_hangs_is_killed_with_what_it_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_end, "PROGRAM_SECONDS", 2.0)
    (warning,) = tell(library_of(tmp_path, ["sh", "-c", "sleep 600 & echo $$ $! > pids.txt; wait"]))
    assert "sh did not end within 2 seconds" in warning
    for number in (tmp_path / "pids.txt").read_text().split():
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(int(number))
            while process.status() != psutil.STATUS_ZOMBIE:  # until the test's own limit
                with suppress(psutil.TimeoutExpired):
                    process.wait(timeout=0.1)


def test_a_summary_larger_than_a_pipe_does_not_block_a_program_that_reads_nothing(tmp_path: Path) -> None:
    library, said = library_of(tmp_path, [program(tmp_path, "")]), list[str]()
    with notifying(library, "train", said.append) as end:
        end.begin()
        end.records = [run_record(state="failed", error=Problem(what="x" * 1000))] * 1000
    assert said == []


def test_an_interrupted_command_tells_nobody(tmp_path: Path) -> None:
    library = library_of(tmp_path, [program(tmp_path, NOTES)])
    with pytest.raises(KeyboardInterrupt):
        tell(library, error=KeyboardInterrupt())
    assert not (tmp_path / "told.json").exists()


@pytest.mark.slow
def test_train_tells_its_end_keeps_its_exit_code_and_a_refused_one_tells_nothing(tmp_path: Path) -> None:
    library = library_of(tmp_path, [program(tmp_path, NOTES + "; sys.exit(1)")])
    with hold_library(library.store, "band", "run"), pytest.raises(InUseError):
        pipeline.train(library)
    assert not (tmp_path / "told.json").exists()
    ended = CliRunner().invoke(app, ["train", str(library.path), "--json"])  # nothing is ingested
    assert ended.exit_code == 3
    assert "warning: on_end: ./notify ended with exit code 1" in ended.stderr
    told = json.loads((tmp_path / "told.json").read_text())
    assert (told["command"], told["state"]) == ("train", "partial")
    document = json.loads(ended.stdout)
    for key in ("instruments", "gpu_hours", "core_hours"):
        assert told[key] == document[key]


def test_check_names_a_program_that_this_machine_does_not_have(tmp_path: Path) -> None:
    for given, missing in (
        (["no-such-program"], True),
        (["./notify"], True),
        (["sh", "-c", "true"], False),
        ("http://x", False),
    ):
        warnings = check_library(library_of(tmp_path, given)).warnings
        assert bool(warnings) == missing
        assert all(given[0] in warning.what for warning in warnings)


@pytest.mark.parametrize(
    ("wrong", "fix"),
    [
        ("notify-send it has ended", 'write on_end: ["notify-send", "it", "has", "ended"]'),
        ("ftp://x/y", 'on_end: ["ftp://x/y"]'),
        ("https://", "on_end: "),
        ("http://example.org:port/x", "on_end: "),
        ("http://[::1/x", "on_end: "),
        (["sleep", 5], 'on_end: ["sleep", "5"]'),
        ([], 'on_end: ["./notify.sh"]'),
        ({"url": "http://x"}, 'on_end: ["./notify.sh"]'),
    ],
)
def test_anything_else_is_refused_with_how_to_write_it(tmp_path: Path, wrong: Any, fix: str) -> None:
    with pytest.raises(LibraryError, match="a list of a program and its arguments, or an http") as refused:
        library_of(tmp_path, wrong)
    assert fix in refused.value.fix
