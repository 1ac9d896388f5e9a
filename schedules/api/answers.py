"""What the APIs answer, row by row. The shapes, as callers may rely on them, are in `shapes`."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from schedules import payloads, policies, preview, queries, remap, stats, upgrades
from schedules.models import (
    EVERYTHING,
    ApiEndpoint,
    ApiKey,
    AuditEvent,
    ExtensionInstall,
    KillSwitch,
    Notification,
    NotificationChannel,
    Schedule,
    ScheduleRun,
    Tenant,
)


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
        "held": {"since": rfc3339(schedule.held_since), "note": schedule.held_note or None}
        if schedule.held_since
        else None,
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


def render_install(install: ExtensionInstall, *, stop: KillSwitch | None) -> dict[str, Any]:
    """An install, without what the platform alone knows of it, and what an operator stopped it by."""
    return {
        "id": str(install.id),
        "registry_id": str(install.extension_id),
        "publisher": install.extension.publisher,
        "name": install.extension.name,
        "version": install.version.version,
        "is_enabled": install.is_enabled,
        "stopped": {"since": rfc3339(stop.created_at), "reason": stop.reason} if stop else None,
        "granted_caps": install.granted_caps,
        "created_at": rfc3339(install.created_at),
    }


def render_audit_event(event: AuditEvent) -> dict[str, Any]:
    """Who changed what, through which door."""
    return {
        "at": rfc3339(event.at),
        "source": event.source,
        "actor": event.actor,
        "action": event.action,
        "subject_type": event.subject_type,
        "subject_id": str(event.subject_id),
        "before": event.before,
        "after": event.after,
    }


def render_notification(message: Notification) -> dict[str, Any]:
    """A message, and whether it arrived."""
    return {
        "id": str(message.id),
        "channel_id": str(message.channel_id),
        "event": message.event,
        "schedule_id": str(message.schedule_id),
        "created_at": rfc3339(message.created_at),
        "attempts": message.attempts,
        "next_attempt_at": rfc3339(message.next_attempt_at),
        "delivered_at": rfc3339(message.delivered_at),
        "last_error": message.last_error or None,
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


def render_plan(plan: upgrades.UpgradePlan, *, now: datetime) -> dict[str, Any]:
    """What an upgrade would do."""
    return {
        "install_id": str(plan.install.id),
        "from_version": plan.source.version,
        "to_version": plan.target.version,
        "plan_token": plan.token,
        "can_apply": not plan.blocking,
        "counts": remap.count(plan.steps),
        "capabilities": {"added": plan.added_capabilities, "removed": plan.removed_capabilities},
        "warnings": plan.warnings,
        "schedules": [
            {
                "schedule_id": str(step.schedule.id),
                "name": step.schedule.name or None,
                "enabled": step.schedule.enabled,
                "next_run_at": rfc3339(
                    queries.next_slot_of(
                        plan.schedules[step.schedule.id], after=now, install_enabled=plan.install.is_enabled
                    )
                ),
                "calls": str(step.schedule),
                "will_call": str(step.target) if step.target else None,
                "endpoint_id": str(step.target.id) if step.target else None,
                "fate": step.fate,
                "change": step.change,
                "reason": step.reason or None,
                "suggestions": [
                    {"endpoint": str(suggestion.endpoint), "ground": suggestion.ground}
                    for suggestion in step.suggestions
                ],
            }
            for step in plan.steps
        ],
    }


def render_upgrade(plan: upgrades.UpgradePlan) -> dict[str, Any]:
    """What an upgrade has done."""
    return {
        "success": True,
        "installId": str(plan.install.id),
        "previousVersion": plan.source.version,
        "version": plan.target.version,
        "counts": remap.count(plan.steps),
        "disabledScheduleIds": [str(step.schedule.id) for step in plan.steps if step.change is remap.Change.DISABLE],
        "enabledScheduleIds": [str(step.schedule.id) for step in plan.steps if step.change is remap.Change.ENABLE],
    }


def render_kill_switch(switch: KillSwitch) -> dict[str, Any]:
    """A kill switch as operators see it."""
    return {
        "id": str(switch.id),
        "scope": switch.scope,
        "target": switch.target,
        "target_id": None if switch.target_id == EVERYTHING else str(switch.target_id),
        "reason": switch.reason,
        "actor": switch.actor,
        "created_at": rfc3339(switch.created_at),
    }
