"""Notices that a host will end, from the metadata services of AWS, GCP and Azure."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import urlsplit

METADATA: Final = "http://169.254.169.254"
"""The address of the metadata service inside a host, the same in all three clouds."""

_ANSWER_SECONDS = 2.0
_GCP_SPOT_SECONDS = 30.0
_GCP_MAINTENANCE_SECONDS = 60.0
_AZURE_ENDINGS = {"Preempt", "Terminate", "Reboot", "Redeploy"}  # a freeze is over within seconds


@dataclass(frozen=True)
class Notice:
    """Why a host ends, and when, in seconds since 1970."""

    reason: str
    deadline: float


@dataclass(frozen=True)
class Cloud:
    """A cloud, how its metadata service is recognised, and how the service gives notice.

    Both functions take the address of the service. They raise OSError, HTTPException or ValueError if it does not answer as
    documented.
    """

    name: str
    is_here: Callable[[str], bool]
    notice: Callable[[str], Notice | None]


def recognise(metadata: str) -> Cloud | None:
    """The cloud whose metadata service answers at an address; None if none does."""
    for cloud in CLOUDS:
        try:
            if cloud.is_here(metadata):
                return cloud
        except (OSError, http.client.HTTPException, ValueError):
            continue
    return None


@dataclass(frozen=True)
class _Answer:
    status: int
    text: str
    flavor: str


def _ask(metadata: str, path: str, headers: dict[str, str], method: str = "GET") -> _Answer:
    """One request, never through a proxy: the answer of a metadata service concerns the host that asks."""
    connection = http.client.HTTPConnection(urlsplit(metadata).netloc, timeout=_ANSWER_SECONDS)
    try:
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        return _Answer(response.status, response.read().decode(), response.getheader("Metadata-Flavor", ""))
    finally:
        connection.close()


def _text(answer: _Answer) -> str:
    if answer.status != http.HTTPStatus.OK:
        raise ConnectionError(f"HTTP {answer.status}")
    return answer.text.strip()


# https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html; a new token each time.
def _aws_token(metadata: str) -> _Answer:
    return _ask(metadata, "/latest/api/token", {"X-aws-ec2-metadata-token-ttl-seconds": "60"}, method="PUT")


def _is_aws(metadata: str) -> bool:
    return bool(_text(_aws_token(metadata)))


def _aws_notice(metadata: str) -> Notice | None:
    headers = {"X-aws-ec2-metadata-token": _text(_aws_token(metadata))}
    answer = _ask(metadata, "/latest/meta-data/spot/instance-action", headers)
    if answer.status == http.HTTPStatus.NOT_FOUND:
        return None
    action = json.loads(_text(answer))
    return Notice(f"AWS: spot instance, {action['action']}", datetime.fromisoformat(action["time"]).timestamp())


# https://cloud.google.com/compute/docs/instances/spot and .../metadata/getting-live-migration-notice; neither states a time.
def _gcp(metadata: str, key: str) -> _Answer:
    return _ask(metadata, f"/computeMetadata/v1/instance/{key}", {"Metadata-Flavor": "Google"})


def _is_gcp(metadata: str) -> bool:
    answer = _gcp(metadata, "preempted")
    return bool(_text(answer)) and answer.flavor == "Google"


def _gcp_notice(metadata: str) -> Notice | None:
    if _text(_gcp(metadata, "preempted")) == "TRUE":
        return Notice("GCP: preempted", time.time() + _GCP_SPOT_SECONDS)
    event = _text(_gcp(metadata, "maintenance-event"))
    if event == "TERMINATE_ON_HOST_MAINTENANCE":  # the other, MIGRATE_ON_HOST_MAINTENANCE, does not end the host
        return Notice("GCP: maintenance that ends the host", time.time() + _GCP_MAINTENANCE_SECONDS)
    return None


# https://learn.microsoft.com/en-us/azure/virtual-machines/linux/scheduled-events
def _azure(metadata: str, path: str) -> str:
    return _text(_ask(metadata, f"/metadata/{path}", {"Metadata": "true"}))


def _azure_name(metadata: str) -> str:
    return _azure(metadata, "instance/compute/name?api-version=2021-02-01&format=text")


def _is_azure(metadata: str) -> bool:
    return bool(_azure_name(metadata))


def _azure_notice(metadata: str) -> Notice | None:
    events = json.loads(_azure(metadata, "scheduledevents?api-version=2020-07-01"))["Events"]
    endings = [event for event in events if event["EventType"] in _AZURE_ENDINGS]
    if not endings:
        return None
    name = _azure_name(metadata)  # the events are those of all hosts of an availability or scale set
    mine = [(_azure_time(event["NotBefore"]), event["EventType"].lower()) for event in endings if name in event["Resources"]]
    if not mine:
        return None
    deadline, ending = min(mine)
    return Notice(f"Azure: {ending}", deadline)


def _azure_time(not_before: str) -> float:
    """When an event begins; the text is empty once it has."""
    return parsedate_to_datetime(not_before).timestamp() if not_before else time.time()


CLOUDS: Final = (
    Cloud("AWS", _is_aws, _aws_notice),
    Cloud("GCP", _is_gcp, _gcp_notice),
    Cloud("Azure", _is_azure, _azure_notice),
)
"""The clouds that are known; a service that answers like two of them is the first."""
