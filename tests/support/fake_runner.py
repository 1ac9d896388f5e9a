"""A runner for tests, over real HTTP: it answers as a test scripts it, path by path, and remembers every call."""

import base64
import contextlib
import json
import socket
import struct
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.support.waiting import PATIENCE_SECONDS


@dataclass
class Call:
    """One request as it arrived."""

    headers: dict
    body: dict
    at: float = field(default_factory=time.monotonic)

    @property
    def context(self):
        return self.body["context"]

    @property
    def payload(self):
        encoded = self.body["http"].get("body_b64")
        return json.loads(base64.b64decode(encoded)) if encoded else None


def answers(status=200, *, body=None, headers=None, error=None, http_status=200, http_headers=None):
    """Answer with an envelope."""
    envelope = {
        "status": status,
        "headers": headers or {},
        "body_b64": base64.b64encode(json.dumps(body).encode()).decode() if body is not None else None,
        "error": error,
    }

    def behave(handler):
        handler.send(http_status, json.dumps(envelope).encode(), http_headers)

    return behave


def sends(raw, *, http_status=200, http_headers=None):
    """Answer with these bytes."""

    def behave(handler):
        handler.send(http_status, raw, http_headers)

    return behave


def resets():
    """Tear the connection down in the middle."""

    def behave(handler):
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        handler.close_connection = True
        handler.connection.close()

    return behave


def hangs(until=None, *, then=None):
    """Say nothing until the event (or for good), then answer."""
    gate = until or threading.Event()

    def behave(handler):
        gate.wait(60)
        with contextlib.suppress(OSError):
            (then or answers())(handler)

    return behave


def floods(megabytes):
    """Answer with much more than anybody should read, and count what was taken."""

    def behave(handler):
        handler.send_response(200)
        handler.send_header("content-length", str(megabytes * 1024 * 1024))
        handler.end_headers()
        handler.server.fake.flooded = 0
        with contextlib.suppress(OSError):
            for _ in range(megabytes * 16):
                handler.server.fake.flooded += handler.wfile.write(b"x" * 65536)
        handler.close_connection = True

    return behave


class FakeRunner:
    """Scripted by path; a path without a script succeeds."""

    def __init__(self):
        self.scripts = {}
        self.calls = defaultdict(list)
        self.flooded = 0
        self.changed = threading.Condition()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self.server.daemon_threads = True
        self.server.fake = self
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def script(self, path, *behaviours):
        """Behave so on the first calls of a path, in order; the last behaviour stays."""
        self.scripts[path] = list(behaviours)

    def wait_for_calls(self, path, count, *, seconds=PATIENCE_SECONDS):
        """The calls of a path, once there are so many."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.calls[path]) >= count, seconds), (
                f"{len(self.calls[path])} of {count} calls of {path} came within {seconds} s"
            )
            return list(self.calls[path])

    def stop(self):
        self.server.shutdown()
        self.server.server_close()

    def next_behaviour(self, path):
        script = self.scripts.get(path)
        if not script:
            return answers(body={"ok": True})
        return script.pop(0) if len(script) > 1 else script[0]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        path = body["http"]["path"]
        fake = self.server.fake
        self.call = Call({name.lower(): value for name, value in self.headers.items()}, body)
        with fake.changed:
            fake.calls[path].append(self.call)
            behave = fake.next_behaviour(path)
            fake.changed.notify_all()
        behave(self)

    def send(self, status, raw, headers=None):
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *args):
        pass
