"""The S3 side of the store: boto3 for objects and conditional puts, pyarrow for readers that seek."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from rave_dist.errors import MissingKeyError, StoreError, from_os_error
from rave_dist.storage.backend import Entry

if TYPE_CHECKING:
    import pyarrow.fs

_MISSING_CODES = {"404", "NoSuchKey", "NotFound"}


@lru_cache(maxsize=8)
def _client(_settings: tuple[tuple[str, str], ...]) -> Any:
    """The process's client for the present AWS settings: making one costs a third of a second, and a store travels often.

    A session of its own for each, because boto3's default session keeps the first credentials that it saw.
    """
    return boto3.session.Session().client("s3", config=Config(retries={"max_attempts": 5, "mode": "standard"}))


class S3Prefix:
    """The store's backend on S3: keys below a prefix of a bucket; each method as in `rave_dist.storage.store.Store`."""

    def __init__(self, bucket: str, prefix: str) -> None:
        self._bucket = bucket
        self._prefix = prefix

    @property
    def _client(self) -> Any:
        return _client(tuple(sorted((name, value) for name, value in os.environ.items() if name.startswith("AWS_"))))

    def _full(self, key: str) -> str:
        return f"{self._prefix}/{key}".strip("/") if self._prefix else key

    def _address(self, key: str) -> str:
        return f"s3://{self._bucket}/{self._full(key)}"

    @contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        try:
            yield
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            if code in _MISSING_CODES:
                raise MissingKeyError("nothing is stored there", where=self._address(key)) from error
            raise _s3_error(code, str(error), self._address(key)) from error
        except BotoCoreError as error:
            raise StoreError(
                str(error), where=self._address(key), fix="check AWS_ENDPOINT_URL, AWS_REGION and the credentials"
            ) from error
        except OSError as error:
            if isinstance(error, StoreError):
                raise
            raise from_os_error(error, where=self._address(key)) from error

    def read(self, key: str) -> bytes:
        """One GET."""
        with self._errors(key):
            body: bytes = self._client.get_object(Bucket=self._bucket, Key=self._full(key))["Body"].read()
            return body

    def write(self, key: str, data: bytes) -> None:
        """One PUT, which is atomic."""
        with self._errors(key):
            self._client.put_object(Bucket=self._bucket, Key=self._full(key), Body=data)

    def claim(self, key: str, data: bytes) -> bool:
        """A conditional PUT (``If-None-Match: *``): the server lets one writer win."""
        with self._errors(key):
            try:
                self._client.put_object(Bucket=self._bucket, Key=self._full(key), Body=data, IfNoneMatch="*")
            except ClientError as error:
                if str(error.response.get("Error", {}).get("Code", "")) in {
                    "PreconditionFailed",
                    "412",
                    "ConditionalRequestConflict",
                }:
                    return False
                raise
            return True

    def stat(self, key: str) -> Entry | None:
        """One HEAD; None if nothing is there."""
        try:
            with self._errors(key):
                head = self._client.head_object(Bucket=self._bucket, Key=self._full(key))
        except MissingKeyError:
            return None
        return Entry(key, int(head["ContentLength"]), str(head["ETag"]).strip('"'))

    def list(self, prefix: str) -> Iterator[Entry]:
        """A request for each page of 1000 keys, as they are asked for."""
        full = self._full(prefix)
        strip = len(self._prefix) + 1 if self._prefix else 0
        with self._errors(prefix):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=f"{full}/" if full else ""
            )
            for page in pages:
                for item in page.get("Contents", ()):
                    if not item["Key"].endswith("/"):
                        yield Entry(item["Key"][strip:], int(item["Size"]), str(item["ETag"]).strip('"'))

    def delete(self, key: str) -> None:
        """One DELETE, which succeeds too where nothing is."""
        with self._errors(key):
            self._client.delete_object(Bucket=self._bucket, Key=self._full(key))

    def upload(self, path: Path, key: str) -> None:
        """One PUT, or a multipart upload, which is atomic when it completes."""
        with self._errors(key), open(path, "rb") as file:
            self._client.upload_fileobj(file, self._bucket, self._full(key))

    def download(self, key: str, path: Path) -> None:
        """Ranges side by side into a file aside, then renamed."""
        with self._errors(key):
            try:
                self._client.download_file(self._bucket, self._full(key), str(path))  # writes aside and renames
            except OSError as error:
                raise from_os_error(error, where=str(path)) from error

    def filesystem(self) -> tuple[pyarrow.fs.FileSystem, str]:
        """Arrow's own S3 client with boto3's settings, and the path of the prefix in it."""
        import pyarrow.fs  # here, because whole objects need no Arrow

        options: dict[str, Any] = {"allow_bucket_creation": False}
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        if endpoint:
            parts = urlsplit(endpoint)
            options |= {"endpoint_override": parts.netloc, "scheme": parts.scheme or "https"}
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        if region:
            options["region"] = region
        root = f"{self._bucket}/{self._prefix}" if self._prefix else self._bucket
        return pyarrow.fs.S3FileSystem(**options), root


def _s3_error(code: str, message: str, where: str) -> StoreError:
    if code == "NoSuchBucket":
        return StoreError("the bucket does not exist", where=where, fix="create it, or correct the store's address")
    if code in {"403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch"}:
        return StoreError(
            f"the S3 server refused the request ({code})",
            where=where,
            fix="check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and the bucket's policy",
        )
    return StoreError(message, where=where)
