"""Stand-ins for the metadata services of AWS, GCP and Azure: documented paths, headers and answers."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

TOKEN = "AQAEAN"
Answer = tuple[int, str]


class MetadataService:
    """Its address; a notice is what its cloud would say now. ``broken`` answers 503."""

    flavor = ""

    def __init__(self) -> None:
        self.broken = False
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def _any(self) -> None:
                url = urlsplit(self.path)
                status, text = (503, "") if outer.broken else outer.answer(self, url.path, parse_qs(url.query))
                self.send_response(status)
                if outer.flavor:
                    self.send_header("Metadata-Flavor", outer.flavor)
                self.send_header("Content-Length", str(len(text.encode())))
                self.end_headers()
                self.wfile.write(text.encode())

            do_GET = do_PUT = _any

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"

    def answer(self, request: BaseHTTPRequestHandler, path: str, query: dict[str, list[str]]) -> Answer:
        """Status and body."""
        return 404, ""

    @contextmanager
    def running(self) -> Iterator[Any]:
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()


class Aws(MetadataService):
    """IMDSv2 alone: without a token, 401."""

    action: dict[str, str] | None = None

    def answer(self, request: BaseHTTPRequestHandler, path: str, query: dict[str, list[str]]) -> Answer:
        if path == "/latest/api/token":
            if request.command != "PUT":
                return 405, ""
            seconds = request.headers.get("X-aws-ec2-metadata-token-ttl-seconds", "")
            return (200, TOKEN) if seconds.isdecimal() and 1 <= int(seconds) <= 21600 else (400, "")
        if request.headers.get("X-aws-ec2-metadata-token") != TOKEN:
            return 401, ""
        if path == "/latest/meta-data/spot/instance-action" and self.action is not None:
            return 200, json.dumps(self.action)
        return 404, "<?xml version='1.0'?><title>404 - Not Found</title>"


class Gcp(MetadataService):
    """Refuses requests without its header."""

    flavor = "Google"
    preempted = "FALSE"
    maintenance = "NONE"

    def answer(self, request: BaseHTTPRequestHandler, path: str, query: dict[str, list[str]]) -> Answer:
        if request.headers.get("Metadata-Flavor") != "Google":
            return 403, "Your client does not have permission to get URL"
        known = {"preempted": self.preempted, "maintenance-event": self.maintenance}
        name = path.removeprefix("/computeMetadata/v1/instance/")
        return (200, known[name]) if name in known else (404, "")


class Azure(MetadataService):
    """Refuses requests without its header or a version. ``events`` concern several hosts; this one is ``WEB_IN_0``."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[dict[str, Any]] = []

    def event(self, kind: str, *, not_before: str, hosts: list[str], status: str = "Scheduled") -> None:
        """Announces an event."""
        event = {
            "EventId": "C7061BAC-AFDC-4513-B24B-AA5F13A16123",
            "EventStatus": status,
            "EventType": kind,
            "ResourceType": "VirtualMachine",
            "Resources": hosts,
            "NotBefore": not_before,
            "Description": "Virtual machine is going to be restarted as requested by authorized user.",
            "EventSource": "Platform",
            "DurationInSeconds": -1,
        }
        self.events.append(event)

    def answer(self, request: BaseHTTPRequestHandler, path: str, query: dict[str, list[str]]) -> Answer:
        if request.headers.get("Metadata", "").lower() != "true" or not query.get("api-version"):
            return 400, '{"error": "Bad request"}'
        if path == "/metadata/scheduledevents":
            return 200, json.dumps({"DocumentIncarnation": len(self.events) + 1, "Events": self.events})
        if path == "/metadata/instance/compute/name":
            return 200, "WEB_IN_0"
        return 404, ""
