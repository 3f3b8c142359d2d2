"""The routes over a backend that needs no Ray: what is accepted, what is refused and how."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from rave_dist.records import ConversionParameters, Problem

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
    assert document == {"models": [card.summary("/store") for card in backend.cards], "invalid": []}
    entry = document["models"][0]
    assert entry["engine"].items() >= {"name": "acids-rave", "version": "2.3.1", "licence": "CC BY-NC 4.0"}.items()
    assert "non-commercial" in entry["engine"]["terms"]
    folder = "/store/models/rebana/aaa"
    assert entry["files"] == {"offline": f"{folder}/rebana.ts", "streaming": f"{folder}/rebana_streaming.ts"}
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


def test_controls_and_treatment_are_those_of_the_command(ask: Any, backend: Any) -> None:
    query = {
        "model": "rebana",
        "noise": "0.5",
        "temperature": "0.7",
        "latent": ["1=scale:1.2", "2=bias:-0.5"],
        "denoise": "1",
        "gate": "12",
        "mix": "0.8",
        "match_loudness": "file",
    }
    answer = ask("POST", "/v1/convert", params=query, content=b"x")
    assert answer.status_code == 200, answer.text
    expected = ConversionParameters.of(
        format="flac",
        noise=0.5,
        temperature=0.7,
        latents={1: (1.2, 0.0), 2: (1.0, -0.5)},
        denoise=1,
        gate=12,
        mix=0.8,
        match_loudness="file",
    )
    assert backend.asked == [("rebana@aaa", expected)]


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("latent=99=bias:1", "use 1 to"),
        ("named=loudness=%2B1", "use --latent"),
        ("only_above=0.5", "publish"),
    ],
)
def test_what_the_model_lacks_is_refused_before_the_sound_is_received(ask: Any, backend: Any, query: str, said: str) -> None:
    assert said in _error(ask("POST", f"/v1/convert?model=rebana&{query}", content=b"x"), 400)["fix"]
    assert not backend.asked


@pytest.mark.parametrize(
    ("query", "fix"),
    [
        ("model=rebana&latent=3", "3=scale:1.2"),
        ("model=rebana&named=loud", "loudness=+0.5"),
        ("model=rebana&gate=-1", "correct 'gate'"),
        ("model=rebana&mix=nan", "correct 'mix'"),
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
    assert not backend._jobs


def test_job_must_be_json_and_say_so(ask: Any, backend: Any) -> None:
    _error(ask("POST", "/v1/jobs", content=b"{", headers={"content-type": "application/json"}), 400)
    _error(ask("POST", "/v1/jobs", content=json.dumps(JOB), headers={"content-type": "text/plain"}), 415)
    assert not backend._jobs


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
    assert set(paths["/v1/jobs/{job_id}"]) == {"get", "delete"}
    assert {p["name"] for p in paths["/v1/convert"]["post"]["parameters"]} >= {"model", "sample_rate", "channels", "seed"}


def test_routes_are_on_a_page_that_needs_no_network(ask: Any) -> None:
    page = ask("GET", "/docs").text
    schema = ask("GET", "/openapi.json").json()
    for path, operations in schema["paths"].items():
        for method in operations:
            assert f"<h2>{method.upper()} {path}</h2>" in page
    for word in ("salvage", "sample_rate", "from 8000 to 192000", "overwrite", "inputs", "application/json"):
        assert word in page
    assert "<script" not in page
    assert "http://" not in page
    assert "https://" not in page
    assert "default-src 'none'" in page


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/models/%00", 404),
        ("GET", "/v1/models/" + "a" * 5000, 404),
        ("GET", "/v1/models/rebana@" + "a" * 5000, 404),
        ("GET", "/v1/models/..%2F..%2Fetc", 404),
        ("GET", "/v1/models/", 404),
        ("POST", "/v1/convert?model=%00", 404),
        ("POST", "/v1/convert?model=" + "a" * 5000, 400),
        ("GET", "/v1/jobs/%00", 404),
        ("GET", "/v1/jobs/" + "a" * 5000, 404),
        ("DELETE", "/v1/jobs/%00", 404),
        ("DELETE", "/v1/jobs", 405),
        ("PUT", "/v1/models", 405),
        ("PATCH", "/", 405),
        ("GET", "/nothing", 404),
    ],
)
def test_paths_that_lead_nowhere_are_4xx_in_the_same_form(ask: Any, method: str, path: str, status: int) -> None:
    _error(ask(method, path, **({"content": b"x"} if method == "POST" else {})), status)


@pytest.mark.parametrize(
    "change",
    [
        {"output": "/converted\x00"},
        {"inputs": ["/archive\x00/a"]},
        {"output": "/" + "a" * 5000},
        {"model": "a" * 5000},
        {"inputs": ["relative"] * 1000},
        {"overwrite": "perhaps"},
    ],
)
def test_bad_addresses_of_a_job_are_400_and_short(ask: Any, backend: Any, change: dict[str, Any]) -> None:
    answer = ask("POST", "/v1/jobs", json={**JOB, **change})
    assert _error(answer, 400)["what"]
    assert len(answer.content) < 8000
    assert not backend._jobs


def test_broken_origin_is_refused_and_not_a_failure(ask: Any) -> None:
    _error(ask("GET", "/v1/models", headers={"origin": "http://["}), 403)


def test_store_that_is_gone_is_503_with_the_reason(ask: Any, backend: Any) -> None:
    backend.gone = True
    for path in ("/healthz", "/v1/models"):
        answer = ask("GET", path)
        assert "no such folder" in _error(answer, 503)["what"]
        assert int(answer.headers["retry-after"]) > 0


def test_invalid_cards_are_named_next_to_the_valid_ones(ask: Any, backend: Any) -> None:
    backend.invalid = (Problem(what="/store/models/x/1/card.json: not a valid ModelCard", fix="delete it"),)
    document = ask("GET", "/v1/models").json()
    assert [model["name"] for model in document["models"]] == ["rebana", "kompang"]
    assert document["invalid"] == [{"what": "/store/models/x/1/card.json: not a valid ModelCard", "fix": "delete it"}]


def test_health_is_answered_whatever_else_waits(client: Any, run: Any, backend: Any) -> None:
    async def flood() -> None:
        async with client(timeout=60) as http:
            path = "/v1/convert?model=rebana"
            waiting = [asyncio.create_task(http.post(path, content=b"wait")) for _ in range(240)]
            while backend_waits() < 240:
                await asyncio.sleep(0)
            assert (await http.get("/healthz")).json()["status"] == "ok"
            assert (await http.get("/v1/models")).status_code == 200
            assert (await http.post("/v1/jobs", json=JOB)).status_code == 202
            too_many = await http.post(path, content=b"x")
            assert "in progress" in _error(too_many, 429)["what"]
            assert too_many.headers["retry-after"] == "5"
            backend.waiting.set()
            assert {answer.status_code for answer in await asyncio.gather(*waiting)} == {200}
            assert (await http.post(path, content=b"x")).status_code == 200

    def backend_waits() -> int:
        return len(backend.waiting._waiters)

    run(flood())


def test_jobs_are_listed_and_cancelled(ask: Any) -> None:
    assert ask("GET", "/v1/jobs").json() == {"jobs": []}
    job = ask("POST", "/v1/jobs", json=JOB).json()
    assert ask("GET", "/v1/jobs").json() == {"jobs": [job]}
    assert ask("DELETE", f"/v1/jobs/{job['id']}").json()["state"] == "cancelled"
    assert ask("GET", f"/v1/jobs/{job['id']}").json()["state"] == "cancelled"
    _error(ask("DELETE", "/v1/jobs/000000000000"), 404)


def test_job_that_overwrites_is_another_job_and_equal_inputs_are_one(ask: Any) -> None:
    job = ask("POST", "/v1/jobs", json={**JOB, "inputs": ["/"] * 20}).json()
    assert job["inputs"] == ["/"]
    assert ask("POST", "/v1/jobs", json={**JOB, "inputs": ["/"]}).json()["id"] == job["id"]
    other = ask("POST", "/v1/jobs", json={**JOB, "inputs": ["/"], "overwrite": True}).json()
    assert (other["overwrite"], other["id"] == job["id"]) == (True, False)
