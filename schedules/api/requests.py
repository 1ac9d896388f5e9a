"""Shapes of requests. Types and presence are checked here, rules in the services."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from django.core.validators import RegexValidator
from django.http import QueryDict
from rest_framework import serializers

from schedules import policies, preview, stats
from schedules.api.fields import (
    CountField,
    CountParameter,
    FlagField,
    FlagParameter,
    IdField,
    MomentField,
    NumberField,
    ObjectField,
    PayloadField,
    Query,
    StrictSerializer,
    TextField,
)
from schedules.models import (
    MAX_NAME_LENGTH,
    MAX_PATH_LENGTH,
    NotificationEvent,
    NotificationKind,
    Role,
    RunStatus,
    Trigger,
)

MAX_PAGE_SIZE: Final = 200
# What `?order=` may be, each made distinct, so that no page repeats or skips a row.
SCHEDULE_ORDERS: Final[Mapping[str, tuple[str, ...]]] = {
    "created_at": ("created_at", "id"),
    "-created_at": ("-created_at", "-id"),
    "updated_at": ("updated_at", "id"),
    "-updated_at": ("-updated_at", "-id"),
}
RUN_ORDERS: Final[Mapping[str, tuple[str, ...]]] = {"-slot": ("-slot", "-id"), "slot": ("slot", "id")}


class ScheduleWrite(StrictSerializer):
    """The writable members of a schedule, for create and update."""

    endpoint = TextField(required=False, max_length=MAX_PATH_LENGTH + 16)
    endpoint_id = IdField(required=False)
    name = TextField(
        required=False,
        allow_null=True,
        allow_blank=True,
        max_length=MAX_NAME_LENGTH * 2,
    )
    cron = TextField(required=False, allow_blank=True, max_length=1024, trim_whitespace=False)
    timezone = TextField(required=False, allow_null=True, max_length=256)
    enabled = FlagField(required=False)
    payload = PayloadField(required=False, allow_null=True)
    overlap_policy = TextField(required=False, max_length=64)
    catch_up_policy = TextField(required=False, max_length=64)
    retry_max_attempts = CountField(required=False)
    retry_first_delay_seconds = CountField(required=False)
    retry_factor = NumberField(required=False)
    retry_longest_delay_seconds = CountField(required=False)
    run_deadline_seconds = CountField(required=False)
    attempt_timeout_seconds = CountField(required=False, allow_null=True)
    pause_after_failures = CountField(required=False, allow_null=True)

    document = {
        "properties": {
            **{name: {"enum": words.values} for name, words in policies.CHOICES.items()},
            **{name: {"minimum": it.lowest, "maximum": it.highest} for name, it in policies.RANGES.items()},
            "cron": {"examples": ["30 2 * * *"]},
        }
    }
    example = {"cron": "45 2 * * *", "payload": {"region": "us"}}


class ScheduleCreate(ScheduleWrite):
    """A new schedule. Its services say what is missing together with everything else that is wrong."""

    document = ScheduleWrite.document | {
        "required": ["cron"],
        "anyOf": [{"required": ["endpoint"]}, {"required": ["endpoint_id"]}],
    }
    example = {
        "endpoint": "POST /api/heartbeat",
        "name": "Nightly report",
        "cron": "30 2 * * *",
        "timezone": "Europe/Berlin",
        "payload": {"region": "eu"},
    }


class PreviewRequest(StrictSerializer):
    """The body of a preview request."""

    cron = TextField(allow_blank=True, max_length=1024, trim_whitespace=False)
    timezone = TextField(required=False, allow_null=True, max_length=256)
    count = CountField(required=False, default=preview.DEFAULT_COUNT)
    after = MomentField(required=False, allow_null=True)
    schedule_id = IdField(required=False, allow_null=True)

    document = {"properties": {"count": {"minimum": 1, "maximum": preview.MAX_COUNT}}}
    example = {"cron": "30 2 * * *", "timezone": "Europe/Berlin", "count": 5, "after": "2026-03-28T00:00:00Z"}


class RunNowRequest(StrictSerializer):
    """The body of a run-now request."""

    payload = PayloadField(required=False, allow_null=True)

    example = {"payload": {"region": "us"}}


class BackfillRequest(StrictSerializer):
    """The body of a backfill: a past range, its start included and its end not."""

    start = MomentField()
    end = MomentField()
    one_at_a_time = FlagField(required=False, default=True)

    example = {"start": "2026-03-27T00:00:00Z", "end": "2026-03-28T00:00:00Z", "one_at_a_time": True}


class TenantChange(StrictSerializer):
    """The settings that a tenant keeps itself."""

    keep_succeeded_days = CountField(required=False, min_value=1, max_value=3650)
    keep_other_days = CountField(required=False, min_value=1, max_value=3650)

    example = {"keep_succeeded_days": 30, "keep_other_days": 90}


class PageQuery(Query):
    """Which page of a list."""

    cursor = serializers.CharField(required=False, help_text="Where the page begins: taken from `next` or `previous`.")
    page_size = CountParameter(
        required=False, min_value=1, max_value=MAX_PAGE_SIZE, help_text="How many rows a page has."
    )

    @classmethod
    def read_filters(cls, parameters: QueryDict) -> dict[str, Any]:
        """The checked parameters without those that the page itself is found by."""
        return {
            name: value
            for name, value in cls.read(parameters).items()
            if name not in {"cursor", "page_size", "order", "tenant_id"}
        }


class ScheduleQuery(PageQuery):
    """Which schedules a list shows."""

    enabled = FlagParameter(required=False)
    last_run_status = serializers.ChoiceField(choices=RunStatus.choices, required=False)
    endpoint = serializers.CharField(
        required=False, max_length=MAX_PATH_LENGTH, help_text="`METHOD /path`, or a path alone."
    )
    search = serializers.CharField(required=False, max_length=MAX_NAME_LENGTH, help_text="A part of the name.")
    order = serializers.ChoiceField(choices=list(SCHEDULE_ORDERS), required=False)


class RunQuery(PageQuery):
    """Which runs a list shows."""

    status = serializers.MultipleChoiceField(choices=RunStatus.choices, required=False, help_text="May repeat.")
    trigger = serializers.ChoiceField(choices=Trigger.choices, required=False)
    slot_from = MomentField(required=False, help_text="Slots at or after this time.")
    slot_until = MomentField(required=False, help_text="Slots before this time.")
    order = serializers.ChoiceField(choices=list(RUN_ORDERS), required=False)


class TenantQuery(Query):
    """Which tenant a request is about."""

    tenant_id = IdField(required=False, help_text="Needed where the caller works in several tenants.")


class TenantStatsQuery(TenantQuery):
    """Which of a tenant's numbers."""

    days = CountParameter(required=False, default=stats.DEFAULT_DAYS, min_value=1, max_value=stats.MAX_DAYS)


class StatsQuery(Query):
    """Which of an install's numbers."""

    days = CountParameter(required=False, default=stats.DEFAULT_DAYS, min_value=1, max_value=stats.MAX_DAYS)
    schedule_id = IdField(required=False)


class ChannelCreate(StrictSerializer):
    """The body of a new notification channel."""

    kind = TextField(max_length=16)
    target = TextField(max_length=2048)
    events = serializers.ListField(child=TextField(max_length=32), max_length=20)

    document = {
        "properties": {
            "kind": {"enum": NotificationKind.values},
            "events": {"items": {"type": "string", "enum": NotificationEvent.values}},
        }
    }
    example = {"kind": "email", "target": "oncall@example.com", "events": ["failure", "auto_pause"]}


class ChannelChange(StrictSerializer):
    """The members of a notification channel that can change."""

    target = TextField(required=False, max_length=2048)
    events = serializers.ListField(child=TextField(max_length=32), required=False, max_length=20)
    is_active = FlagField(required=False)

    document = {"properties": {"events": {"items": {"type": "string", "enum": NotificationEvent.values}}}}
    example = {"is_active": False}


class ApiKeyCreate(StrictSerializer):
    """The body of a new API key."""

    name = TextField(max_length=MAX_NAME_LENGTH)
    role = serializers.ChoiceField(choices=Role.choices, default=Role.VIEWER)
    expires_at = MomentField(required=False, allow_null=True)

    example = {"name": "deployments", "role": "administrator", "expires_at": None}


class TenantPut(StrictSerializer):
    """The body of a tenant's registration."""

    name = TextField(max_length=MAX_NAME_LENGTH)
    timezone = TextField(required=False, default="UTC", max_length=256)

    example = {"name": "Acme", "timezone": "Europe/Berlin"}


class ExtensionPut(StrictSerializer):
    """The body of a registry entry."""

    publisher = TextField(max_length=MAX_NAME_LENGTH)
    name = TextField(max_length=MAX_NAME_LENGTH)

    example = {"publisher": "acme", "name": "reports"}


class VersionPut(StrictSerializer):
    """The body of a published version."""

    version_id = IdField(required=False, allow_null=True)
    content_hash = TextField(
        max_length=128, trim_whitespace=False, validators=[RegexValidator(r"\A[A-Za-z0-9+/=:_.-]+\Z", "is no hash")]
    )
    manifest = ObjectField()

    example = {
        "content_hash": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "manifest": {
            "name": "com.acme.reports",
            "capabilities": ["cap:scheduler.manage"],
            "api": {"endpoints": [{"method": "POST", "path": "/api/heartbeat", "handler": "dist/main"}]},
        },
    }


class InstallPut(StrictSerializer):
    """The body of an install."""

    install_id = IdField(required=False, allow_null=True)
    version = TextField(max_length=64)
    is_enabled = FlagField(required=False, default=True)
    config = ObjectField(required=False, default=dict)
    granted_caps = serializers.ListField(
        child=TextField(max_length=MAX_NAME_LENGTH), required=False, default=list, max_length=200
    )
    secret_envelope = ObjectField(required=False, allow_null=True, default=None)

    example = {
        "version": "1.4.0",
        "is_enabled": True,
        "config": {"region": "eu"},
        "granted_caps": ["cap:scheduler.manage"],
    }
