"""A small runner that speaks ``POST /v1/execute``: ``python -m deploy.demo.runner --port 8080``.

It demands the routing headers, remembers every answer under its idempotency key, and gives guests the host's
scheduler functions over HTTP, as the real runner does. It hosts one guest, `deploy.demo.extension`.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import json
import os
import signal
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

import httpx

from deploy.demo import extension

REMEMBERED_ANSWERS: Final = 10_000
MAX_REQUEST_BYTES: Final = 4 * 1024 * 1024
HOST_API_PATH: Final = "/api/internal/ext-scheduler/install/"


class HostScheduler:
    """The host API of the scheduler, bound to one install."""

    def __init__(self, client: httpx.Client, *, install_id: str) -> None:
        self._client = client
        self._install_id = install_id

    def call(self, operation: str, **members: Any) -> dict[str, Any]:
        """Call one operation. As in the real runner, the body of an answer that is not 2xx is dropped."""
        response = self._client.post(
            f"{HOST_API_PATH}{self._install_id}",
            json={"operation": operation, **members},
        )
        if response.is_success:
            return dict(response.json())
        return {
            "success": False,
            "error": f"host error {response.status_code}",
            "endpoints": [],
            "schedules": [],
        }


@dataclass
class _Memory:
    """One remembered answer; ``ready`` is set once the guest has ended, so that a repeat waits for it."""

    ready: threading.Event
    envelope: dict[str, Any] | None = None


class Runner:
    """Executes guests, each idempotency key once."""

    def __init__(self, *, host_url: str, host_token: str) -> None:
        self._host = httpx.Client(base_url=host_url, headers={"x-runner-auth": host_token}, timeout=10)
        self._memories: OrderedDict[str, _Memory] = OrderedDict()
        self._lock = threading.Lock()

    def execute(self, headers: Mapping[str, str], body: Mapping[str, Any]) -> dict[str, Any]:
        """Return the envelope of one call."""
        if not headers.get("x-alga-tenant") or not headers.get("x-alga-extension"):
            return _envelope(400, error="x-alga-tenant and x-alga-extension are required")
        key = headers.get("x-idempotency-key", "")
        if not key:
            return self._run_guest(body)
        with self._lock:
            memory, is_first = self._memories.get(key), False
            if memory is None:
                memory, is_first = _Memory(threading.Event()), True
                self._memories[key] = memory
                if len(self._memories) > REMEMBERED_ANSWERS:
                    self._memories.popitem(last=False)
        if is_first:
            try:
                memory.envelope = self._run_guest(body)
            finally:
                memory.ready.set()
        memory.ready.wait()
        return memory.envelope or _envelope(500, error="the guest ended without an answer")

    def _run_guest(self, body: Mapping[str, Any]) -> dict[str, Any]:
        try:
            request = self._guest_request(body)
        except (KeyError, TypeError, ValueError, binascii.Error) as error:
            return _envelope(400, error=f"the request is malformed: {type(error).__name__}")
        try:
            response = extension.handle(request)
        except httpx.HTTPError as error:
            return _envelope(502, error=f"the host did not answer: {type(error).__name__}")
        return _envelope(
            response.status,
            headers=response.headers,
            body=json.dumps(response.body).encode(),
        )

    def _guest_request(self, body: Mapping[str, Any]) -> extension.GuestRequest:
        context, http = body["context"], body["http"]
        encoded = http.get("body_b64")
        return extension.GuestRequest(
            method=str(http["method"]),
            path=str(http["path"]),
            body=json.loads(base64.b64decode(encoded)) if encoded else None,
            context=context,
            scheduler=HostScheduler(self._host, install_id=str(context["install_id"])),
        )


def _envelope(
    status: int,
    *,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    error: str | None = None,
) -> dict[str, Any]:
    return {
        "status": status,
        "headers": dict(headers or {}),
        "body_b64": base64.b64encode(body).decode() if body is not None else None,
        "error": error,
    }


def make_server(runner: Runner, *, port: int) -> ThreadingHTTPServer:
    """An HTTP server on 127.0.0.1 that answers for the runner."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(200 if self.path == "/healthz" else 404, {"ok": self.path == "/healthz"})

        def do_POST(self) -> None:
            length = int(self.headers.get("content-length", 0))
            if length > MAX_REQUEST_BYTES:
                self.close_connection = True
                return self._answer(413, {"error": "too large"})
            raw = self.rfile.read(length)
            if self.path != "/v1/execute":
                return self._answer(404, {"error": "unknown address"})
            try:
                body = json.loads(raw)
            except ValueError:
                return self._answer(400, {"error": "not JSON"})
            headers = {name.lower(): value for name, value in self.headers.items()}
            return self._answer(200, runner.execute(headers, body))

        def _answer(self, status: int, body: Mapping[str, Any]) -> None:
            encoded = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(encoded)))
            self.end_headers()
            self.wfile.write(encoded)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is http.server's
            """Say nothing: the scheduler's own log tells of every call."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 1024

    return Server(("127.0.0.1", port), Handler)


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument(
        "--host-url",
        default="http://127.0.0.1:8000",
        help="where the scheduler's web app answers",
    )
    arguments = parser.parse_args()
    token = os.environ.get("RUNNER_SERVICE_TOKEN", "").split(",")[0].strip()
    server = make_server(Runner(host_url=arguments.host_url, host_token=token), port=arguments.port)
    # shutdown() waits for the serving loop, which is this thread's, so it must be asked for from another.
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    server.serve_forever(poll_interval=0.1)


if __name__ == "__main__":
    main()
