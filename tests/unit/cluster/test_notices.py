"""Notices of AWS, GCP and Azure, from stand-ins of their metadata services on loopback."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

import pytest
from metadata_services import Aws, Azure, Gcp, MetadataService

from rave_dist.cluster.notices import CLOUDS, Cloud, Notice, recognise

DEADLINE = datetime(2026, 11, 27, 8, 22, 5, tzinfo=UTC)


def _cloud(service: Any) -> Cloud:
    cloud = recognise(service.address)
    assert cloud is not None
    return cloud


def _notice(service: Any) -> Notice | None:
    return _cloud(service).notice(service.address)


@pytest.fixture
def aws() -> Iterator[Aws]:
    with Aws().running() as service:
        yield service


@pytest.fixture
def gcp() -> Iterator[Gcp]:
    with Gcp().running() as service:
        yield service


@pytest.fixture
def azure() -> Iterator[Azure]:
    with Azure().running() as service:
        yield service


def test_each_cloud_is_recognised_and_gives_no_notice_at_first(aws: Aws, gcp: Gcp, azure: Azure) -> None:
    assert [_cloud(service).name for service in (aws, gcp, azure)] == ["AWS", "GCP", "Azure"]
    assert [_notice(service) for service in (aws, gcp, azure)] == [None, None, None]


def test_no_cloud_is_seen_where_none_is() -> None:
    with MetadataService().running() as other, socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        assert recognise(other.address) is None
        assert recognise(f"http://127.0.0.1:{closed.getsockname()[1]}") is None


def test_a_broken_service_is_no_cloud_and_no_notice(aws: Aws, gcp: Gcp, azure: Azure) -> None:
    for cloud, service in zip(CLOUDS, (aws, gcp, azure), strict=True):
        service.broken = True
        assert recognise(service.address) is None
        with pytest.raises(ConnectionError, match="503"):
            cloud.notice(service.address)


@pytest.mark.parametrize("action", ["terminate", "stop", "hibernate"])
def test_aws_gives_its_own_time(aws: Aws, action: str) -> None:
    aws.action = {"action": action, "time": "2026-11-27T08:22:05Z"}
    assert _notice(aws) == Notice(f"AWS: spot instance, {action}", DEADLINE.timestamp())


def test_gcp_gives_30_seconds_to_a_spot_host(gcp: Gcp) -> None:
    before = time.time()
    gcp.preempted = "TRUE"
    notice = _notice(gcp)
    assert notice is not None
    assert notice.reason == "GCP: preempted"
    assert before + 30 <= notice.deadline <= time.time() + 30


def test_gcp_maintenance_is_a_notice_if_the_host_ends(gcp: Gcp) -> None:
    gcp.maintenance = "MIGRATE_ON_HOST_MAINTENANCE"
    assert _notice(gcp) is None
    before = time.time()
    gcp.maintenance = "TERMINATE_ON_HOST_MAINTENANCE"
    notice = _notice(gcp)
    assert notice is not None
    assert before + 60 <= notice.deadline <= time.time() + 60


@pytest.mark.parametrize("kind", ["Preempt", "Terminate", "Reboot", "Redeploy"])
def test_azure_events_that_end_this_host_are_notices(azure: Azure, kind: str) -> None:
    azure.event(kind, not_before=format_datetime(DEADLINE, usegmt=True), hosts=["WEB_IN_1", "WEB_IN_0"])
    assert _notice(azure) == Notice(f"Azure: {kind.lower()}", DEADLINE.timestamp())


def test_other_events_of_azure_are_none(azure: Azure) -> None:
    azure.event("Freeze", not_before=format_datetime(DEADLINE, usegmt=True), hosts=["WEB_IN_0"])
    azure.event("Preempt", not_before=format_datetime(DEADLINE, usegmt=True), hosts=["WEB_IN_1"])
    assert _notice(azure) is None


def test_the_first_event_of_azure_counts_and_one_that_has_begun_is_now(azure: Azure) -> None:
    before = time.time()
    azure.event("Reboot", not_before=format_datetime(datetime(2999, 1, 1, tzinfo=UTC), usegmt=True), hosts=["WEB_IN_0"])
    azure.event("Preempt", not_before="", hosts=["WEB_IN_0"], status="Started")
    notice = _notice(azure)
    assert notice is not None
    assert notice.reason == "Azure: preempt"
    assert before <= notice.deadline <= time.time()


def test_a_proxy_is_not_asked(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would answer with the notices of its own host."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert _cloud(aws).name == "AWS"
