"""What the tests share: one local Ray and one real S3 server for the whole session, and fresh stores on disk and on S3.

Ray's workers inherit the environment of the process that starts Ray, so the address of the S3 server is fixed when this
file is loaded; the server itself starts with the first test that needs it.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from ports import free_ports
from seaweedfs import server_command

from rave_dist.records import ExportRecord, ModelCard, RunFolder, RunResult, TrainingSpec
from rave_dist.storage.store import Store

# No test depends on how busy the machine is.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

BUCKET = "rave-dist-tests"


S3_PORT, MASTER_PORT, VOLUME_PORT, FILER_PORT = free_ports(4)

os.environ.update(
    # The machine's cores are shared by Ray's workers and all tests: no library may start a pool of its own, and waiting
    # threads must sleep. Read when torch is loaded.
    OMP_NUM_THREADS="1",
    OMP_WAIT_POLICY="PASSIVE",
    MKL_NUM_THREADS="1",
    AWS_ENDPOINT_URL=f"http://127.0.0.1:{S3_PORT}",
    AWS_ACCESS_KEY_ID="testkey",
    AWS_SECRET_ACCESS_KEY="testsecret",
    AWS_REGION="us-east-1",
    AWS_DEFAULT_REGION="us-east-1",
    AWS_REQUEST_CHECKSUM_CALCULATION="when_required",
    AWS_RESPONSE_CHECKSUM_VALIDATION="when_required",
    AWS_EC2_METADATA_DISABLED="true",
)
for _name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3", "RAY_ADDRESS"):
    os.environ.pop(_name, None)


# A script's background job is started with SIGINT ignored, and so would be all that the tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Whoever uses one of these starts a server, Ray or a process that trains.
SLOW_FIXTURES = {"s3_server", "s3_store", "ray_session", "tiny_models", "tiny_model", "publish_tiny"}

WITH_RAY = {"on_ray", "examples", "cluster", "end_to_end", "gpu"}


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks as slow what uses a slow fixture, the S3 half of a test of both stores too, and puts files with slow tests first.

    Processes share the files: one that came to a slow file at the end would leave the others idle. Where Ray runs, warnings
    of its many packages are shown; they are errors in all other tests.
    """
    for item in items:
        if WITH_RAY & set(item.path.parts):
            item.add_marker(pytest.mark.filterwarnings("default"))
        assert isinstance(item, pytest.Function)
        on_s3 = hasattr(item, "callspec") and item.callspec.params.get("any_store") == "s3"
        if on_s3 or SLOW_FIXTURES & set(item.fixturenames):
            item.add_marker(pytest.mark.slow)
    slow_files = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow_files)


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: no server outlives a killed test run


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for all processes of this run of the tests: those of xdist, and the parts of ``make test``."""
    own = tmp_path_factory.getbasetemp()
    return Path(os.environ.get("TESTS_FOLDER") or (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own))


@pytest.fixture(scope="session", autouse=True)
def _cache_of_the_tests(shared_folder: Path) -> None:
    """A cache folder for the run, so that no test reads or writes the user's."""
    os.environ["RAVE_DIST_CACHE"] = str(shared_folder / "cache")


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real S3 server (SeaweedFS) on loopback, with the bucket `BUCKET` in it; its users: `seaweedfs`."""
    folder = tmp_path_factory.mktemp("seaweedfs")
    command = server_command(folder, "127.0.0.1", s3=S3_PORT, master=MASTER_PORT, volume=VOLUME_PORT, filer=FILER_PORT)
    with open(folder / "log", "wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, preexec_fn=_die_with_parent)
    try:
        _wait_for_first_put(server, folder / "log")
        yield os.environ["AWS_ENDPOINT_URL"]
    finally:
        server.kill()
        server.wait()


def _wait_for_first_put(server: subprocess.Popen[bytes], log: Path) -> None:
    """The port opens seconds before the server can store anything: a put is the only proof."""
    import boto3  # here, as only tests that need the server need it
    from botocore.exceptions import BotoCoreError, ClientError

    client = boto3.client("s3")
    deadline = time.monotonic() + 120
    while True:
        try:
            with contextlib.suppress(client.exceptions.BucketAlreadyExists, client.exceptions.BucketAlreadyOwnedByYou):
                client.create_bucket(Bucket=BUCKET)
            client.put_object(Bucket=BUCKET, Key="ready", Body=b"ready")
            return
        except (ClientError, BotoCoreError) as error:
            if server.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"SeaweedFS does not store: {error}\n{log.read_text()[-2000:]}") from error
            time.sleep(0.5)


@pytest.fixture
def local_store(tmp_path: Path) -> Store:
    """An empty store in a folder."""
    return Store(str(tmp_path / "store"))


@pytest.fixture
def s3_store(s3_server: str) -> Store:
    """An empty store in the S3 server, under a prefix of its own."""
    return Store(f"s3://{BUCKET}/{uuid.uuid4().hex[:12]}")


@pytest.fixture(params=["local", "s3"])
def any_store(request: pytest.FixtureRequest) -> Store:
    """The same test on both kinds of store."""
    store = request.getfixturevalue(f"{request.param}_store")
    assert isinstance(store, Store)
    return store


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """A local Ray of four (logical) CPUs that all tests in need of one share; leave it as it was found."""
    import ray

    ray.init(
        address="local",
        num_cpus=4,
        object_store_memory=1 << 30,
        include_dashboard=True,
        dashboard_host="127.0.0.1",
        log_to_driver=False,
    )
    yield
    ray.shutdown()


@dataclass(frozen=True)
class TinyModel:
    """A small untrained, audible model: its run folder and its exports."""

    spec: TrainingSpec
    run: Path
    out: Path
    offline: Path
    streaming: Path

    def publish(self, store: Store, name: str | None = None) -> ModelCard:
        """Puts the model into a store's registry, under any name."""
        from rave_dist.registry.publish import place
        from rave_dist.registry.store import model_version

        spec = self.spec.model_copy(update={"instrument": name or self.spec.instrument})
        exported = ExportRecord.model_validate_json((self.out / "export.json").read_bytes())
        result = RunResult.model_validate_json((self.run / "result.json").read_bytes())
        return place(store, spec, result, exported, self.out, version=model_version(RunFolder(self.run)), seconds=60.0)


@pytest.fixture(scope="session")
def tiny_models(shared_folder: Path) -> tuple[TinyModel, ...]:
    """Four models that sound different (44100 Hz, mono, hop 512, 4 of 8 latents, audible noise): see tests/tiny_models.py."""
    folder = shared_folder / "tiny-models"
    with open(shared_folder / "tiny-models.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one process makes them, the others wait
        if not folder.exists():
            part = shared_folder / "tiny-models.part"
            shutil.rmtree(part, ignore_errors=True)  # of a process that was killed
            root = Path(__file__).parents[1]
            program = [sys.executable, "-W", "ignore", str(root / "tests" / "tiny_models.py"), str(part), "4"]
            subprocess.run(program, env={**os.environ, "PYTHONPATH": str(root)}, check=True)
            part.rename(folder)
    return tuple(_tiny_model(folder / str(number)) for number in range(4))


def _tiny_model(folder: Path) -> TinyModel:
    spec = TrainingSpec.model_validate_json((folder / "run" / "spec.json").read_bytes())
    out = folder / "out"
    files = (out / f"{spec.instrument}.ts", out / f"{spec.instrument}_streaming.ts")
    return TinyModel(spec, folder / "run", out, *files)


@pytest.fixture
def tiny_model(tiny_models: tuple[TinyModel, ...]) -> TinyModel:
    """The first of them."""
    return tiny_models[0]


@pytest.fixture
def publish_tiny(tiny_models: tuple[TinyModel, ...]) -> Callable[..., ModelCard]:
    """``publish_tiny(store, name, number=0)`` puts one of the four models into a store and returns its card."""

    def publish(store: Store, name: str, number: int = 0) -> ModelCard:
        return tiny_models[number].publish(store, name)

    return publish
