"""How long runs are kept, and the counts that outlive them.

Finished runs are counted once, on the day (UTC) of their end: `count_finished` moves one mark forward and adds what
ended before it. `purge` deletes only what is behind that mark.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final, cast
from uuid import UUID

from django.db import connection, transaction

from schedules.models import RunCountProgress, Tenant

# Statements end within a minute (the server's statement_timeout), so what has not shown up after two never will.
SETTLED_AFTER: Final = timedelta(minutes=2)
BATCH: Final = 5000
KEEP_NOTIFICATIONS: Final = timedelta(days=30)


def count_finished() -> int:
    """Add the runs that have ended since the last call to the daily counts; returns how many.

    One transaction under a lock of its own, so that no run is counted twice. A run counts two minutes after its end.
    """
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_FIRST_MARK)
        progress = RunCountProgress.objects.select_for_update().get(id=1)
        cursor.execute("SELECT statement_timestamp()")
        (now,) = cursor.fetchone()
        until = now - SETTLED_AFTER
        if until <= progress.until:
            return 0
        # The marks are given as values, by which the planner can tell how few runs lie between them.
        cursor.execute(_COUNT, {"since": progress.until, "until": until})
        (counted,) = cursor.fetchone()
        progress.until = until
        progress.save()
    return int(counted)


def purge(*, batch_size: int = BATCH) -> int:
    """Delete the runs whose time is over, tenant by tenant; returns how many.

    Each batch is a statement and a transaction of its own, so locks are short; rows that somebody works on are left to
    the next pass. A repeat finds nothing to do.
    """
    deleted = 0
    for tenant_id, days in Tenant.objects.values_list("id", "keep_succeeded_days"):
        deleted += _purge(tenant_id, succeeded=True, keep=timedelta(days=days), batch_size=batch_size)
    for tenant_id, days in Tenant.objects.values_list("id", "keep_other_days"):
        deleted += _purge(tenant_id, succeeded=False, keep=timedelta(days=days), batch_size=batch_size)
    with connection.cursor() as cursor:
        cursor.execute(_PURGE_NOTIFICATIONS, {"keep": cast("Any", KEEP_NOTIFICATIONS)})
    return deleted


def _purge(tenant_id: UUID, *, succeeded: bool, keep: timedelta, batch_size: int) -> int:
    deleted = 0
    while True:
        with connection.cursor() as cursor:
            statement = _PURGE_SUCCEEDED if succeeded else _PURGE_OTHERS
            values: dict[str, Any] = {"tenant_id": tenant_id, "keep": keep, "batch": batch_size}
            cursor.execute(statement, values)
            found = int(cursor.rowcount)
        deleted += found
        if found < batch_size:
            return deleted


_FIRST_MARK: Final = """
INSERT INTO schedules_runcountprogress (id, until)
VALUES (1, 'epoch'::timestamptz) ON CONFLICT DO NOTHING
"""

_COUNT: Final = """
WITH ended AS (
    SELECT run.tenant_id, run.install_id, run.schedule_id, (run.finished_at AT TIME ZONE 'UTC')::date AS day, run.status
    FROM schedules_tenant tenant
    JOIN schedules_schedulerun run
      ON run.tenant_id = tenant.id AND run.finished_at > %(since)s AND run.finished_at <= %(until)s
     AND run.status IN ('succeeded', 'failed', 'timed_out', 'cancelled', 'skipped_overlap', 'skipped_disabled',
                        'missed', 'superseded')
), counted AS (
    INSERT INTO schedules_runcount AS total (tenant_id, install_id, schedule_id, day, status, count)
    SELECT tenant_id, install_id, schedule_id, day, status, count(*)
    FROM ended
    GROUP BY GROUPING SETS ((tenant_id, install_id, schedule_id, day, status), (tenant_id, install_id, day, status),
                            (tenant_id, day, status))
    ON CONFLICT (tenant_id, schedule_id, install_id, day, status) DO UPDATE SET count = total.count + EXCLUDED.count
)
SELECT count(*) FROM ended
"""

_PURGE_SUCCEEDED: Final = """
DELETE FROM schedules_schedulerun WHERE id IN (
    SELECT id FROM schedules_schedulerun
    WHERE tenant_id = %(tenant_id)s AND status = 'succeeded' AND finished_at < statement_timestamp() - %(keep)s
      AND finished_at <= (SELECT until FROM schedules_runcountprogress)
    ORDER BY finished_at LIMIT %(batch)s FOR UPDATE SKIP LOCKED
)
"""

_PURGE_OTHERS: Final = """
DELETE FROM schedules_schedulerun WHERE id IN (
    SELECT id FROM schedules_schedulerun
    WHERE tenant_id = %(tenant_id)s
      AND status IN ('failed', 'timed_out', 'cancelled', 'skipped_overlap', 'skipped_disabled', 'missed', 'superseded')
      AND finished_at < statement_timestamp() - %(keep)s
      AND finished_at <= (SELECT until FROM schedules_runcountprogress)
    LIMIT %(batch)s FOR UPDATE SKIP LOCKED
)
"""

_PURGE_NOTIFICATIONS: Final = """
DELETE FROM schedules_notification WHERE next_attempt_at IS NULL AND created_at < statement_timestamp() - %(keep)s
"""
