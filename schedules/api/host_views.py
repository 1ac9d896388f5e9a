"""The host API: what the runner calls on behalf of an extension.

A refusal by the rules of scheduling is an answer (HTTP 200, ``success: false``), because the runner drops the body
of every other status. Statuses other than 2xx speak of the transport alone.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, cast
from uuid import UUID

import structlog
from django.conf import settings
from django.db import connection, transaction
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from schedules import audit, limits, metrics, queries, services
from schedules.api import answers, errors, host_shapes
from schedules.api.authentication import require_service_token
from schedules.api.parsers import AlwaysJSON, AnyTypeJSONParser
from schedules.api.schema import host_operation
from schedules.api.shapes import Shape
from schedules.changes import ScheduleChanges
from schedules.errors import (
    NotFound,
    PermissionDenied,
    RefusedByRule,
    SchedulingError,
)
from schedules.models import ExtensionInstall, Schedule

log = structlog.get_logger(__name__)

RUNNER_HEADER: Final = "x-runner-auth"
MANAGE_CAPABILITY: Final = "cap:scheduler.manage"
_CLEARABLE: Final = frozenset({"name", "payload"})
_WRITES: Final = frozenset({"create", "update", "delete"})
# The rules speak of the row; this API has one member for its endpoint.
_ABOUT_ONE: Final = frozenset({"get", "update", "delete"})
_WIRE_NAMES: Final = {"endpoint_id": "endpoint"}

# The type of each request member. None is allowed where a member can be cleared or left to its default.
_MEMBER_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    "scheduleId": (str,),
    "endpoint": (str,),
    "cron": (str,),
    "timezone": (str,),
    "enabled": (bool,),
    "name": (str, type(None)),
    "payload": (object,),
}


_REQUESTS: Final = {
    "list": host_shapes.HostListRequest,
    "get": host_shapes.HostGetRequest,
    "create": host_shapes.HostCreateRequest,
    "update": host_shapes.HostUpdateRequest,
    "delete": host_shapes.HostDeleteRequest,
    "getEndpoints": host_shapes.HostEndpointsRequest,
}
_ANSWERS: Final[Mapping[int, Sequence[type[Shape]]]] = {
    200: [
        host_shapes.HostList,
        host_shapes.HostGet,
        host_shapes.HostEndpoints,
        host_shapes.HostRefusal,
        host_shapes.HostSuccess,
    ],
    201: [host_shapes.HostCreated],
}


class TransportError(SchedulingError):
    """The request cannot be read as one of the operations."""

    code = "invalid"
    status = 400


class HostApiView(APIView):
    """One route; the body's ``operation`` selects."""

    http_method_names = ["post"]
    authentication_classes = ()
    permission_classes = ()
    # A runner's HTTP library may name any type or none; what is no JSON is told so as a 400.
    parser_classes = (AnyTypeJSONParser,)
    content_negotiation_class = AlwaysJSON

    def get_exception_handler(
        self,
    ) -> Callable[[Exception, dict[str, Any]], Response | None]:
        """Errors of this API have the body that runners know: ``{error}``."""
        return _handle_exception

    def dispatch(self, request: Request, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        """Answer, count the call and leave a line in the log, whatever becomes of it."""
        began = time.perf_counter()
        status, refused = "500", []
        try:
            response = cast("Response", super().dispatch(request, *args, **kwargs))
            status = str(response.status_code)
            if status == "200" and isinstance(response.data, dict) and "fieldErrors" in response.data:
                status, refused = "refused", sorted(response.data["fieldErrors"])
            return response
        finally:
            seconds = time.perf_counter() - began
            metrics.HOST_API_CALLS.labels(operation=self._operation, status=status).inc()
            metrics.HOST_API_DURATION.labels(operation=self._operation).observe(seconds)
            log.info(
                "host_api.call",
                operation=self._operation,
                status=status,
                install_id=str(kwargs.get("install_id", ""))[:36],
                duration_ms=round(seconds * 1000, 1),
                refused_members=refused,
            )

    # What a call is counted as before it is known what it wants.
    _operation = "unknown"

    @host_operation("call_host_api", requests=_REQUESTS, answers=_ANSWERS)
    def post(self, request: Request, install_id: str) -> Response:
        """Keep schedules on behalf of an extension.

        The body's ``operation`` selects. A refusal by the rules of scheduling is an answer with ``success: false``.
        """
        require_service_token(request, header=RUNNER_HEADER, tokens=settings.RUNNER_SERVICE_TOKENS)
        body = request.data
        if not isinstance(body, dict):
            raise TransportError("The body must be a JSON object")
        operation = body.get("operation")
        handler = _OPERATIONS.get(operation) if isinstance(operation, str) else None
        if handler is None or not isinstance(operation, str):
            raise TransportError(f"operation must be one of {', '.join(_OPERATIONS)}")
        self._operation = operation
        body = _without_unset_members(body)
        _check_members(operation, body)
        install = _find_install(install_id)
        if MANAGE_CAPABILITY not in install.granted_caps:
            raise PermissionDenied(f"The install was not granted {MANAGE_CAPABILITY}")
        return handler(install, body) if operation not in _WRITES else _write(handler, install, body)


def _list(install: ExtensionInstall, body: Mapping[str, Any]) -> Response:
    rows = queries.schedules_of(tenant_id=install.tenant_id, install_id=install.id)
    return Response({"schedules": [_render(install, row) for row in rows]})


def _get(install: ExtensionInstall, body: Mapping[str, Any]) -> Response:
    schedule_id = queries.parse_uuid(body["scheduleId"])
    rows = queries.schedules_of(tenant_id=install.tenant_id, install_id=install.id)
    row = rows.filter(id=schedule_id).first() if schedule_id else None
    return Response({"schedule": row and _render(install, row)})


def _create(install: ExtensionInstall, body: Mapping[str, Any]) -> Response:
    schedule = services.create_schedule(
        tenant_id=install.tenant_id,
        install_id=install.id,
        changes=_read_changes(body),
        actor=_actor(install),
    )
    return Response({"success": True, "scheduleId": str(schedule.id)}, status=201)


def _update(install: ExtensionInstall, body: Mapping[str, Any]) -> Response:
    services.update_schedule(
        tenant_id=install.tenant_id,
        install_id=install.id,
        schedule_id=_named_schedule(body),
        changes=_read_changes(body),
        actor=_actor(install),
    )
    return Response({"success": True})


def _delete(install: ExtensionInstall, body: Mapping[str, Any]) -> Response:
    services.delete_schedule(
        tenant_id=install.tenant_id,
        install_id=install.id,
        schedule_id=_named_schedule(body),
        actor=_actor(install),
    )
    return Response({"success": True})


def _get_endpoints(install: ExtensionInstall, body: Mapping[str, Any]) -> Response:
    endpoints = queries.endpoints_of(version_id=install.version_id)
    return Response({"endpoints": [answers.render_endpoint(endpoint) for endpoint in endpoints]})


_OPERATIONS: Final[Mapping[str, Callable[[ExtensionInstall, Mapping[str, Any]], Response]]] = {
    "list": _list,
    "get": _get,
    "create": _create,
    "update": _update,
    "delete": _delete,
    "getEndpoints": _get_endpoints,
}


def _render(install: ExtensionInstall, row: Schedule) -> dict[str, Any]:
    return answers.render_host_schedule(row, install_enabled=install.is_enabled, now=datetime.now(UTC))


def _find_install(text: str) -> ExtensionInstall:
    """The install with what every operation needs of it, by a statement that is not composed anew for each call."""
    install_id = queries.parse_uuid(text)
    row = None
    if install_id is not None:
        with connection.cursor() as cursor:
            cursor.execute(_FIND_INSTALL, [install_id])
            row = cursor.fetchone()
    if row is None:
        raise NotFound("Unknown install")
    tenant_id, version_id, is_enabled, granted_caps = row
    return ExtensionInstall(
        id=install_id,
        tenant_id=tenant_id,
        version_id=version_id,
        is_enabled=is_enabled,
        granted_caps=json.loads(granted_caps),
    )


_FIND_INSTALL: Final = """
SELECT tenant_id, version_id, is_enabled, granted_caps FROM schedules_extensioninstall WHERE id = %s
"""


def _without_unset_members(body: Mapping[str, Any]) -> dict[str, Any]:
    """The body without its nulls: unset members are null or absent, and only an update can clear a member by null."""
    clearing = _CLEARABLE if body["operation"] == "update" else frozenset()
    return {name: value for name, value in body.items() if value is not None or name in clearing}


def _check_members(operation: str, body: Mapping[str, Any]) -> None:
    if operation in _ABOUT_ONE and "scheduleId" not in body:
        raise TransportError("scheduleId is missing")
    for name, types in _MEMBER_TYPES.items():
        # bool is an int to Python and never a text; no member takes a number, so the plain check is exact.
        if name in body and not isinstance(body[name], types):
            raise TransportError(f"{name} has the wrong type")


def _named_schedule(body: Mapping[str, Any]) -> UUID:
    schedule_id = queries.parse_uuid(body["scheduleId"])
    if schedule_id is None:
        raise NotFound("Schedule not found")
    return schedule_id


def _read_changes(body: Mapping[str, Any]) -> ScheduleChanges:
    members = ("endpoint", "cron", "timezone", "enabled", "name", "payload")
    return cast("ScheduleChanges", {name: body[name] for name in members if name in body})


def _write(
    handler: Callable[[ExtensionInstall, Mapping[str, Any]], Response],
    install: ExtensionInstall,
    body: Mapping[str, Any],
) -> Response:
    """Count the call, then try it; a refused one is taken back and stays counted, being a call like any other."""
    with transaction.atomic():
        limits.count_call(
            tenant_id=install.tenant_id,
            subject=f"host_api:{install.id}",
            limit=settings.SCHEDULER_HOST_API_WRITES_PER_MINUTE,
        )
        try:
            # What a service has begun it takes back itself, in a savepoint of its own.
            return handler(install, body)
        except RefusedByRule as refusal:
            return Response(_refusal_body(refusal))


def _actor(install: ExtensionInstall) -> audit.Actor:
    return audit.Actor(audit.Source.HOST_API, f"extension install {install.id}")


def _refusal_body(refusal: RefusedByRule) -> dict[str, Any]:
    fields = {_WIRE_NAMES.get(name, name): text for name, text in refusal.fields.items()}
    return {"success": False, "error": refusal.message, "fieldErrors": fields}


def _handle_exception(error: Exception, context: dict[str, Any]) -> Response | None:
    response = errors.handle_exception(error, context)
    if response is not None:
        response.data = {"error": response.data["message"]}
    return response
