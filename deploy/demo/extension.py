"""The *scheduler demo* extension: a guest that sets up its own schedules.

A real guest is a WASM program; this one is Python that sees only what a guest sees: a request, and the host's
scheduler functions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Protocol

VERSION: Final = "0.1.0"
MANIFEST: Final[dict[str, Any]] = {
    "name": "com.example.scheduler-demo",
    "publisher": "Example",
    "version": VERSION,
    "capabilities": ["cap:scheduler.manage"],
    "api": {
        "endpoints": [
            {
                "method": "GET",
                "path": "/api/status",
                "handler": "dist/main",
                "schedulable": True,
            },
            {
                "method": "POST",
                "path": "/api/setup",
                "handler": "dist/main",
                "schedulable": False,
            },
            {
                "method": "GET",
                "path": "/api/schedules",
                "handler": "dist/main",
                "schedulable": False,
            },
            {"method": "DELETE", "path": "/api/schedules/:id", "handler": "dist/main"},
            {
                "method": "POST",
                "path": "/api/heartbeat",
                "handler": "dist/main",
                "schedulable": True,
            },
        ]
    },
}

# Another version to try an upgrade with: the heartbeat has moved, everything else is where it was.
NEXT_VERSION: Final = "0.2.0"
MOVED_HEARTBEAT: Final = "/api/v2/heartbeat"
NEXT_MANIFEST: Final[dict[str, Any]] = {
    **MANIFEST,
    "version": NEXT_VERSION,
    "api": {
        "endpoints": [
            {**endpoint, "path": MOVED_HEARTBEAT} if endpoint["path"] == "/api/heartbeat" else endpoint
            for endpoint in MANIFEST["api"]["endpoints"]
        ]
    },
}

WANTED_SCHEDULES: Final[tuple[dict[str, Any], ...]] = (
    {
        "name": "Heartbeat Check",
        "endpoint": "POST /api/heartbeat",
        "cron": "*/5 * * * *",
        "timezone": "UTC",
        "payload": {"source": "schedule"},
    },
    {
        "name": "Daily Status Check",
        "endpoint": "GET /api/status",
        "cron": "0 9 * * *",
        "timezone": "America/New_York",
    },
)


class Scheduler(Protocol):
    """The host's scheduler functions, as the runner gives them to a guest."""

    def call(self, operation: str, **members: Any) -> dict[str, Any]:
        """Call one operation of the host API."""


@dataclass(frozen=True)
class GuestRequest:
    """What a guest is called with."""

    method: str
    path: str
    body: Any
    context: Mapping[str, Any]
    scheduler: Scheduler


@dataclass(frozen=True)
class GuestResponse:
    """What a guest answers; the body is JSON."""

    status: int
    body: Any
    headers: Mapping[str, str] = field(default_factory=lambda: {"content-type": "application/json"})


def handle(request: GuestRequest) -> GuestResponse:
    """Answer one request."""
    if request.method == "DELETE" and request.path.startswith("/api/schedules/"):
        return _delete_schedule(request, request.path.removeprefix("/api/schedules/"))
    handler = _ROUTES.get((request.method, request.path))
    if handler is None:
        return GuestResponse(404, {"error": f"no handler for {request.method} {request.path}"})
    return handler(request)


def _status(_request: GuestRequest) -> GuestResponse:
    return GuestResponse(200, {"status": "ok", "version": VERSION, "at": _now()})


def _heartbeat(request: GuestRequest) -> GuestResponse:
    context = request.context
    return GuestResponse(
        200,
        {
            "alive": True,
            "at": _now(),
            "scheduled_for": context.get("scheduled_for"),
            "attempt": context.get("attempt"),
            "payload": request.body,
        },
    )


def _setup(request: GuestRequest) -> GuestResponse:
    """Bring about the wanted schedules: discover, compare, create what is missing. Safe to repeat."""
    endpoints = request.scheduler.call("getEndpoints")["endpoints"]
    schedulable = {f"{item['method']} {item['path']}" for item in endpoints if item["schedulable"]}
    existing = {item["name"] for item in request.scheduler.call("list")["schedules"]}
    summary: dict[str, list[Any]] = {"created": [], "existing": [], "failed": []}
    for wanted in WANTED_SCHEDULES:
        name = wanted["name"]
        if name in existing:
            summary["existing"].append(name)
            continue
        if wanted["endpoint"] not in schedulable:
            summary["failed"].append({"name": name, "error": f"{wanted['endpoint']} is not schedulable"})
            continue
        answer = request.scheduler.call("create", **wanted)
        if answer.get("success"):
            summary["created"].append(name)
        else:
            summary["failed"].append({"name": name, "error": answer.get("error", "refused")})
    return GuestResponse(207 if summary["failed"] else 200, summary)


def _list_schedules(request: GuestRequest) -> GuestResponse:
    return GuestResponse(200, request.scheduler.call("list"))


def _delete_schedule(request: GuestRequest, schedule_id: str) -> GuestResponse:
    answer = request.scheduler.call("delete", scheduleId=schedule_id)
    return GuestResponse(200 if answer.get("success") else 404, answer)


def _now() -> str:
    return datetime.now(UTC).isoformat()


_ROUTES: Final[Mapping[tuple[str, str], Callable[[GuestRequest], GuestResponse]]] = {
    ("GET", "/api/status"): _status,
    ("POST", "/api/heartbeat"): _heartbeat,
    ("POST", MOVED_HEARTBEAT): _heartbeat,
    ("POST", "/api/setup"): _setup,
    ("GET", "/api/schedules"): _list_schedules,
}
