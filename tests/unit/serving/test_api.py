"""The routes over a backend that needs no Ray: what is accepted, what is refused and how."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from rave_dist.records import ConversionParameters

JOB = {"model": "rebana", "inputs": ["/archive", "s3://bucket/birds"], "output": "/converted"}


@pytest.fixture
def ask(client: Any, run: Any) -> Any:
    def ask(method: str, path: str, **options: Any) -> Any:
        async def send() -> Any:
            async with client() as http:
                return await http.request(method, path, **options)

        return run(send())

    return ask


def _error(answer: Any, status: int) -> dict[str, str]:
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"what", "where", "fix"}
    assert error["what"]
    assert error["fix"]
    return dict(error)


def test_models_are_listed_as_the_command_lists_them(ask: Any, backend: Any) -> None:
    document = ask("GET", "/v1/models").json()
    assert document == {"models": [card.summary("/store") for card in backend.cards]}
    entry = document["models"][0]
    assert entry["engine"].items() >= {"name": "acids-rave", "version": "2.3.1", "licence": "CC BY-NC 4.0"}.items()
    assert "non-commercial" in entry["engine"]["terms"]
    assert entry["files"] == dict.fromkeys(("offline", "streaming"), "/store/models/rebana/aaa/rebana.ts")
    assert ask("GET", "/v1/models/rebana").json() == entry
    assert ask("GET", "/v1/models/rebana@aaa").json() == entry


def test_unknown_model_is_404_with_the_nearest_name(ask: Any) -> None:
    assert "rebana" in _error(ask("GET", "/v1/models/rebona"), 404)["fix"]
    assert "rebana" in _error(ask("POST", "/v1/convert?model=rebona", content=b"x"), 404)["fix"]


def test_sound_reaches_the_model_whole_and_comes_back_whole(ask: Any, backend: Any) -> None:
    sound = bytes(range(256)) * 3
    answer = ask("POST", "/v1/convert?model=rebana&sample_rate=22050&channels=2&seed=7&format=wav&salvage=true", content=sound)
    assert answer.content == hashlib.sha256(sound).hexdigest().encode()
    assert answer.headers["content-type"] == "audio/flac"
    assert answer.headers["content-length"] == "64"
    assert answer.headers["x-rave-dist-model"] == "rebana@aaa"
    expected = ConversionParameters(sample_rate=22050, channels=2, format="wav", seed=7, salvage=True)
    assert backend.asked == [("rebana@aaa", expected)]


@pytest.mark.parametrize(
    ("query", "fix"),
    [
        ("", "add 'model'"),
        ("model=", "correct 'model'"),
        ("model=rebana&samplerate=44100", "did you mean 'sample_rate'?"),
        ("model=rebana&sample_rate=loud", "correct 'sample_rate'"),
        ("model=rebana&sample_rate=0", "correct 'sample_rate'"),
        ("model=rebana&channels=99", "correct 'channels'"),
        ("model=rebana&format=mp3", "correct 'format'"),
        ("model=rebana&seed=-1", "correct 'seed'"),
    ],
)
def test_wrong_parameters_are_400_with_the_fix(ask: Any, backend: Any, query: str, fix: str) -> None:
    assert fix in _error(ask("POST", f"/v1/convert?{query}", content=b"x"), 400)["fix"]
    assert not backend.asked


def test_refused_sounds_say_why_and_the_next_one_is_answered(ask: Any) -> None:
    path = "/v1/convert?model=rebana"
    assert "empty" in _error(ask("POST", path), 400)["what"]
    assert "empty" in _error(ask("POST", path, content=b""), 400)["what"]
    assert "1,000 bytes" in _error(ask("POST", path, content=b"x" * 1001), 413)["what"]
    _error(ask("POST", path, content=b"noise"), 400)
    _error(ask("POST", path, files={"file": b"x"}), 415)
    _error(ask("POST", path, content=b"x", headers={"content-encoding": "gzip"}), 415)
    assert ask("POST", path, content=b"x" * 1000).status_code == 200


def test_body_without_a_length_is_measured_while_it_arrives(ask: Any, backend: Any) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(1000):
            sent += 100
            yield b"x" * 100

    _error(ask("POST", "/v1/convert?model=rebana", content=endless()), 413)
    assert sent < 5000
    assert not backend.asked


def test_slow_body_is_given_up(ask: Any, backend: Any) -> None:
    async def slow() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.sleep(60)

    assert "0.3 seconds" in _error(ask("POST", "/v1/convert?model=rebana", content=slow()), 408)["what"]
    assert not backend.asked


def test_full_queue_is_429_and_says_when_to_come_again(ask: Any) -> None:
    answer = ask("POST", "/v1/convert?model=rebana", content=b"busy")
    _error(answer, 429)
    assert int(answer.headers["retry-after"]) > 0


def test_failure_of_the_service_is_500_in_the_same_form(ask: Any) -> None:
    _error(ask("POST", "/v1/convert?model=rebana", content=b"bug"), 500)
    assert ask("GET", "/healthz").json()["status"] == "ok"


def test_unknown_path_and_method_have_the_same_form(ask: Any) -> None:
    _error(ask("GET", "/v2/models"), 404)
    answer = ask("GET", "/v1/convert?model=rebana")
    _error(answer, 405)
    assert answer.headers["allow"] == "POST"


def test_job_is_accepted_once_and_found_again(ask: Any) -> None:
    answer = ask("POST", "/v1/jobs", json=JOB)
    assert answer.status_code == 202
    job = answer.json()
    assert (job["state"], job["model"]) == ("queued", "rebana@aaa")
    assert ask("POST", "/v1/jobs", json={**JOB, "model": "rebana@aaa"}).json()["id"] == job["id"]
    assert ask("POST", "/v1/jobs", json={**JOB, "parameters": {"seed": 1}}).json()["id"] != job["id"]
    assert ask("GET", f"/v1/jobs/{job['id']}").json() == job
    assert ask("GET", "/v1/jobs/nosuchjob").status_code == 404


@pytest.mark.parametrize(
    ("change", "fix"),
    [
        ({"inputs": []}, "inputs"),
        ({"inputs": ["relative/folder"]}, "full path"),
        ({"output": "../up"}, "full path"),
        ({"outputs": "/x"}, "did you mean 'output'?"),
        ({"parameters": {"sede": 1}}, "did you mean 'seed'?"),
        ({"parameters": {"format": "ogg"}}, "format"),
    ],
)
def test_wrong_jobs_are_400_with_the_fix(ask: Any, backend: Any, change: dict[str, Any], fix: str) -> None:
    assert fix in _error(ask("POST", "/v1/jobs", json={**JOB, **change}), 400)["fix"]
    assert not backend.jobs


def test_job_must_be_json_and_say_so(ask: Any, backend: Any) -> None:
    _error(ask("POST", "/v1/jobs", content=b"{", headers={"content-type": "application/json"}), 400)
    _error(ask("POST", "/v1/jobs", content=json.dumps(JOB), headers={"content-type": "text/plain"}), 415)
    assert not backend.jobs


@pytest.mark.parametrize(
    "headers",
    [{"host": "evil.example"}, {"host": "192.168.1.5:8000"}, {"origin": "https://evil.example"}, {"origin": "null"}],
)
def test_pages_from_elsewhere_cannot_use_it(ask: Any, headers: dict[str, str]) -> None:
    _error(ask("GET", "/v1/models", headers=headers), 403)


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost:9000", "[::1]:8000"])
def test_loopback_names_are_welcome(ask: Any, host: str) -> None:
    assert ask("GET", "/healthz", headers={"host": host, "origin": f"http://{host}"}).status_code == 200


def test_interface_describes_itself(ask: Any) -> None:
    paths = ask("GET", "/openapi.json").json()["paths"]
    assert set(paths) == {"/healthz", "/v1/models", "/v1/models/{reference}", "/v1/convert", "/v1/jobs", "/v1/jobs/{job_id}"}
    assert {p["name"] for p in paths["/v1/convert"]["post"]["parameters"]} >= {"model", "sample_rate", "channels", "seed"}
