"""Shapes of requests and answers. Types and presence are checked here, rules in the services."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from django.core.validators import RegexValidator
from rest_framework import serializers

from schedules import payloads, policies, preview, queries, stats
from schedules.models import (
    MAX_NAME_LENGTH,
    MAX_PATH_LENGTH,
    ApiEndpoint,
    ApiKey,
    NotificationChannel,
    Role,
    RunStatus,
    Schedule,
    ScheduleRun,
    Tenant,
    Trigger,
)


class TextField(serializers.CharField):
    """A JSON string, and nothing that could be turned into one."""

    def to_internal_value(self, data: Any) -> str:
        """Refuse other types instead of converting them."""
        if not isinstance(data, str):
            raise serializers.ValidationError("must be a text")
        return super().to_internal_value(data)


class FlagField(serializers.BooleanField):
    """A JSON boolean, and nothing that could be read as one."""

    def to_internal_value(self, data: Any) -> bool:
        """Refuse other types instead of converting them."""
        if not isinstance(data, bool):
            raise serializers.ValidationError("must be true or false")
        return data


class CountField(serializers.IntegerField):
    """A JSON integer, and nothing that could be read as one."""

    def to_internal_value(self, data: Any) -> int:
        """Refuse other types instead of converting them."""
        if isinstance(data, bool) or not isinstance(data, int):
            raise serializers.ValidationError("must be a whole number")
        return super().to_internal_value(data)


class NumberField(serializers.FloatField):
    """A JSON number, and nothing that could be read as one."""

    def to_internal_value(self, data: Any) -> float:
        """Refuse other types instead of converting them."""
        if isinstance(data, bool) or not isinstance(data, int | float):
            raise serializers.ValidationError("must be a number")
        try:
            return super().to_internal_value(data)
        except OverflowError:
            raise serializers.ValidationError("must be a number of ordinary size") from None


class MomentField(serializers.Field[datetime, str, str, Any]):
    """A time as RFC 3339 has it, with its offset from UTC."""

    def to_internal_value(self, data: Any) -> datetime:
        """Refuse what is no time, or none that can be told in UTC."""
        try:
            moment = datetime.fromisoformat(data).astimezone(UTC) if isinstance(data, str) else None
            if moment is not None and datetime.fromisoformat(data).tzinfo is not None:
                return moment
        except (ValueError, OverflowError):
            pass
        raise serializers.ValidationError("must be a time such as 2026-03-29T01:00:00Z")

    def to_representation(self, value: datetime) -> str:
        """As it is shown everywhere."""
        return str(rfc3339(value))


class StoredJSONField(serializers.JSONField):
    """Any JSON value that can be stored."""

    def to_internal_value(self, data: Any) -> Any:
        """Refuse what the database or the wire cannot hold."""
        if problem := payloads.problem_with_json(data):
            raise serializers.ValidationError(problem)
        return data


class ObjectField(StoredJSONField):
    """A JSON object that can be stored."""

    def to_internal_value(self, data: Any) -> Any:
        """Refuse other types."""
        if not isinstance(data, dict):
            raise serializers.ValidationError("must be an object")
        return super().to_internal_value(data)


class StrictSerializer(serializers.Serializer[Any]):
    """Refuses members it does not know: a misspelt one would otherwise be lost without a word."""

    default_error_messages = {"invalid": "must be a JSON object", "null": "must be a JSON object"}

    def to_internal_value(self, data: Any) -> Any:
        """Check for unknown members before the known ones."""
        if isinstance(data, Mapping):
            unknown = sorted(ascii(name)[1:65].rstrip("'") for name in set(data) - set(self.fields))
            if unknown:
                raise serializers.ValidationError({name: ["is not a member of this request"] for name in unknown})
        return super().to_internal_value(data)


class ScheduleWrite(StrictSerializer):
    """The writable members of a schedule, for create and update."""

    endpoint = TextField(required=False, max_length=MAX_PATH_LENGTH + 16)
    endpoint_id = serializers.UUIDField(required=False)
    name = TextField(
        required=False,
        allow_null=True,
        allow_blank=True,
        max_length=MAX_NAME_LENGTH * 2,
    )
    cron = TextField(required=False, allow_blank=True, max_length=1024, trim_whitespace=False)
    timezone = TextField(required=False, allow_null=True, max_length=256)
    enabled = FlagField(required=False)
    payload = serializers.JSONField(required=False, allow_null=True)
    overlap_policy = TextField(required=False, max_length=64)
    catch_up_policy = TextField(required=False, max_length=64)
    retry_max_attempts = CountField(required=False)
    retry_first_delay_seconds = CountField(required=False)
    retry_factor = NumberField(required=False)
    retry_longest_delay_seconds = CountField(required=False)
    run_deadline_seconds = CountField(required=False)
    attempt_timeout_seconds = CountField(required=False, allow_null=True)
    pause_after_failures = CountField(required=False, allow_null=True)


class PreviewRequest(StrictSerializer):
    """The body of a preview request."""

    cron = TextField(allow_blank=True, max_length=1024, trim_whitespace=False)
    timezone = TextField(required=False, allow_null=True, max_length=256)
    count = CountField(required=False, default=preview.DEFAULT_COUNT)
    after = MomentField(required=False, allow_null=True)
    schedule_id = serializers.UUIDField(required=False, allow_null=True)


class RunNowRequest(StrictSerializer):
    """The body of a run-now request."""

    payload = serializers.JSONField(required=False, allow_null=True)


class BackfillRequest(StrictSerializer):
    """The body of a backfill: a past range, its start included and its end not."""

    start = MomentField()
    end = MomentField()
    one_at_a_time = FlagField(required=False, default=True)


class TenantChange(StrictSerializer):
    """The settings that a tenant keeps itself."""

    keep_succeeded_days = CountField(required=False, min_value=1, max_value=3650)
    keep_other_days = CountField(required=False, min_value=1, max_value=3650)


class ScheduleQuery(serializers.Serializer[Any]):
    """Which schedules a list shows."""

    enabled = serializers.BooleanField(required=False, allow_null=True, default=None)
    last_run_status = serializers.ChoiceField(choices=RunStatus.choices, required=False)
    endpoint = serializers.CharField(required=False, max_length=MAX_PATH_LENGTH)
    search = serializers.CharField(required=False, max_length=MAX_NAME_LENGTH)


class RunQuery(serializers.Serializer[Any]):
    """Which runs a list shows."""

    status = serializers.MultipleChoiceField(choices=RunStatus.choices, required=False)
    trigger = serializers.ChoiceField(choices=Trigger.choices, required=False)
    slot_from = MomentField(required=False)
    slot_until = MomentField(required=False)


class StatsQuery(serializers.Serializer[Any]):
    """The query of a stats request."""

    days = serializers.IntegerField(required=False, default=stats.DEFAULT_DAYS, min_value=1, max_value=stats.MAX_DAYS)
    schedule_id = serializers.UUIDField(required=False)


class ChannelCreate(StrictSerializer):
    """The body of a new notification channel."""

    kind = TextField(max_length=16)
    target = TextField(max_length=2048)
    events = serializers.ListField(child=TextField(max_length=32), max_length=20)


class ChannelChange(StrictSerializer):
    """The members of a notification channel that can change."""

    target = TextField(required=False, max_length=2048)
    events = serializers.ListField(child=TextField(max_length=32), required=False, max_length=20)
    is_active = FlagField(required=False)


class ApiKeyCreate(StrictSerializer):
    """The body of a new API key."""

    name = TextField(max_length=MAX_NAME_LENGTH)
    role = serializers.ChoiceField(choices=Role.choices, default=Role.VIEWER)
    expires_at = MomentField(required=False, allow_null=True)


class TenantPut(StrictSerializer):
    """The body of a tenant's registration."""

    name = TextField(max_length=MAX_NAME_LENGTH)
    timezone = TextField(required=False, default="UTC", max_length=256)


class ExtensionPut(StrictSerializer):
    """The body of a registry entry."""

    publisher = TextField(max_length=MAX_NAME_LENGTH)
    name = TextField(max_length=MAX_NAME_LENGTH)


class VersionPut(StrictSerializer):
    """The body of a published version."""

    version_id = serializers.UUIDField(required=False, allow_null=True)
    content_hash = TextField(
        max_length=128, trim_whitespace=False, validators=[RegexValidator(r"\A[A-Za-z0-9+/=:_.-]+\Z", "is no hash")]
    )
    manifest = ObjectField()


class InstallPut(StrictSerializer):
    """The body of an install."""

    install_id = serializers.UUIDField(required=False, allow_null=True)
    version = TextField(max_length=64)
    is_enabled = FlagField(required=False, default=True)
    config = ObjectField(required=False, default=dict)
    granted_caps = serializers.ListField(
        child=TextField(max_length=MAX_NAME_LENGTH), required=False, default=list, max_length=200
    )
    secret_envelope = ObjectField(required=False, allow_null=True, default=None)


def rfc3339(moment: datetime | None) -> str | None:
    """A time as RFC 3339 in UTC, or None."""
    return None if moment is None else payloads.moment_text(moment)


def render_endpoint(endpoint: ApiEndpoint) -> dict[str, Any]:
    """An endpoint as both APIs show it."""
    return {
        "id": str(endpoint.id),
        "method": endpoint.method,
        "path": endpoint.path,
        "handler": endpoint.handler,
        "schedulable": endpoint.schedulable,
    }


def render_schedule(schedule: Schedule, *, install_enabled: bool, now: datetime) -> dict[str, Any]:
    """A schedule as the admin API shows it."""
    return {
        "id": str(schedule.id),
        "install_id": str(schedule.install_id),
        "endpoint_id": str(schedule.endpoint_id) if schedule.endpoint_id else None,
        "endpoint_method": schedule.endpoint_method,
        "endpoint_path": schedule.endpoint_path,
        "name": schedule.name,
        "cron": schedule.cron,
        "timezone": schedule.timezone,
        "enabled": schedule.enabled,
        "disabled_reason": schedule.disabled_reason or None,
        "payload": schedule.payload,
        **{member: getattr(schedule, member) for member in sorted(policies.MEMBERS)},
        "consecutive_failures": schedule.consecutive_failures,
        "revision": schedule.revision,
        "sync_state": schedule.sync_state,
        "sync_error": schedule.sync_error or None,
        "next_run_at": rfc3339(queries.next_slot_of(schedule, after=now, install_enabled=install_enabled)),
        "last_run_at": rfc3339(schedule.last_run_at),
        "last_run_status": schedule.last_run_status or None,
        "last_error": schedule.last_error or None,
        "created_at": rfc3339(schedule.created_at),
        "updated_at": rfc3339(schedule.updated_at),
    }


def render_host_schedule(schedule: Schedule, *, install_enabled: bool, now: datetime) -> dict[str, Any]:
    """A schedule as the host API shows it to the extension (``ScheduleInfo``)."""
    return {
        "id": str(schedule.id),
        "endpointPath": schedule.endpoint_path,
        "endpointMethod": schedule.endpoint_method,
        "name": schedule.name,
        "cron": schedule.cron,
        "timezone": schedule.timezone,
        "enabled": schedule.enabled,
        "payload": schedule.payload,
        "lastRunAt": rfc3339(schedule.last_run_at),
        "lastRunStatus": schedule.last_run_status or None,
        "lastError": schedule.last_error or None,
        "createdAt": rfc3339(schedule.created_at),
        "nextRunAt": rfc3339(queries.next_slot_of(schedule, after=now, install_enabled=install_enabled)),
        "syncState": schedule.sync_state,
    }


def render_preview(shown: preview.Preview) -> dict[str, Any]:
    """A preview as the admin API shows it."""
    return {
        "cron": shown.cron,
        "timezone": shown.zone.key,
        "words": shown.words,
        "shortest_gap_seconds": shown.shortest_gap_seconds,
        "follows_elapsed_time": shown.follows_elapsed_time,
        "next_runs": [{"utc": rfc3339(slot), "local": slot.astimezone(shown.zone).isoformat()} for slot in shown.slots],
        "clock_changes": [
            {"at": rfc3339(note.at), "kind": note.kind, "text": note.text} for note in shown.clock_changes
        ],
        "warnings": [{"code": warning.code, "text": warning.text} for warning in shown.warnings],
    }


def render_tenant(tenant: Tenant) -> dict[str, Any]:
    """A tenant and its settings."""
    return {
        "id": str(tenant.id),
        "name": tenant.name,
        "timezone": tenant.timezone,
        "keep_succeeded_days": tenant.keep_succeeded_days,
        "keep_other_days": tenant.keep_other_days,
    }


def render_channel(channel: NotificationChannel) -> dict[str, Any]:
    """A notification channel, without its secret."""
    return {
        "id": str(channel.id),
        "kind": channel.kind,
        "target": channel.target,
        "events": channel.events,
        "is_active": channel.is_active,
        "created_at": rfc3339(channel.created_at),
    }


def render_api_key(key: ApiKey) -> dict[str, Any]:
    """An API key, which nobody sees the text of any more."""
    return {
        "id": str(key.id),
        "name": key.name,
        "role": key.role,
        "prefix": key.prefix,
        "created_at": rfc3339(key.created_at),
        "expires_at": rfc3339(key.expires_at),
        "last_used_at": rfc3339(key.last_used_at),
        "revoked_at": rfc3339(key.revoked_at),
    }


def render_stats(found: stats.Stats) -> dict[str, Any]:
    """Numbers of runs as the admin API shows them."""
    return {
        "days": found.days,
        "runs_by_status": found.by_status,
        "success_rate": found.success_rate,
        "duration_ms": {"p50": found.duration_ms_p50, "p95": found.duration_ms_p95},
        "lateness_ms": {"p50": found.lateness_ms_p50, "p95": found.lateness_ms_p95},
        "last_success_at": rfc3339(found.last_success_at),
        "next_slot_at": rfc3339(found.next_slot_at),
    }


def render_run(run: ScheduleRun, *, with_payload: bool = False) -> dict[str, Any]:
    """A run as the admin API shows it; what it sent only where it is shown alone."""
    payload = {"payload": run.payload} if with_payload else {}
    return payload | {
        "id": str(run.id),
        "install_id": str(run.install_id),
        "idempotency_key": f"{run.id}:{run.failed_envelopes}",
        "schedule_id": str(run.schedule_id),
        "status": run.status,
        "reason": run.reason or None,
        "trigger": run.trigger,
        "slot": rfc3339(run.slot),
        "created_at": rfc3339(run.created_at),
        "started_at": rfc3339(run.started_at),
        "finished_at": rfc3339(run.finished_at),
        "duration_ms": run.duration_ms,
        "lateness_ms": run.lateness_ms,
        "attempts": run.attempts,
        "attempt_log": run.attempt_log,
        "version": run.version_name or None,
        "content_hash": run.content_hash or None,
        "endpoint_method": run.endpoint_method or None,
        "endpoint_path": run.endpoint_path or None,
        "schedule_revision": run.schedule_revision,
        "actor": run.actor or None,
        "catch_up": run.catch_up,
        "blocked_by": str(run.blocked_by) if run.blocked_by else None,
        "replay_of": str(run.replay_of) if run.replay_of else None,
        "cancel_requested_at": rfc3339(run.cancel_requested_at),
        "http_status": run.http_status,
        "error": run.error or None,
        "response_bytes": run.response_bytes,
        "response_text": run.response_text or None,
        "workflow_id": run.workflow_id or None,
        "workflow_run_id": run.workflow_run_id or None,
    }
