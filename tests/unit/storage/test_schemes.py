"""Addresses are told from paths in one place, and refused where nobody can open them."""

from __future__ import annotations

import pytest

from rave_dist.errors import StoreError
from rave_dist.storage.schemes import has_scheme, is_remote, local_path, normalise, split


@pytest.mark.parametrize(
    ("address", "scheme", "remote"),
    [
        ("s3://bucket/a", True, True),
        ("S3://bucket/a", True, True),
        ("gs://bucket/a", True, True),
        ("file:///data/a", True, False),
        ("/data/a", False, False),
        ("data/what://ever.wav", False, False),
        ("1st://take.wav", False, False),
        ("", False, False),
    ],
)
def test_what_is_an_address_and_what_a_path(address: str, scheme: bool, remote: bool) -> None:
    assert has_scheme(address) is scheme
    assert is_remote(address) is remote


def test_an_address_is_split_by_its_first_slash() -> None:
    assert split("S3://bucket/a b/#1?/c") == ("s3", "bucket", "a b/#1?/c")
    assert split("s3://bucket") == ("s3", "bucket", "")
    assert normalise("S3://bucket//a/") == "s3://bucket/a"
    assert local_path("file:///data/with%20space") == "/data/with space"


@pytest.mark.parametrize(("address", "message"), [("gs://bucket/a", "gs:// addresses"), ("s3:///a", "no bucket")])
def test_addresses_that_nobody_can_open_are_refused(address: str, message: str) -> None:
    with pytest.raises(StoreError, match=message) as caught:
        split(address)
    assert "s3://bucket/prefix" in caught.value.fix
