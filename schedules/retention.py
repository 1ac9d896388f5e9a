"""How long runs are kept, and the counts that outlive them.

Finished runs are counted once, on the day (UTC) of their end: `count_finished` moves one mark forward and adds what
ended before it. `purge` deletes only what is behind that mark.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final, cast
from uuid import UUID

from django.db import connection, transaction

from schedules import idempotency, limits
from schedules.models import PassRecord, RunCountProgress, Tenant

# Not younger than this, to count in few steps; see `_SAFE_MARK` for what makes it safe.
SETTLED_AFTER: Final = timedelta(minutes=2)
BATCH: Final = 5000
OWN_NAME: Final = "purge"
KEEP_NOTIFICATIONS: Final = timedelta(days=30)
# Wrong passwords count for a quarter of an hour; the rest of the day is for whoever looks into an attack.
KEEP_ACCESS_ATTEMPTS: Final = timedelta(days=1)


def count_finished() -> int:
    """Add the runs that have ended since the last call to the daily counts; returns how many.

    One transaction under a lock of its own, so that no run is counted twice. A run counts two minutes after its end.
    """
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_FIRST_MARK)
        progress = RunCountProgress.objects.select_for_update().get(id=1)
        cursor.execute(_SAFE_MARK, {"settled_after": cast("Any", SETTLED_AFTER)})
        (until,) = cursor.fetchone()
        if until <= progress.until:
            return 0
        # The marks are given as values, by which the planner can tell how few runs lie between them.
        cursor.execute(_COUNT, {"since": progress.until, "until": until})
        (counted,) = cursor.fetchone()
        progress.until = until
        progress.save()
    return int(counted)


def purge(*, batch_size: int = BATCH) -> int:
    """Delete the runs whose time is over, tenant by tenant, and what else is kept for a while; returns how many runs.

    Each batch is a statement and a transaction of its own, so locks are short; rows that somebody works on are left to
    the next pass. A repeat finds nothing to do.
    """
    deleted = 0
    for tenant_id, days in Tenant.objects.values_list("id", "keep_succeeded_days"):
        deleted += _purge(tenant_id, succeeded=True, keep=timedelta(days=days), batch_size=batch_size)
    for tenant_id, days in Tenant.objects.values_list("id", "keep_other_days"):
        deleted += _purge(tenant_id, succeeded=False, keep=timedelta(days=days), batch_size=batch_size)
    _repeat(_PURGE_NOTIFICATIONS, {"keep": KEEP_NOTIFICATIONS}, batch_size=batch_size)
    _repeat(_PURGE_IDEMPOTENCY, {"keep": idempotency.MEMORY}, batch_size=batch_size)
    _repeat(_PURGE_RATES, {"keep": limits.WINDOW}, batch_size=batch_size)
    _repeat(_PURGE_SESSIONS, {}, batch_size=batch_size)
    _repeat(_PURGE_ACCESS_ATTEMPTS, {"keep": KEEP_ACCESS_ATTEMPTS}, batch_size=batch_size)
    PassRecord.note(OWN_NAME)
    return deleted


def _purge(tenant_id: UUID, *, succeeded: bool, keep: timedelta, batch_size: int) -> int:
    statement = _PURGE_SUCCEEDED if succeeded else _PURGE_OTHERS
    return _repeat(statement, {"tenant_id": tenant_id, "keep": keep}, batch_size=batch_size)


def _repeat(statement: str, values: dict[str, Any], *, batch_size: int) -> int:
    """Run a deletion batch by batch until one is not full; returns how many rows went."""
    deleted = 0
    while True:
        found = delete_batch(statement, values, batch_size=batch_size)
        deleted += found
        if found < batch_size:
            return deleted


def delete_batch(statement: str, values: dict[str, Any], *, batch_size: int = BATCH) -> int:
    """Run a deletion of at most ``batch_size`` rows, which it knows as ``batch``; returns how many went."""
    with connection.cursor() as cursor:
        cursor.execute(statement, values | {"batch": batch_size})
        return int(cursor.rowcount)


_FIRST_MARK: Final = """
INSERT INTO schedules_runcountprogress (id, until)
VALUES (1, 'epoch'::timestamptz) ON CONFLICT DO NOTHING
"""

# A run's end is never earlier than the beginning of the transaction that writes it. So no open transaction can still
# bring in a run that ended before it began.
_SAFE_MARK: Final = """
SELECT LEAST(statement_timestamp() - %(settled_after)s, min(xact_start))
FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
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

# A deletion of at most a batch of rows; those that somebody works on are left out.
_DELETION: Final = """
DELETE FROM {table} WHERE {key} IN (
    SELECT {key} FROM {table}
    WHERE {which}
    LIMIT %(batch)s FOR UPDATE SKIP LOCKED
)
"""


def _deletion(table: str, which: str, *, key: str = "id") -> str:
    return _DELETION.format(table=table, which=which, key=key)


_PURGE_SUCCEEDED: Final = _deletion(
    "schedules_schedulerun",
    """tenant_id = %(tenant_id)s AND status = 'succeeded' AND finished_at < statement_timestamp() - %(keep)s
      AND finished_at <= (SELECT until FROM schedules_runcountprogress)
    ORDER BY finished_at""",
)
_PURGE_OTHERS: Final = _deletion(
    "schedules_schedulerun",
    """tenant_id = %(tenant_id)s
      AND status IN ('failed', 'timed_out', 'cancelled', 'skipped_overlap', 'skipped_disabled', 'missed', 'superseded')
      AND finished_at < statement_timestamp() - %(keep)s
      AND finished_at <= (SELECT until FROM schedules_runcountprogress)""",
)
_PURGE_IDEMPOTENCY: Final = _deletion("schedules_idempotencyrecord", "created_at < statement_timestamp() - %(keep)s")
_PURGE_RATES: Final = _deletion("schedules_ratewindowentry", "at < statement_timestamp() - %(keep)s")
_PURGE_NOTIFICATIONS: Final = _deletion(
    "schedules_notification", "next_attempt_at IS NULL AND created_at < statement_timestamp() - %(keep)s"
)
_PURGE_SESSIONS: Final = _deletion("django_session", "expire_date < statement_timestamp()", key="session_key")
_PURGE_ACCESS_ATTEMPTS: Final = _deletion("axes_accessattempt", "attempt_time < statement_timestamp() - %(keep)s")
