"""Ends runs that nothing else will end. The one place that writes a terminal state without an attempt's answer."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final
from uuid import UUID

from django.db import connection

from schedules.models import RunStatus

MAX_REASON_LENGTH: Final = 256


def close_run(
    *,
    tenant_id: UUID,
    run_id: UUID,
    status: RunStatus,
    reason: str,
    slot_of: tuple[UUID, UUID, datetime] | None = None,
) -> str:
    """Give an unfinished run its terminal state; returns the state that the run has then, or an empty text.

    ``slot_of`` is (install id, schedule id, slot) of a scheduled run that may not have a row yet: then it gets one,
    because every slot is accounted for. One statement; a repeat changes nothing.
    """
    values: dict[str, Any] = {
        "tenant_id": tenant_id,
        "run_id": run_id,
        "status": status,
        "reason": reason[:MAX_REASON_LENGTH],
        "error": "" if status == RunStatus.CANCELLED else reason[:MAX_REASON_LENGTH],
        "insert": slot_of is not None,
        "install_id": slot_of[0] if slot_of else None,
        "schedule_id": slot_of[1] if slot_of else None,
        "slot": slot_of[2] if slot_of else None,
    }
    with connection.cursor() as cursor:
        cursor.execute(_CLOSE, values)
        (found,) = cursor.fetchone()
    return found or ""


_CLOSE: Final = """
WITH closed AS (
    UPDATE schedules_schedulerun
    SET status = %(status)s, reason = %(reason)s, finished_at = clock_timestamp()
    WHERE tenant_id = %(tenant_id)s AND id = %(run_id)s AND status IN ('queued', 'running')
    RETURNING schedule_id, status, started_at, finished_at
), added AS (
    INSERT INTO schedules_schedulerun (
        id, tenant_id, install_id, schedule_id, trigger, slot, status, reason, version_name, content_hash,
        endpoint_method, endpoint_path, actor, error, workflow_id, workflow_run_id, finished_at
    )
    SELECT %(run_id)s, %(tenant_id)s, %(install_id)s::uuid, %(schedule_id)s::uuid, 'schedule',
           %(slot)s::timestamptz, %(status)s, %(reason)s, '', '', '', '', '', '', '', '', clock_timestamp()
    WHERE %(insert)s
    ON CONFLICT DO NOTHING
    RETURNING status
), noted AS (
    UPDATE schedules_schedule AS s
    SET last_run_at = closed.finished_at, last_run_status = closed.status, last_error = %(error)s
    FROM closed
    WHERE s.tenant_id = %(tenant_id)s AND s.id = closed.schedule_id AND closed.started_at IS NOT NULL
)
SELECT COALESCE(
    (SELECT status FROM closed),
    (SELECT status FROM added),
    (SELECT status FROM schedules_schedulerun WHERE tenant_id = %(tenant_id)s AND id = %(run_id)s)
)
"""
