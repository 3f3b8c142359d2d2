"""A proxy in front of a real S3 server that fails as servers and networks do: 503, lost answers, bodies that end early."""

from __future__ import annotations

import http.client
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import urlsplit

Fault = Literal["503", "lost answer", "short body", "409"]
_HOP_BY_HOP = {"connection", "transfer-encoding", "keep-alive", "content-length"}
_CONFLICT = b"<Error><Code>ConditionalRequestConflict</Code><Message>again</Message></Error>"


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # its client was killed
            super().handle_error(request, client_address)


class FailingServer:
    """Its address, and the faults of the next requests: ``fail("503", times=2)``; ``requests`` are methods and paths,
    ``sent_bytes`` those of the bodies of answers."""

    def __init__(self, behind: str) -> None:
        self.requests: list[str] = []
        self.sent_bytes = 0
        self._behind = urlsplit(behind)
        self._fault: Fault | None = None
        self._times = 0
        self._only: Callable[[str], bool] = lambda request: True
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _any(self) -> None:
                outer._serve(self)

            do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _any

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"

    def fail(self, fault: Fault, *, times: int, only: Callable[[str], bool] = lambda request: True) -> None:
        self._fault, self._times, self._only, self.requests = fault, times, only, []

    @contextmanager
    def running(self) -> Iterator[FailingServer]:
        thread = threading.Thread(target=self._server.serve_forever)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()

    def _take(self, request: str) -> Fault | None:
        with self._lock:
            self.requests.append(request)
            if not self._times or not self._only(request):
                return None
            self._times -= 1
            return self._fault

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        length = int(handler.headers.get("Content-Length") or 0)
        body = handler.rfile.read(length)
        fault = self._take(f"{handler.command} {handler.path}")
        if fault in ("503", "409"):
            self._answer(handler, int(fault), {}, _CONFLICT if fault == "409" else b"")
            return
        behind = http.client.HTTPConnection(self._behind.netloc, timeout=60)
        headers = {name: value for name, value in handler.headers.items() if name.lower() != "expect"}
        behind.request(handler.command, handler.path, body or None, headers)
        answer = behind.getresponse()
        data = answer.read()
        behind.close()
        if fault == "lost answer":
            self._answer(handler, 503, {}, b"")
            return
        kept = {name: value for name, value in answer.getheaders() if name.lower() not in _HOP_BY_HOP}
        whole = int(answer.getheader("Content-Length") or len(data))
        cut = data[: len(data) // 2] if fault == "short body" else data
        self._answer(handler, answer.status, kept, cut, whole if handler.command == "HEAD" else len(data))

    def _answer(
        self, handler: BaseHTTPRequestHandler, status: int, headers: dict[str, str], body: bytes, declared: int | None = None
    ) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(body) if declared is None else declared))
        if declared is not None and declared != len(body) and handler.command != "HEAD":
            handler.send_header("Connection", "close")
            handler.close_connection = True
        handler.end_headers()
        if handler.command != "HEAD":
            with self._lock:
                self.sent_bytes += len(body)
            handler.wfile.write(body)
