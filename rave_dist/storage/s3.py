"""The store's backend on S3: boto3 for objects and conditional puts, pyarrow for random access.

boto3 resolves endpoint, region and credentials, from the environment (``AWS_ENDPOINT_URL(_S3)``, ``AWS_REGION``,
``AWS_PROFILE``, …) and the AWS configuration files; pyarrow receives the same values.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import boto3
from boto3.exceptions import Boto3Error, RetriesExceededError
from botocore.config import Config
from botocore.credentials import RefreshableCredentials
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    ReadTimeoutError,
    ResponseStreamingError,
    SSLError,
)

from rave_dist.errors import MissingKeyError, StoreError, StoreUnavailableError, from_os_error
from rave_dist.storage.backend import Entry
from rave_dist.storage.parallel import REQUESTS_AT_ONCE, REQUESTS_PER_SECOND, Pace
from rave_dist.storage.schemes import split

if TYPE_CHECKING:
    import pyarrow.fs

_CHECK = "check AWS_ENDPOINT_URL, AWS_REGION, AWS_PROFILE and the credentials, or the same in the AWS configuration files"
_AWAY = "check the server, the network and AWS_ENDPOINT_URL, and run the same command again when it responds"
_CONNECTION_ERRORS = (ConnectTimeoutError, EndpointConnectionError, HTTPClientError)
_BROKEN_OFF = (IncompleteReadError, RetriesExceededError)
_MISSING_CODES = {"404", "NoSuchKey", "NoSuchUpload", "NotFound"}
_LOST_CODES = {"412", "PreconditionFailed"}
_CONFLICT_CODES = {"409", "ConditionalRequestConflict"}
_NOT_FOR_US = {"403", "AccessDenied", "405", "MethodNotAllowed", "501", "NotImplemented"}
_UNAVAILABLE = {429, 500, 502, 503, 504}  # statuses
_BEHIND_END_CODES = {"416", "InvalidRange"}
_ATTEMPTS = 8
"""Attempts at a request after 500, 502, 503, 504, throttling and lost connections, for 35 s on average; as AWS_MAX_ATTEMPTS."""


_pace = Pace(REQUESTS_PER_SECOND)  # of all connections of this process


@dataclass(frozen=True)
class S3Settings:
    """S3 settings as resolved, without secrets.

    Attributes:
        endpoint: URL of the server.
        region: of the signatures of requests.
        profile: of the AWS configuration files.
        credentials: where they come from (``env``, ``shared-credentials-file``, ``iam-role``, …); None if there are none.
        access_key: its last four characters.
        config_file: path of the AWS configuration file, which need not exist.
    """

    endpoint: str
    region: str
    profile: str
    credentials: str | None
    access_key: str | None
    config_file: str


def resolved_settings() -> S3Settings:
    """The settings of this process's requests; makes no request, except to the machine's credential service.

    Raises:
        StoreError: a profile that does not exist, or settings that contradict each other.
    """
    connection = _connection()
    session = connection.session
    credentials = connection.credentials()
    return S3Settings(
        endpoint=connection.client.meta.endpoint_url,
        region=connection.client.meta.region_name,
        profile=session.profile_name,
        credentials=credentials and credentials.method,
        access_key=credentials and f"…{credentials.access_key[-4:]}",
        config_file=os.path.expanduser(session._session.get_config_variable("config_file") or ""),
    )


def server_time(uri: str) -> float:
    """The time of a store's server in seconds since 1970, with the resolution of HTTP (a second).

    Args:
        uri: ``s3://bucket/prefix``.

    Raises:
        StoreError: the server does not respond.
    """
    _, bucket, prefix = split(uri)
    place = S3Prefix(bucket, prefix)
    with place._errors(""):
        try:
            answer = place._client.list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1)
        except ClientError as error:  # a server refuses requests from a machine with a wrong clock, but reports its time
            answer = error.response
        date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    if date is None:
        raise StoreError("the server does not report its time", where=uri)
    return parsedate_to_datetime(date).timestamp()


class _Connection:
    """A boto3 session and its client, and the pyarrow client with the same settings."""

    def __init__(self) -> None:
        # A separate session, because boto3's default session keeps its first credentials.
        self.session = boto3.session.Session()
        self.attempts = int(self.session._session.get_config_variable("max_attempts") or _ATTEMPTS)
        config = Config(
            retries={"total_max_attempts": self.attempts, "mode": "standard"},
            max_pool_connections=2 * REQUESTS_AT_ONCE,  # botocore closes further ones after each request
        )
        self.client = self.session.client("s3", config=config)
        self.client.meta.events.register("before-send.s3", lambda **_: _pace.wait())

    def credentials(self) -> Any:
        """Botocore's credentials; None if there are none."""
        return self.session.get_credentials()

    def arrow(self) -> pyarrow.fs.FileSystem:
        """Arrow's S3 client with the same endpoint, region, credentials, addressing and certificates."""
        import pyarrow.fs  # here, because whole objects need no Arrow

        meta = self.client.meta
        url = urlsplit(meta.endpoint_url)
        options: dict[str, Any] = {"region": meta.region_name, "endpoint_override": url.netloc, "scheme": url.scheme}
        options["retry_strategy"] = pyarrow.fs.AwsStandardS3RetryStrategy(max_attempts=self.attempts)
        style = (meta.config.s3 or {}).get("addressing_style")
        if style == "virtual":
            options["force_virtual_addressing"] = True
        bundle = self.session._session.get_config_variable("ca_bundle")
        if bundle and url.scheme == "https":
            options["tls_ca_file_path"] = bundle
        credentials = self.credentials()
        if credentials is None:
            raise NoCredentialsError
        # Arrow cannot renew keys, so it resolves the credentials itself; it only cannot resolve roles that a profile assumes.
        if not isinstance(credentials, RefreshableCredentials) or credentials.method == "assume-role":
            keys = credentials.get_frozen_credentials()
            options |= {"access_key": keys.access_key, "secret_key": keys.secret_key, "session_token": keys.token}
        return pyarrow.fs.S3FileSystem(allow_bucket_creation=False, **options)


@lru_cache(maxsize=8)
def _connect(_settings: tuple[tuple[str, str], ...]) -> _Connection:
    return _Connection()


def _connection() -> _Connection:
    """The process's connection for the present AWS settings, cached because creating one takes a third of a second.

    Raises:
        StoreError: a profile that does not exist, or settings that contradict each other.
    """
    try:
        return _connect(tuple(sorted((name, value) for name, value in os.environ.items() if name.startswith("AWS_"))))
    except (BotoCoreError, ValueError) as error:  # botocore raises ValueError for an endpoint that is not a URL
        raise StoreError(f"the S3 settings cannot be used: {error}", where="S3 settings", fix=_CHECK) from error


class S3Prefix:
    """Keys below a prefix of a bucket; the methods are those of `rave_dist.storage.backend.Backend`."""

    def __init__(self, bucket: str, prefix: str) -> None:
        self._bucket = bucket
        self._prefix = prefix

    @property
    def _client(self) -> Any:
        return _connection().client

    def _full(self, key: str) -> str:
        return f"{self._prefix}/{key}".strip("/") if self._prefix else key

    def _address(self, key: str) -> str:
        return f"s3://{self._bucket}/{self._full(key)}"

    @contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        try:
            yield
        except ClientError as error:
            code = _code(error)
            if code in _MISSING_CODES:
                raise MissingKeyError("nothing is stored there", where=self._address(key)) from error
            raise _s3_error(error, self._address(key)) from error
        except (BotoCoreError, Boto3Error) as error:
            if isinstance(error, _CONNECTION_ERRORS) and not isinstance(error, SSLError):
                what = f"the S3 server {self._client.meta.endpoint_url} does not respond"
                raise StoreUnavailableError(what, where=self._address(key), fix=_AWAY) from error
            if isinstance(error, _BROKEN_OFF):
                raise StoreUnavailableError(str(error), where=self._address(key), fix=_AWAY) from error
            raise StoreError(str(error), where=self._address(key), fix=_CHECK) from error
        except OSError as error:
            if isinstance(error, StoreError):
                raise
            raise from_os_error(error, where=self._address(key)) from error

    def read(self, key: str) -> bytes:
        """A GET."""
        return self._get(key)[0]

    def read_range(self, key: str, start: int, stop: int) -> tuple[bytes, str]:
        """A GET with a range."""
        return self._get(key, Range=f"bytes={start}-{stop - 1}")

    def _get(self, key: str, **options: str) -> tuple[bytes, str]:
        """Bytes and tag; repeated if the connection is lost while the body is read, which botocore does not do."""
        with self._errors(key):
            for attempts_left in reversed(range(_connection().attempts)):
                try:
                    answer = self._client.get_object(Bucket=self._bucket, Key=self._full(key), **options)
                    with closing(answer["Body"]) as body:  # and a connection that was lost
                        return body.read(), _tag(answer)
                except ClientError as error:
                    if options and _code(error) in _BEHIND_END_CODES:
                        return b"", ""
                    raise
                except (IncompleteReadError, ReadTimeoutError, ResponseStreamingError):
                    if not attempts_left:
                        raise
        raise AssertionError

    def write(self, key: str, data: bytes) -> None:
        """One PUT, which is atomic."""
        with self._errors(key):
            self._client.put_object(Bucket=self._bucket, Key=self._full(key), Body=data)

    def claim(self, key: str, data: bytes) -> bool:
        """A conditional PUT (``If-None-Match: *``): the server lets one writer win.

        If the answer to the winning request is lost, its repetition is refused: then the winner recognises its data.
        """
        with self._errors(key):
            for attempts_left in reversed(range(_connection().attempts)):
                try:
                    self._client.put_object(Bucket=self._bucket, Key=self._full(key), Body=data, IfNoneMatch="*")
                    return True
                except ClientError as error:
                    code = _code(error)
                    if code in _LOST_CODES:
                        repeated = error.response["ResponseMetadata"].get("RetryAttempts", 0) > 0
                        return repeated and bool(data) and self.read(key) == data
                    if code not in _CONFLICT_CODES or not attempts_left:  # a conflict has no winner yet
                        raise
        raise AssertionError

    def stat(self, key: str) -> Entry | None:
        """One HEAD; None if nothing is there."""
        try:
            with self._errors(key):
                head = self._client.head_object(Bucket=self._bucket, Key=self._full(key))
        except MissingKeyError:
            return None
        return Entry(key, int(head["ContentLength"]), _tag(head))

    def list(self, prefix: str) -> Iterator[Entry]:
        """A request for each page of 1000 keys, made lazily."""
        full = self._full(prefix)
        strip = len(self._prefix) + 1 if self._prefix else 0
        with self._errors(prefix):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=f"{full}/" if full else ""
            )
            for page in pages:
                for item in page.get("Contents", ()):
                    if not item["Key"].endswith("/"):
                        yield Entry(item["Key"][strip:], int(item["Size"]), _tag(item))

    def delete(self, key: str) -> None:
        """One DELETE, which also succeeds if there is no object."""
        with self._errors(key):
            self._client.delete_object(Bucket=self._bucket, Key=self._full(key))

    def unfinished(self, seconds: float) -> Iterator[Entry]:
        """Multipart uploads that never ended, with their ids as tags; none where the server lists none for this user."""
        strip, began = len(self._prefix) + 1 if self._prefix else 0, time.time() - seconds
        place = {"Bucket": self._bucket, "Prefix": f"{self._prefix}/" if self._prefix else ""}
        with self._errors(""):
            try:
                pages = list(self._client.get_paginator("list_multipart_uploads").paginate(**place))
            except ClientError as error:
                if _code(error) in _NOT_FOR_US:
                    return
                raise
            for upload in (each for page in pages for each in page.get("Uploads", ())):
                if upload["Initiated"].timestamp() < began:
                    identity = {"Bucket": self._bucket, "Key": upload["Key"], "UploadId": upload["UploadId"]}
                    parts = self._client.get_paginator("list_parts").paginate(**identity)
                    size = sum(part["Size"] for page in parts for part in page.get("Parts", ()))
                    yield Entry(upload["Key"][strip:], size, upload["UploadId"])

    def discard(self, entry: Entry) -> None:
        """Ends the upload, which removes its parts; succeeds if it has ended."""
        with suppress(MissingKeyError), self._errors(entry.key):
            self._client.abort_multipart_upload(Bucket=self._bucket, Key=self._full(entry.key), UploadId=entry.tag)

    def upload(self, path: Path, key: str) -> None:
        """One PUT, or a multipart upload, which is atomic when it completes."""
        with self._errors(key), open(path, "rb") as file:
            self._client.upload_fileobj(file, self._bucket, self._full(key))

    def download(self, key: str, path: Path) -> None:
        """Concurrent range requests to a temporary file, which is then renamed."""
        with self._errors(key):
            try:
                self._client.download_file(self._bucket, self._full(key), str(path))  # to a temporary file, which it renames
            except OSError as error:
                raise from_os_error(error, where=str(path)) from error

    def filesystem(self) -> tuple[pyarrow.fs.FileSystem, str]:
        """Arrow's S3 client with boto3's settings, and the path of the prefix in it."""
        with self._errors(""):
            return _connection().arrow(), f"{self._bucket}/{self._prefix}" if self._prefix else self._bucket


def _tag(answer: Mapping[str, Any]) -> str:
    return str(answer["ETag"]).strip('"')


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _s3_error(error: ClientError, where: str) -> StoreError:
    code = _code(error)
    if code == "NoSuchBucket":
        return StoreError("the bucket does not exist", where=where, fix="create it, or correct the store's address")
    if code in {"403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch"}:
        return StoreError(
            f"the S3 server refused the request ({code})",
            where=where,
            fix="check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and the bucket's policy",
        )
    if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") in _UNAVAILABLE:
        return StoreUnavailableError(str(error), where=where, fix=_AWAY)
    return StoreError(str(error), where=where)
