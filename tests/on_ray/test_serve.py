"""The service on Ray: the command's samples, many requests over more models than fit, and refusals that stop nothing."""

from __future__ import annotations

import io
import os
import select
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile
import torch
from ray import serve

from rave_dist.conversion.corpus import plan_conversion
from rave_dist.conversion.on_ray import convert_corpus
from rave_dist.identity import hash_file
from rave_dist.records import ModelCard, ModelFile
from rave_dist.records.conversion_options import ConversionOptions
from rave_dist.serving.app import build
from rave_dist.serving.schema import Limits
from rave_dist.storage.store import Store
from tests.marked_command import READY_SECONDS
from tests.ports import free_port
from tests.sample_records import model_card
from tests.scripted_models import Quiet

LIMITS = Limits(body_bytes=2_000_000, sound_seconds=5.0, model_samples=8 * 5 * 44_100, queued=64)
NAMES = ("rebana", "kompang", "gamelan", "suling")


@dataclass(frozen=True)
class Service:
    store: Store
    cards: dict[str, ModelCard]
    http: httpx.Client

    def convert(self, sound: bytes, **query: Any) -> httpx.Response:
        return self.http.post("/v1/convert", params=query, content=sound)

    def assert_healthy(self) -> None:
        answer = self.http.get("/healthz")
        assert (answer.status_code, answer.json().get("status")) == (200, "ok"), answer.text


@pytest.fixture(scope="module")
def service(ray_session: None, s3_server: str, tiny_models: Any) -> Iterator[Service]:
    """Four models on S3, of which two fit."""
    store = Store(f"s3://rave-dist-tests/{uuid.uuid4().hex[:12]}")
    cards = {name: model.publish(store, name) for name, model in zip(NAMES, tiny_models, strict=True)}
    port = free_port()
    serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": port})
    try:
        serve.run(build(store.uri, limits=LIMITS, max_models=2), name="rave-dist", route_prefix="/")
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120, trust_env=False) as http:
            yield Service(store, cards, http)
    finally:
        serve.shutdown()


def _sound(*, seconds: float = 0.5, rate: int = 44100, channels: int = 1, seed: int = 0, **options: Any) -> bytes:
    samples = 0.2 * np.random.default_rng(seed).standard_normal((int(rate * seconds), channels))
    file = io.BytesIO()
    soundfile.write(file, samples, rate, **{"format": "WAV", "subtype": "PCM_16", **options})
    return file.getvalue()


def _error(answer: httpx.Response, status: int) -> str:
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error["what"]
    assert error["fix"]
    return str(error["what"])


SOUNDS: dict[str, Callable[[], bytes]] = {
    "mono.wav": lambda: _sound(seconds=3),
    "stereo 24 bit.wav": lambda: _sound(rate=48000, channels=2, subtype="PCM_24"),
    "speech.ogg": lambda: _sound(rate=16000, format="OGG", subtype="VORBIS"),
}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"noise": 0.5, "temperature": 0.7, "latent": ["1=scale:1.2,bias:-0.1"], "denoise": 1.0, "mix": 0.8, "gate": 3.0},
        {"match_loudness": "call", "skip_silence": -60.0, "latent_noise": 0.3},
    ],
    ids=["plain", "changed", "matched"],
)
def test_served_conversion_is_the_commands_sample_for_sample(service: Service, tmp_path: Path, options: dict[str, Any]) -> None:
    recordings = tmp_path / "recordings"
    recordings.mkdir()
    for name, make in SOUNDS.items():
        (recordings / name).write_bytes(make())
    card = service.cards["rebana"]
    parameters = ConversionOptions(format="flac", **options).parameters()
    record = convert_corpus(service.store, plan_conversion(card, [str(recordings)], str(tmp_path / "out"), parameters))
    assert record.converted == len(SOUNDS)
    for name in SOUNDS:
        answer = service.convert((recordings / name).read_bytes(), model=card.reference, **options)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "audio/flac"
        _assert_same(answer.content, tmp_path / "out" / Path(name).with_suffix(".flac"))


def _assert_same(served: bytes, path: Path) -> None:
    one, other = soundfile.SoundFile(io.BytesIO(served)), soundfile.SoundFile(path)
    for fact in ("samplerate", "channels", "frames", "format", "subtype"):
        assert getattr(one, fact) == getattr(other, fact)
    samples = one.read(dtype="int32")
    np.testing.assert_array_equal(samples, other.read(dtype="int32"))
    assert np.abs(samples).max() > 1e-3 * 2**31, "there is something to hear"


def test_forty_requests_at_once_over_four_models_of_which_two_fit(service: Service) -> None:
    sound = _sound()
    expected = {name: service.convert(sound, model=name).content for name in NAMES}
    assert len(set(expected.values())) == 4
    order = [NAMES[i] for i in np.random.default_rng(1).permutation(40) % 4]
    with ThreadPoolExecutor(40) as threads:
        answers = list(threads.map(lambda name: service.convert(sound, model=name), order))
    assert [a.status_code for a in answers] == [200] * 40
    for name, answer in zip(order, answers, strict=True):
        assert answer.headers["x-rave-dist-model"] == service.cards[name].reference
        assert answer.content == expected[name]


def test_refused_requests_say_why_and_the_next_one_is_answered(service: Service) -> None:
    good = _sound()
    expected = service.convert(good, model="suling").content

    def still_answers() -> None:
        answer = service.convert(good, model="suling")
        assert answer.status_code == 200
        assert answer.content == expected

    assert "larger" in _error(service.convert(bytes(2_000_001), model="suling"), 413)
    still_answers()
    pieces = (bytes(100_000) for _ in range(25))  # without a Content-Length
    assert "larger" in _error(service.convert(pieces, model="suling"), 413)  # type: ignore[arg-type]
    still_answers()
    assert "empty" in _error(service.convert(b"", model="suling"), 400)
    assert "longer" in _error(service.convert(_sound(seconds=6, format="FLAC"), model="suling"), 413)
    many = _sound(seconds=1, rate=8000, channels=64)
    assert "64, which are allowed for 0.625 seconds" in _error(service.convert(many, model="suling", format="wav"), 413)
    text = service.convert(b"not a sound" * 100, model="suling")
    assert "not a recording" in _error(text, 400)
    assert text.json()["error"]["fix"].startswith("send a recording"), "and not: salvage it"
    cut = _sound(seconds=2)[:100_000]
    assert "truncated" in _error(service.convert(cut, model="suling"), 400)
    assert "suling" in service.convert(good, model="sulin").json()["error"]["fix"]
    _error(service.convert(good, model="sulin"), 404)
    _error(service.convert(good, model="suling@fff"), 404)
    _error(service.convert(good, model="suling", channels=0), 400)
    wide = service.convert(_sound(seconds=0.1, channels=9), model="suling")
    assert "8 channels" in _error(wide, 400)
    assert "WAV" in wide.json()["error"]["fix"]
    still_answers()
    salvaged = service.convert(cut, model="suling", salvage=True)
    assert salvaged.status_code == 200
    assert "truncated" in salvaged.headers["x-rave-dist-salvaged"]
    assert 0 < len(soundfile.read(io.BytesIO(salvaged.content))[0]) < 44100 * 2


def test_a_silent_result_says_so(service: Service, tmp_path: Path) -> None:
    path = tmp_path / "quiet.ts"
    torch.jit.script(Quiet().eval()).save(str(path))
    file = ModelFile(key="models/quiet/1/quiet.ts", sha256=hash_file(path), bytes=path.stat().st_size)
    card = model_card(name="quiet", version="1", sample_rate=16000, hop=64, receptive_field=(0, 0), files={"offline": file})
    service.store.upload(path, file.key)
    card.save(service.store, card.folder.card)
    answer = service.convert(_sound(), model="quiet@1")
    assert answer.status_code == 200, answer.text
    assert "the output is silent" in answer.headers["x-rave-dist-silent"]
    assert "x-rave-dist-silent" not in service.convert(_sound(), model="suling").headers
    service.store.delete(card.folder.card)


def test_client_that_hangs_up_does_not_hold_the_device(service: Service) -> None:
    expected = service.convert(_sound(), model="gamelan").content
    long = _sound(seconds=4.9, rate=8000, channels=8)
    address = (str(service.http.base_url.host), int(service.http.base_url.port or 80))
    head = f"POST /v1/convert?model=gamelan HTTP/1.1\r\nHost: {address[0]}\r\nContent-Length: {len(long)}\r\n\r\n".encode()
    for sent in (head, head + long[:1000], head + long):
        with socket.create_connection(address, timeout=60) as client:
            client.sendall(sent)
    assert service.convert(_sound(), model="gamelan").content == expected


def test_uploads_that_never_end_delay_nothing_else(service: Service) -> None:
    address = (str(service.http.base_url.host), int(service.http.base_url.port or 80))
    head = f"POST /v1/convert?model=gamelan HTTP/1.1\r\nHost: {address[0]}\r\nContent-Length: 1000000\r\n\r\n".encode()
    with ExitStack() as stack:
        uploads = [stack.enter_context(socket.create_connection(address, timeout=60)) for _ in range(240)]
        for upload in uploads:
            upload.sendall(head + bytes(1000))
        service.assert_healthy()
        assert len(service.http.get("/v1/models").json()["models"]) >= len(NAMES)
        refused: set[socket.socket] = set()
        while len(refused) < 240 - LIMITS.uploads:
            answered = select.select([upload for upload in uploads if upload not in refused], [], [], 60)[0]
            assert answered, "no further upload is answered"
            for upload in answered:
                assert b" 429 " in upload.recv(100)
                refused.add(upload)
        service.assert_healthy()
    while (answer := service.convert(_sound(), model="gamelan")).status_code == 429:
        time.sleep(0.1)  # closed connections are noticed a moment later
    assert answer.status_code == 200


def test_models_are_listed_and_new_ones_appear(service: Service, tiny_models: Any) -> None:
    listed = service.http.get("/v1/models").json()["models"]
    assert [m["name"] for m in listed] == sorted(NAMES)
    assert service.http.get("/v1/models/kompang").json() == service.cards["kompang"].summary(service.store.uri)
    _error(service.convert(_sound(), model="angklung"), 404)
    tiny_models[2].publish(service.store, "angklung")
    assert service.convert(_sound(), model="angklung").content != b""
    assert service.http.get("/v1/models/angklung").status_code == 200


def test_corpus_job_is_run_and_asked_for_again_resumes(service: Service, tmp_path: Path) -> None:
    recordings, output = tmp_path / "recordings", tmp_path / "out"
    recordings.mkdir()
    for name, make in SOUNDS.items():
        (recordings / name).write_bytes(make())
    (recordings / "notes.wav").write_text("not a sound")
    parameters = {"sample_rate": 32000, "channels": 2, "format": "wav", "seed": 5}
    asked = {"model": "rebana", "inputs": [str(recordings)], "output": str(output), "parameters": parameters}

    inside = _finished(service, {**asked, "output": str(recordings / "out")})
    assert inside["state"] == "failed"
    assert "OUTPUT is inside the input" in inside["error"]["what"]
    nothing = _finished(service, {**asked, "inputs": [str(tmp_path / "nothing")]})
    assert (nothing["state"], nothing["error"]["fix"] != "") == ("failed", True)
    _error(service.http.post("/v1/jobs", json={**asked, "model": "nobody"}), 404)
    for protected in (service.store.uri, f"{service.store.uri}/models", "/etc"):
        _error(service.http.post("/v1/jobs", json={**asked, "output": protected}), 400)

    first = _finished(service, asked)
    assert (first["state"], first["model"]) == ("partial", service.cards["rebana"].reference)
    assert (first["result"]["converted"], first["done"], first["total"]) == (3, 4, 4)
    assert [Path(item["source"]).name for item in first["result"]["failed"]] == ["notes.wav"]
    served = service.convert((recordings / "mono.wav").read_bytes(), model="rebana", **parameters)
    _assert_same(served.content, output / "mono.wav")

    (recordings / "notes.wav").unlink()
    again = _finished(service, asked)
    assert (again["id"], again["state"]) == (first["id"], "done")
    assert (again["result"]["converted"], again["result"]["skipped"]) == (0, 3)


def test_jobs_over_the_whole_disk_freeze_nothing_and_are_cancelled(service: Service, tmp_path: Path) -> None:
    asked = {"model": "rebana", "inputs": ["/"] * 20, "parameters": {"salvage": True}}
    accepted = [service.http.post("/v1/jobs", json={**asked, "output": str(tmp_path / f"out{n}")}) for n in range(8)]
    assert [answer.status_code for answer in accepted] == [202] * 8
    service.assert_healthy()
    assert service.convert(_sound(), model="rebana").status_code == 200
    ids = [answer.json()["id"] for answer in accepted]
    assert {job["id"] for job in service.http.get("/v1/jobs").json()["jobs"]} >= set(ids)
    for job_id in ids:
        assert service.http.delete(f"/v1/jobs/{job_id}").json()["state"] in ("cancelled", "failed")
    assert service.http.get(f"/v1/jobs/{ids[0]}").json()["ended_at"] is not None


def test_a_job_does_not_replace_a_recording_unless_it_is_asked_to(service: Service, tmp_path: Path) -> None:
    for name in ("recordings/a.wav", "recordings/b.wav", "out/a.flac"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(_sound())
    before = (tmp_path / "out" / "a.flac").read_bytes()
    asked = {
        **{"model": "rebana", "inputs": [str(tmp_path / "recordings")], "output": str(tmp_path / "out")},
        "parameters": {"format": "flac"},
    }
    job = _finished(service, asked)
    assert (job["state"], job["result"]["converted"], job["done"], job["total"]) == ("partial", 1, 2, 2)
    assert "overwrite: true" in job["result"]["failed"][0]["fix"]
    assert (tmp_path / "out" / "a.flac").read_bytes() == before
    assert soundfile.info(tmp_path / "out" / "b.flac").frames > 0
    job = _finished(service, {**asked, "overwrite": True})
    assert (job["state"], job["result"]["converted"], job["result"]["skipped"]) == ("done", 1, 1)
    assert (tmp_path / "out" / "a.flac").read_bytes() != before


def _finished(service: Service, asked: dict[str, Any]) -> dict[str, Any]:
    accepted = service.http.post("/v1/jobs", json=asked)
    assert accepted.status_code == 202, accepted.text
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        job: dict[str, Any] = service.http.get(f"/v1/jobs/{accepted.json()['id']}").json()
        if job["ended_at"] is not None:
            return job
        time.sleep(0.5)
    raise AssertionError(f"still {job}")


def test_command_serves_until_it_is_told_to_stop(service: Service, tmp_path: Path) -> None:
    """As a person runs it, with a Ray of its own."""
    port = free_port()
    command = [sys.executable, "-m", "rave_dist", "serve", "--store", service.store.uri, "--port", str(port)]
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, "PYTHONUNBUFFERED": "1"})
        try:
            address = f"http://127.0.0.1:{port}"
            deadline = time.monotonic() + READY_SECONDS
            while address not in (tmp_path / "log").read_text() and time.monotonic() < deadline and process.poll() is None:
                time.sleep(0.5)
            assert address in (tmp_path / "log").read_text()
            models = httpx.get(f"{address}/v1/models", trust_env=False, timeout=30).json()["models"]
            assert {m["name"] for m in models} >= set(NAMES)
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=READY_SECONDS) == 0
        finally:
            process.kill()
            process.wait()
    assert "Traceback" not in (tmp_path / "log").read_text()
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))
