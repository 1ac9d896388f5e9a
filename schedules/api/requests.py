"""Shapes of requests. Types and presence are checked here, rules in the services."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from django.core.validators import RegexValidator
from rest_framework import serializers

from schedules import cron, policies, preview, stats
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
    MAX_KILL_REASON_LENGTH,
    MAX_NAME_LENGTH,
    MAX_PATH_LENGTH,
    MAX_TARGET_LENGTH,
    KillScope,
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
INSTALL_ORDERS: Final[Mapping[str, tuple[str, ...]]] = {"created_at": ("created_at", "id")}
AUDIT_ORDERS: Final[Mapping[str, tuple[str, ...]]] = {"-at": ("-at", "-id")}
NOTIFICATION_ORDERS: Final[Mapping[str, tuple[str, ...]]] = {"-created_at": ("-created_at", "-id")}
RUN_ORDERS: Final[Mapping[str, tuple[str, ...]]] = {"-slot": ("-slot", "-id"), "slot": ("slot", "id")}


# The rules are in `schedules.cron`, which says them better than a length that is exceeded.
_TIME: Final[Mapping[str, Any]] = {
    "cron": {"maxLength": cron.MAX_EXPRESSION_LENGTH, "description": "Five fields.", "examples": ["30 2 * * *"]},
    "timezone": {"maxLength": cron.MAX_ZONE_LENGTH, "description": "An IANA name; null is the tenant's own."},
}


class Nothing(StrictSerializer):
    """The body of what needs none."""


class ScheduleWrite(StrictSerializer):
    """The writable members of a schedule, for create and update."""

    endpoint = TextField(required=False)
    endpoint_id = IdField(required=False)
    name = TextField(
        required=False,
        allow_null=True,
        allow_blank=True,
    )
    cron = TextField(required=False, allow_blank=True, trim_whitespace=False)
    timezone = TextField(required=False, allow_null=True)
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
            **_TIME,
            "endpoint": {"maxLength": MAX_PATH_LENGTH + 16, "description": "`METHOD /path`, or a path alone."},
            "endpoint_id": {"description": "One of the installed version's; instead of `endpoint`."},
            "name": {"maxLength": MAX_NAME_LENGTH, "description": "Unique in the install; null clears it."},
            "payload": {"description": "What each call sends; null clears it."},
        }
    }
    example = {"cron": "45 2 * * *", "payload": {"region": "us"}}


class ScheduleCreate(ScheduleWrite):
    """A new schedule. Its services say what is missing together with everything else that is wrong."""

    document = ScheduleWrite.document | {
        "required": ["cron"],
        "oneOf": [{"required": ["endpoint"]}, {"required": ["endpoint_id"]}],
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

    cron = TextField(allow_blank=True, trim_whitespace=False)
    timezone = TextField(required=False, allow_null=True)
    count = CountField(required=False, default=preview.DEFAULT_COUNT)
    after = MomentField(required=False, allow_null=True)
    schedule_id = IdField(required=False, allow_null=True)

    document = {"properties": {**_TIME, "count": {"minimum": 1, "maximum": preview.MAX_COUNT}}}
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

    @staticmethod
    def filters(checked: Mapping[str, Any]) -> dict[str, Any]:
        """Of the checked parameters those that choose rows, and not their page."""
        return {name: value for name, value in checked.items() if name not in {"cursor", "page_size", "order"}}


class ScheduleQuery(PageQuery):
    """Which schedules a list shows."""

    enabled = FlagParameter(required=False, help_text="Those that are, or those that are not.")
    last_run_status = serializers.ChoiceField(
        choices=RunStatus.choices, required=False, help_text="How the last run ended."
    )
    endpoint = serializers.CharField(
        required=False, max_length=MAX_PATH_LENGTH, help_text="`METHOD /path`, or a path alone."
    )
    search = serializers.CharField(
        required=False, max_length=MAX_NAME_LENGTH, help_text="A part of the name or of the endpoint's path."
    )
    order = serializers.ChoiceField(
        choices=list(SCHEDULE_ORDERS), required=False, help_text="`-` in front puts the newest first."
    )


class RunQuery(PageQuery):
    """Which runs a list shows."""

    status = serializers.MultipleChoiceField(choices=RunStatus.choices, required=False, help_text="May repeat.")
    trigger = serializers.ChoiceField(choices=Trigger.choices, required=False, help_text="Why the run exists.")
    slot_from = MomentField(required=False, help_text="Slots at or after this time.")
    slot_until = MomentField(required=False, help_text="Slots before this time.")
    order = serializers.ChoiceField(
        choices=list(RUN_ORDERS), required=False, help_text="`-` in front puts the newest first."
    )


class TenantPageQuery(PageQuery):
    """Which page of a tenant's list."""

    tenant_id = IdField(required=False, help_text="Needed where the caller works in several tenants.")


class AuditQuery(TenantPageQuery):
    """Which events of the audit trail."""

    subject_id = IdField(required=False, help_text="What was changed: a schedule, an install, an API key and so on.")


class TenantQuery(Query):
    """Which tenant a request is about."""

    tenant_id = IdField(required=False, help_text="Needed where the caller works in several tenants.")


class TenantStatsQuery(TenantQuery):
    """Which of a tenant's numbers."""

    days = CountParameter(
        required=False, default=stats.DEFAULT_DAYS, min_value=1, max_value=stats.MAX_DAYS, help_text="Until today."
    )


class StatsQuery(Query):
    """Which of an install's numbers."""

    days = CountParameter(
        required=False, default=stats.DEFAULT_DAYS, min_value=1, max_value=stats.MAX_DAYS, help_text="Until today."
    )
    schedule_id = IdField(required=False, help_text="One schedule alone.")


class ChannelCreate(StrictSerializer):
    """The body of a new notification channel."""

    kind = TextField(max_length=16)
    target = TextField(max_length=MAX_TARGET_LENGTH)
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

    target = TextField(required=False, max_length=MAX_TARGET_LENGTH)
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


class KillSwitchEngage(StrictSerializer):
    """The body of a kill switch."""

    scope = serializers.ChoiceField(choices=KillScope.choices)
    target = TextField(
        required=False,
        default="",
        max_length=512,
        help_text=(
            "A tenant's id; an extension's registry id or slug; a version's id or `publisher.name@version`. "
            "Nothing for the whole platform."
        ),
    )
    reason = TextField(max_length=MAX_KILL_REASON_LENGTH, help_text="Shown to everybody who wonders.")

    example = {"scope": "extension", "target": "acme.reports", "reason": "it floods a partner"}


class UpgradePreview(StrictSerializer):
    """The body of the question what an upgrade would do."""

    version = TextField(max_length=64, help_text="The version to take, later or earlier than the installed one.")

    example = {"version": "2.0.0"}


class Upgrade(StrictSerializer):
    """The body of an upgrade, and of the way back. Its members are spelt as its callers know them."""

    registryId = TextField(  # noqa: N815 - the contract's
        max_length=320, help_text="The extension: its registry id, its slug `publisher.name`, or the id of the install."
    )
    version = TextField(max_length=64)
    disableMissingSchedules = FlagField(  # noqa: N815
        required=False,
        default=False,
        help_text="Disable the schedules that have nowhere to go, instead of refusing the upgrade.",
    )
    planToken = TextField(  # noqa: N815
        required=False,
        allow_null=True,
        default=None,
        max_length=128,
        help_text="The `plan_token` of the plan that was shown: nothing is done if the plan would be another one now.",
    )
    remap = serializers.DictField(
        child=TextField(max_length=MAX_PATH_LENGTH + 16),
        required=False,
        default=dict,
        help_text="Where schedules are to go: by `METHOD /path` of what they call, or by their id.",
    )

    example = {
        "registryId": "acme.reports",
        "version": "2.0.0",
        "remap": {"POST /api/heartbeat": "POST /api/v2/heartbeat"},
        "disableMissingSchedules": True,
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
