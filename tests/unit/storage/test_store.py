"""The store keeps its word on a folder and on a real S3 server: whole objects, one winner, every failure with a reason."""

from __future__ import annotations

import gc
import os
import pickle
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rave_dist.errors import MissingKeyError, StoreError
from rave_dist.storage.store import Store
from tests.file_systems import as_somebody_else, tmpfs

# ---------------------------------------------------------------- what holds on both


def test_what_is_written_is_read(any_store: Store) -> None:
    data = bytes(range(256)) * 100
    any_store.write_bytes("a/b.bin", data)
    assert any_store.read_bytes("a/b.bin") == data
    any_store.write_bytes("a/b.bin", b"")
    assert any_store.read_bytes("a/b.bin") == b""


def test_a_part_is_read_with_the_tag_of_its_object(any_store: Store) -> None:
    any_store.write_bytes("a/b.bin", bytes(range(200)))
    tag = any_store.stat("a/b.bin").tag
    assert any_store.read_range("a/b.bin", 10, 20) == (bytes(range(10, 20)), tag)
    assert any_store.read_range("a/b.bin", 190, 300) == (bytes(range(190, 200)), tag)
    assert any_store.read_range("a/b.bin", 200, 300)[0] == b""
    any_store.write_bytes("a/b.bin", bytes(200)[::-1] + b"more")
    assert any_store.read_range("a/b.bin", 10, 20)[1] != tag
    with pytest.raises(MissingKeyError):
        any_store.read_range("a/c.bin", 0, 10)


def test_json_survives_and_is_canonical(any_store: Store) -> None:
    value = {"ü": [1, 2.5, None, True], "a": {"c": "é", "b": "\n"}}
    any_store.write_json("x.json", value)
    assert any_store.read_json("x.json") == value
    first = any_store.read_bytes("x.json")
    any_store.write_json("x.json", dict(reversed(value.items())))
    assert any_store.read_bytes("x.json") == first


def test_broken_json_is_named_with_its_address(any_store: Store) -> None:
    any_store.write_bytes("x.json", b'{"half":')
    with pytest.raises(StoreError, match="not valid JSON") as caught:
        any_store.read_json("x.json")
    assert caught.value.where == any_store.address("x.json")
    assert caught.value.fix


@pytest.mark.parametrize(
    "key",
    [
        "with space/and more.wav",
        "Žluťoučký/kůň – 鳥.flac",
        "a%20b+c/d=e&f.txt",
        "hash#mark?query.txt",
        "it's (one) [two] {three}.txt",
    ],
)
def test_any_name_can_be_a_key(any_store: Store, key: str) -> None:
    any_store.write_bytes(key, b"data")
    assert any_store.read_bytes(key) == b"data"
    assert [entry.key for entry in any_store.list()] == [key]
    assert any_store.stat(key).bytes == 4
    with any_store.open(key) as file:
        assert file.read() == b"data"
    any_store.delete(key)
    assert not any_store.exists(key)


def test_missing_keys_are_missing_key_errors(any_store: Store, tmp_path: Path) -> None:
    assert not any_store.exists("no/such")
    assert list(any_store.list("no")) == []
    any_store.delete("no/such")
    any_store.delete_folder("no")
    with pytest.raises(MissingKeyError) as caught:
        any_store.read_bytes("no/such")
    assert caught.value.where == any_store.address("no/such")
    with pytest.raises(MissingKeyError):
        any_store.stat("no/such")
    with pytest.raises(MissingKeyError):
        any_store.download("no/such", tmp_path / "x")
    with pytest.raises(MissingKeyError), any_store.open("no/such"):
        pass
    assert not (tmp_path / "x").exists()


def test_a_folder_lists_itself_and_not_its_neighbours(any_store: Store) -> None:
    for key in ("a/b/1", "a/b/c/2", "a/bc/3", "a/b.txt", "z"):
        any_store.write_bytes(key, key.encode())
    assert [e.key for e in any_store.list("a/b")] == ["a/b/1", "a/b/c/2"]
    assert [e.key for e in any_store.list("a/b/")] == ["a/b/1", "a/b/c/2"]
    assert {e.key for e in any_store.list("a")} == {"a/b/1", "a/b/c/2", "a/bc/3", "a/b.txt"}
    assert [e.bytes for e in any_store.list("a/b")] == [5, 7]
    any_store.delete_folder("a/b")
    assert {e.key for e in any_store.list()} == {"a/b.txt", "a/bc/3", "z"}


def test_a_store_below_another_sees_only_its_own(any_store: Store) -> None:
    inner, neighbour = Store(f"{any_store.uri}/in"), Store(f"{any_store.uri}/inner")
    inner.write_bytes("k", b"1")
    neighbour.write_bytes("k", b"2")
    assert [e.key for e in inner.list()] == ["k"]
    assert any_store.read_bytes("in/k") == b"1"


def test_more_keys_than_a_page(any_store: Store) -> None:
    keys = [f"many/{i:05d}" for i in range(1100)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: any_store.write_bytes(key, b"x"), keys))
    assert [e.key for e in any_store.list("many")] == keys


def test_the_tag_changes_when_the_bytes_do(any_store: Store) -> None:
    any_store.write_bytes("k", b"one")
    first = any_store.stat("k")
    assert any_store.stat("k") == first
    time.sleep(0.02)  # the clock of some disks ticks every 10 ms
    any_store.write_bytes("k", b"two")
    assert any_store.stat("k").tag != first.tag


def test_eight_writers_one_claim(any_store: Store) -> None:
    stores = [Store(any_store.uri) for _ in range(8)]  # each its own connection, as processes have
    for store in stores:
        store.exists("connects")
    with ThreadPoolExecutor(8) as pool:
        for attempt in range(4):
            start = threading.Barrier(8)

            def claim(writer: int, key: str = f"claims/{attempt}", start: threading.Barrier = start) -> bool:
                start.wait()
                return stores[writer].claim(key, str(writer).encode())

            won = list(pool.map(claim, range(8)))
            assert won.count(True) == 1
            assert any_store.read_bytes(f"claims/{attempt}") == str(won.index(True)).encode()
    assert len(list(any_store.list("claims"))) == 4


def test_a_lost_claim_changes_nothing(any_store: Store) -> None:
    any_store.write_bytes("k", b"taken")
    assert any_store.claim("k", b"mine") is False
    assert any_store.read_bytes("k") == b"taken"


def test_readers_see_whole_objects_while_they_are_replaced(any_store: Store) -> None:
    versions = [bytes([i]) * 2_000_000 for i in range(4)]
    any_store.write_bytes("k", versions[0])
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            for version in versions:
                any_store.write_bytes("k", version)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(30):
            assert any_store.read_bytes("k") in versions
    finally:
        stop.set()
        writer.join()


def test_files_come_and_go_whole(any_store: Store, tmp_path: Path) -> None:
    # 20 MiB: more than boto3's threshold, so that it goes to S3 in parts
    source = tmp_path / "source"
    source.write_bytes(os.urandom(1 << 20) * 20)
    any_store.upload(source, "big/object")
    assert any_store.stat("big/object").bytes == 20 << 20
    fetched = any_store.download("big/object", tmp_path / "made" / "for" / "it")
    assert fetched.read_bytes() == source.read_bytes()
    assert [p.name for p in fetched.parent.iterdir()] == ["it"]


def test_an_upload_of_nothing_leaves_nothing(any_store: Store, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no such file") as caught:
        any_store.upload(tmp_path / "absent", "k")
    assert caught.value.where == str(tmp_path / "absent")
    assert list(any_store.list()) == []


def test_an_open_object_can_be_read_from_the_middle(any_store: Store) -> None:
    any_store.write_bytes("k", bytes(range(256)))
    with any_store.open("k") as file:
        file.seek(200)
        assert file.read(10) == bytes(range(200, 210))


def test_arrow_reads_what_the_store_wrote(any_store: Store) -> None:
    import pyarrow
    import pyarrow.parquet

    filesystem, path = any_store.filesystem("t/part.parquet")
    any_store.write_bytes("t/other", b"")  # makes the folder
    table = pyarrow.table({"x": list(range(1000))})
    pyarrow.parquet.write_table(table, path, filesystem=filesystem)
    assert any_store.exists("t/part.parquet")
    assert pyarrow.parquet.read_table(path, filesystem=filesystem) == table


def test_a_store_travels_by_pickle(any_store: Store) -> None:
    any_store.write_bytes("k", b"v")  # connected: the connection must not be pickled
    twin = pickle.loads(pickle.dumps(any_store))
    assert twin == any_store
    assert hash(twin) == hash(any_store)
    assert twin.read_bytes("k") == b"v"
    assert repr(any_store) == f"Store({any_store.uri!r})"


def test_the_write_check_leaves_nothing(any_store: Store) -> None:
    any_store.check_writable()
    assert list(any_store.list()) == []


# ---------------------------------------------------------------- addresses


@pytest.mark.parametrize(
    ("written", "uri"),
    [
        ("s3://bucket", "s3://bucket"),
        ("s3://bucket/", "s3://bucket"),
        ("s3://bucket/a/b/", "s3://bucket/a/b"),
        ("s3://bucket/take #1?", "s3://bucket/take #1?"),
        ("/data/store/", "/data/store"),
        ("/data/../other//store", "/other/store"),
        ("/data/take #1?", "/data/take #1?"),
        ("file:///data/with%20space", "/data/with space"),
    ],
)
def test_addresses_have_one_form(written: str, uri: str) -> None:
    assert Store(written).uri == uri
    assert Store(uri) == Store(written)


def test_relative_and_home_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/someone")
    assert Store("store").uri == str(tmp_path / "store")
    assert Store("~/store").uri == "/home/someone/store"


@pytest.mark.parametrize("uri", ["s3:///prefix", "http://host/x", "gs://bucket/x"])
def test_addresses_that_are_no_store_are_refused_with_the_form_to_use(uri: str) -> None:
    with pytest.raises(StoreError) as caught:
        Store(uri)
    assert "s3://bucket" in caught.value.fix


def test_making_a_store_touches_nothing(tmp_path: Path) -> None:
    Store(str(tmp_path / "s"))
    Store("s3://no-such-bucket/x")
    assert list(tmp_path.iterdir()) == []


def test_deleting_a_folder_deletes_hidden_files_too(any_store: Store) -> None:
    for name in (".validate_storage_marker", "result.json"):
        any_store.write_bytes(f"ray/attempt/{name}", b"")
    any_store.delete_folder("ray")
    assert list(any_store.list("ray")) == []
    if any_store.is_local:
        assert os.listdir(f"{any_store.uri}/ray/attempt") == []


# ---------------------------------------------------------------- a folder's own failures

_WRITE_FOR_EVER = """
import sys
from rave_dist.storage.store import Store
store = Store(sys.argv[1])
print("ready", flush=True)
while True:
    for fill in (b"a", b"b"):
        store.write_bytes("k", fill * 8_000_000)
"""


@pytest.mark.slow
def test_a_killed_writer_leaves_the_old_or_the_new(local_store: Store) -> None:
    for attempt in range(3):
        writer = subprocess.Popen([sys.executable, "-c", _WRITE_FOR_EVER, local_store.uri], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(0.3 + 0.037 * attempt)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        data = local_store.read_bytes("k")
        assert data in (b"a" * 8_000_000, b"b" * 8_000_000)
        assert [e.key for e in local_store.list()] == ["k"]  # what the dead left aside is not an object


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    with tmpfs(tmp_path) as place:
        yield place


def test_a_full_disk_is_said_so_and_nothing_half_written_stays(tiny_disk: Path, tmp_path: Path) -> None:
    store = Store(str(tiny_disk / "store"))
    store.write_bytes("small", b"1")
    source = tmp_path / "big"
    source.write_bytes(bytes(2 << 20))
    for attempt in (
        lambda: store.write_bytes("big", bytes(2 << 20)),
        lambda: store.claim("big", bytes(2 << 20)),
        lambda: store.upload(source, "big"),
    ):
        with pytest.raises(StoreError, match="disk is full") as caught:
            attempt()
        assert caught.value.fix
        assert sorted(p.name for p in (tiny_disk / "store").iterdir()) == ["small"]
    store.write_bytes("small", b"2")
    assert store.read_bytes("small") == b"2"


@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
def test_a_full_disk_fails_a_download_as_a_store_error(tiny_disk: Path, any_store: Store) -> None:
    any_store.write_bytes("big", bytes(2 << 20))
    with pytest.raises(StoreError, match="disk is full") as caught:
        any_store.download("big", tiny_disk / "big")
    assert caught.value.where == str(tiny_disk / "big")
    assert list(tiny_disk.iterdir()) == []
    del caught
    gc.collect()  # boto3 leaves the connection of a download that could not be written open until then


@pytest.fixture
def closed_folder() -> Iterator[Path]:
    """A folder that all may read and none may write, with one file in it."""
    place = Path(tempfile.mkdtemp())  # not tmp_path, which lies below a folder that nobody may enter
    (place / "secret").write_bytes(b"")
    (place / "secret").chmod(0)
    place.chmod(stat.S_IRUSR | stat.S_IXUSR | stat.S_IRGRP | stat.S_IXGRP | stat.S_IROTH | stat.S_IXOTH)
    yield place
    place.chmod(0o700)
    shutil.rmtree(place)


def test_a_place_without_permission_is_said_so(closed_folder: Path, local_store: Store) -> None:
    local_store.write_bytes("k", b"v")
    store, below = Store(str(closed_folder)), Store(str(closed_folder / "deeper" / "store"))
    with as_somebody_else():
        for attempt in (
            store.check_writable,
            below.check_writable,
            lambda: store.write_bytes("k", b""),
            lambda: store.claim("k"),
            lambda: store.read_bytes("secret"),
            lambda: store.delete("secret"),
            lambda: store.open("secret").__enter__(),
        ):
            with pytest.raises(StoreError, match="no permission") as caught:
                attempt()
            assert str(closed_folder) in caught.value.where
            assert caught.value.fix
    assert [p.name for p in closed_folder.iterdir()] == ["secret"]


def test_a_download_into_a_closed_folder_is_a_store_error(closed_folder: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        store = Store(folder)
        store.write_bytes("k", b"v")
        os.chmod(f"{folder}/k", 0o644)
        with as_somebody_else():
            for place in (closed_folder / "k", closed_folder / "new" / "k"):
                with pytest.raises(StoreError, match="no permission") as caught:
                    store.download("k", place)
                assert str(closed_folder) in caught.value.where


def test_a_store_below_a_file_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match="a file exists where a folder is needed"):
        Store(str(tmp_path / "file" / "store")).check_writable()
    with pytest.raises(StoreError):
        Store(str(tmp_path / "file")).check_writable()


# ---------------------------------------------------------------- an S3 server's own failures


def test_a_wrong_secret_is_refused_with_what_to_check(s3_store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    s3_store.write_bytes("k", b"v")
    with monkeypatch.context() as patched:
        patched.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret")
        stranger = Store(s3_store.uri)
        for attempt in (
            stranger.check_writable,
            lambda: stranger.read_bytes("k"),
            lambda: stranger.exists("k"),
            lambda: stranger.claim("new"),
            lambda: list(stranger.list()),
            lambda: stranger.download("k", tmp_path / "x"),
            lambda: stranger.upload(__file__, "k"),
            lambda: stranger.open("k").__enter__(),
        ):
            with pytest.raises(StoreError) as caught:
                attempt()
            assert type(caught.value) is StoreError  # neither missing nor unavailable
            assert "AWS_SECRET_ACCESS_KEY" in caught.value.fix
            assert "not-the-secret" not in str(caught.value)
    assert s3_store.read_bytes("k") == b"v"


def test_a_user_who_may_only_read_is_told_so(s3_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    s3_store.write_bytes("k", b"v")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "readerkey")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "readersecret")
    reader = Store(s3_store.uri)
    assert reader.read_bytes("k") == b"v"
    with reader.open("k") as file:
        assert file.read() == b"v"
    for attempt in (reader.check_writable, lambda: reader.claim("new"), lambda: reader.delete("k")):
        with pytest.raises(StoreError, match="refused") as caught:
            attempt()
        assert "policy" in caught.value.fix
    assert [e.key for e in s3_store.list()] == ["k"]


def test_a_missing_bucket_is_said_so(s3_server: str) -> None:
    store = Store("s3://rave-dist-no-such-bucket/prefix")
    # not by writing: this server makes the bucket when its administrator puts something into it
    for attempt in (lambda: store.read_bytes("k"), lambda: list(store.list())):
        with pytest.raises(StoreError, match="bucket does not exist") as caught:
            attempt()
        assert not isinstance(caught.value, MissingKeyError)
        assert caught.value.fix


def test_a_server_that_is_not_there_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(StoreError, match=r"127\.0\.0\.1:9") as caught:
        Store("s3://bucket/prefix").check_writable()
    assert "AWS_ENDPOINT_URL" in caught.value.fix


def test_no_credentials_are_said_so(s3_server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(StoreError) as caught:
        Store("s3://bucket/prefix").check_writable()
    assert "credentials" in str(caught.value)


def test_the_aws_configuration_file_decides_for_boto3_and_arrow(
    s3_server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With no environment variable but the file's name and the profile's, objects and Arrow reads reach the same server."""
    import pyarrow
    import pyarrow.parquet

    from rave_dist.storage.s3 import resolved_settings

    for name in [name for name in os.environ if name.startswith("AWS_") and name != "AWS_EC2_METADATA_DISABLED"]:
        monkeypatch.delenv(name)
    config = tmp_path / "config"
    config.write_text(
        "[profile studio]\nregion = eu-south-7\nservices = own\n"
        "aws_access_key_id = testkey\naws_secret_access_key = testsecret\n"
        "request_checksum_calculation = when_required\nresponse_checksum_validation = when_required\n"
        f"[services own]\ns3 =\n  endpoint_url = {s3_server}\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_PROFILE", "studio")

    store = Store(f"s3://rave-dist-tests/{uuid.uuid4().hex[:12]}")
    store.write_bytes("k", b"from boto3")
    with store.open("k") as file:
        assert file.read() == b"from boto3"
    filesystem, path = store.filesystem("part.parquet")
    pyarrow.parquet.write_table(pyarrow.table({"x": [1, 2]}), path, filesystem=filesystem)
    assert store.stat("part.parquet").bytes > 0

    settings = resolved_settings()
    assert (settings.endpoint, settings.region, settings.profile) == (s3_server, "eu-south-7", "studio")
    assert settings.config_file == str(config)
    assert settings.access_key == "…tkey"
    assert "testsecret" not in repr(settings)


def test_keys_of_the_configuration_file_are_refused_alike(
    s3_server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A wrong secret in the file fails in Arrow too: it uses that file's keys and no others."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    (tmp_path / "credentials").write_text("[default]\naws_access_key_id = testkey\naws_secret_access_key = wrong\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    filesystem, path = Store("s3://rave-dist-tests/any").filesystem("k")
    with pytest.raises(OSError, match=r"ACCESS_DENIED|AccessDenied|SignatureDoesNotMatch|403"):
        filesystem.open_input_file(path)


@pytest.mark.parametrize(("name", "value"), [("AWS_PROFILE", "no-such-profile"), ("AWS_ENDPOINT_URL", "no url")])
def test_settings_that_cannot_be_used_are_said_so(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from rave_dist.storage.s3 import resolved_settings

    monkeypatch.setenv(name, value)
    for attempt in (lambda: Store("s3://bucket/prefix").exists("k"), resolved_settings):
        with pytest.raises(StoreError) as caught:
            attempt()
        assert "AWS_" in caught.value.fix


def test_a_misspelt_folder_is_not_an_empty_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no such folder"):
        Store(str(tmp_path / "misspelt")).check_exists()
    (tmp_path / "library.yaml").touch()
    with pytest.raises(StoreError, match="this is a file, not a folder"):
        Store(str(tmp_path / "library.yaml")).check_exists()
    Store(str(tmp_path)).check_exists()
