"""The shapes of the host API, with the member names of its wire; see `shapes`."""

from __future__ import annotations

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from schedules.api import shapes
from schedules.api.fields import PayloadField, StoredJSONField
from schedules.models import RunStatus, SyncState


def only(value: str | bool) -> serializers.JSONField:  # noqa: FBT001 - true and false are words of the wire
    """A member that is always the same: what tells one shape from another."""
    schema = {"type": "boolean" if isinstance(value, bool) else "string", "const": value}
    # A class of its own: the framework copies fields, and what is set on one of them gets lost.
    field: serializers.JSONField = extend_schema_field(schema)(type("Only", (serializers.JSONField,), {}))()
    return field


class HostError(shapes.Shape):
    """What the host API says where the transport fails."""

    error = shapes.words()

    example = {"error": "operation must be one of list, get, create, update, delete, getEndpoints"}


class ScheduleInfo(shapes.Shape):
    """A schedule as its extension sees it."""

    id = serializers.UUIDField()
    endpointPath = shapes.words()  # noqa: N815 - the wire's spelling, as below
    endpointMethod = shapes.words()  # noqa: N815
    name = shapes.words(allow_null=True)
    cron = shapes.words()
    timezone = shapes.words()
    enabled = serializers.BooleanField()
    payload = PayloadField(allow_null=True)
    lastRunAt = shapes.moment(allow_null=True)  # noqa: N815
    lastRunStatus = serializers.ChoiceField(choices=RunStatus.choices, allow_null=True)  # noqa: N815
    lastError = shapes.words(allow_null=True)  # noqa: N815
    createdAt = shapes.moment()  # noqa: N815
    nextRunAt = shapes.moment(allow_null=True)  # noqa: N815
    syncState = serializers.ChoiceField(choices=SyncState.choices)  # noqa: N815

    example = {
        "id": shapes.SCHEDULE,
        "endpointPath": "/api/heartbeat",
        "endpointMethod": "POST",
        "name": "Heartbeat",
        "cron": "*/10 * * * *",
        "timezone": "UTC",
        "enabled": True,
        "payload": {"a": 1},
        "lastRunAt": None,
        "lastRunStatus": None,
        "lastError": None,
        "createdAt": "2026-03-01T09:00:00Z",
        "nextRunAt": "2026-03-01T09:10:00Z",
        "syncState": "synced",
    }


class HostList(shapes.Shape):
    """The answer to `list`."""

    schedules = ScheduleInfo(many=True)

    example = {"schedules": [ScheduleInfo.example]}


class HostGet(shapes.Shape):
    """The answer to `get`."""

    schedule = ScheduleInfo(allow_null=True)

    example = {"schedule": ScheduleInfo.example}


class HostEndpoints(shapes.Shape):
    """The answer to `getEndpoints`."""

    endpoints = shapes.Endpoint(many=True)

    example = {"endpoints": [shapes.Endpoint.example]}


class HostSuccess(shapes.Shape):
    """The answer to `update` and `delete`."""

    success = only(value=True)

    example = {"success": True}


class HostCreated(HostSuccess):
    """The answer to `create`."""

    scheduleId = serializers.UUIDField()  # noqa: N815

    example = {"success": True, "scheduleId": shapes.SCHEDULE}


class HostRefusal(shapes.Shape):
    """A refusal by the rules of scheduling, which is an answer and no failure of the transport."""

    success = only(value=False)
    error = shapes.words("Begins as contracted, e.g. `Cron too frequent`; detail may follow.")
    fieldErrors = serializers.DictField(child=serializers.CharField())  # noqa: N815

    example = {
        "success": False,
        "error": shapes.FREQUENT,
        "fieldErrors": {"cron": shapes.FREQUENT},
    }


class HostMembers(shapes.Shape):
    """What an extension may say of a schedule. Rules are answers, so the types alone are told here."""

    endpoint = serializers.CharField(required=False, allow_null=True, help_text="`METHOD /path`, or a path alone.")
    cron = serializers.CharField(required=False, allow_null=True)
    timezone = serializers.CharField(required=False, allow_null=True)
    enabled = serializers.BooleanField(required=False, allow_null=True)
    name = serializers.CharField(required=False, allow_null=True)
    payload = StoredJSONField(required=False, help_text="An object or an array; null or an empty text clears it.")


class HostListRequest(shapes.Shape):
    """The install's schedules, oldest first."""

    operation = only("list")

    example = {"operation": "list"}


class HostGetRequest(shapes.Shape):
    """One schedule, or null."""

    operation = only("get")
    scheduleId = shapes.words()  # noqa: N815

    example = {"operation": "get", "scheduleId": shapes.SCHEDULE}


class HostCreateRequest(HostMembers):
    """A new schedule."""

    operation = only("create")

    example = {
        "operation": "create",
        "endpoint": "POST /api/heartbeat",
        "cron": "*/10 * * * *",
        "timezone": "Europe/Berlin",
        "name": "Heartbeat",
        "payload": {"a": 1},
    }


class HostUpdateRequest(HostMembers):
    """A change of the given members; null clears the name or the payload."""

    operation = only("update")
    scheduleId = shapes.words()  # noqa: N815

    example = {"operation": "update", "scheduleId": shapes.SCHEDULE, "enabled": False}


class HostDeleteRequest(shapes.Shape):
    """The end of a schedule."""

    operation = only("delete")
    scheduleId = shapes.words()  # noqa: N815

    example = {"operation": "delete", "scheduleId": shapes.SCHEDULE}


class HostEndpointsRequest(shapes.Shape):
    """The endpoints of the installed version."""

    operation = only("getEndpoints")

    example = {"operation": "getEndpoints"}
