"""Numbers about runs, for a schedule, an install or a tenant.

How many runs ended how is read from the daily counts and the runs that have ended since they were last brought up to
date; how long runs took and how late they began from the newest of them. So an answer costs the same with a thousand
runs and with a million.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from django.db import connection
from django.db.models import Max, QuerySet

from schedules import cron
from schedules.models import RunCountProgress, RunStatus, Schedule

DEFAULT_DAYS: Final = 7
MAX_DAYS: Final = 365
SAMPLE: Final = 500
CANDIDATES: Final = 50
FAILED_STATUSES: Final = (RunStatus.FAILED, RunStatus.TIMED_OUT)


@dataclass(frozen=True, slots=True)
class Stats:
    """Numbers of the last ``days`` days (today's included, in UTC) and of the newest runs.

    ``success_rate`` is succeeded over succeeded, failed and timed out, None where there is none of these. The
    percentiles, in milliseconds, are of the newest runs that were started, at most `SAMPLE`.
    """

    days: int
    by_status: dict[str, int]
    success_rate: float | None
    duration_ms_p50: float | None
    duration_ms_p95: float | None
    lateness_ms_p50: float | None
    lateness_ms_p95: float | None
    last_success_at: datetime | None
    next_slot_at: datetime | None


def read_stats(
    *, tenant_id: UUID, install_id: UUID | None = None, schedule_id: UUID | None = None, days: int = DEFAULT_DAYS
) -> Stats:
    """The numbers of a schedule (give both ids), of an install, or of the whole tenant. Five statements."""
    scope = _Scope(tenant_id, install_id, schedule_id)
    by_status = _counts(scope, days=days)
    decided = by_status[RunStatus.SUCCEEDED] + sum(by_status[status] for status in FAILED_STATUSES)
    schedules = scope.schedules()
    return Stats(
        days=days,
        by_status=by_status,
        success_rate=by_status[RunStatus.SUCCEEDED] / decided if decided else None,
        **_percentiles(scope),
        last_success_at=schedules.aggregate(latest=Max("last_success_at"))["latest"],
        next_slot_at=_next_slot(schedules),
    )


@dataclass(frozen=True, slots=True)
class _Scope:
    tenant_id: UUID
    install_id: UUID | None
    schedule_id: UUID | None

    def schedules(self) -> QuerySet[Schedule]:
        rows = Schedule.objects.filter(tenant_id=self.tenant_id)
        if self.install_id is not None:
            rows = rows.filter(install_id=self.install_id)
        return rows if self.schedule_id is None else rows.filter(id=self.schedule_id)

    def values(self, **others: Any) -> dict[str, Any]:
        ids = {"tenant_id": self.tenant_id, "install_id": self.install_id, "schedule_id": self.schedule_id}
        return ids | others

    @property
    def of_runs(self) -> str:
        """The condition on runs. Only names of columns that are written here, never a caller's text."""
        conditions = ["tenant_id = %(tenant_id)s"]
        if self.install_id is not None:
            conditions.append("install_id = %(install_id)s")
        if self.schedule_id is not None:
            conditions.append("schedule_id = %(schedule_id)s")
        return " AND ".join(conditions)

    @property
    def of_counts(self) -> str:
        """The condition on the daily counts, which have a row of their own for each kind of scope."""
        install = "= %(install_id)s" if self.install_id is not None else "IS NULL"
        schedule = "= %(schedule_id)s" if self.schedule_id is not None else "IS NULL"
        return f"tenant_id = %(tenant_id)s AND install_id {install} AND schedule_id {schedule}"


def _counts(scope: _Scope, *, days: int) -> dict[str, int]:
    counts: dict[str, int] = dict.fromkeys(RunStatus.values, 0)
    # Read beforehand: only a value that the planner can see tells it how few runs have ended since.
    mark = RunCountProgress.objects.values_list("until", flat=True).first() or datetime.min.replace(tzinfo=UTC)
    with connection.cursor() as cursor:
        statement = _COUNTS.format(of_counts=scope.of_counts, of_runs=scope.of_runs)
        cursor.execute(statement, scope.values(days=days, mark=mark))
        for status, count in cursor.fetchall():
            counts[status] = int(count)
    return counts


def _percentiles(scope: _Scope) -> dict[str, float | None]:
    with connection.cursor() as cursor:
        cursor.execute(_PERCENTILES.format(of_runs=scope.of_runs), scope.values(sample=SAMPLE))
        (durations, lateness) = cursor.fetchone()
    names = ("duration_ms_p50", "duration_ms_p95", "lateness_ms_p50", "lateness_ms_p95")
    values = [*(durations or (None, None)), *(lateness or (None, None))]
    return {name: None if value is None else round(float(value), 1) for name, value in zip(names, values, strict=True)}


def _next_slot(schedules: QuerySet[Schedule]) -> datetime | None:
    """The next slot of any of them. No schedule is due before the slot it owes next, so the first few decide."""
    now = datetime.now(UTC)
    owing = schedules.filter(enabled=True, install__is_enabled=True, next_slot_at__isnull=False)
    found = [
        cron.next_slot(cron.parse(text), cron.parse_zone(zone), after=now)
        for text, zone in owing.order_by("next_slot_at").values_list("cron", "timezone")[:CANDIDATES]
    ]
    return min((slot for slot in found if slot is not None), default=None)


_COUNTS: Final = """
SELECT status, sum(count) FROM (
    SELECT status, count FROM schedules_runcount
    WHERE {of_counts} AND day > (statement_timestamp() AT TIME ZONE 'UTC')::date - %(days)s
    UNION ALL
    SELECT status, count(*) FROM schedules_schedulerun
    WHERE {of_runs}
      AND status IN ('succeeded', 'failed', 'timed_out', 'cancelled', 'skipped_overlap', 'skipped_disabled',
                     'missed', 'superseded')
      AND finished_at > %(mark)s
    GROUP BY status
    UNION ALL
    SELECT status, count(*) FROM schedules_schedulerun
    WHERE {of_runs} AND status IN ('queued', 'running')
    GROUP BY status
) AS counted
GROUP BY status
"""

_PERCENTILES: Final = """
SELECT percentile_cont(ARRAY[0.5, 0.95]) WITHIN GROUP (
           ORDER BY EXTRACT(EPOCH FROM finished_at - started_at) * 1000
       ),
       percentile_cont(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY EXTRACT(EPOCH FROM started_at - slot) * 1000)
           FILTER (WHERE trigger = 'schedule' AND NOT catch_up)
FROM (
    SELECT started_at, finished_at, slot, trigger, catch_up FROM schedules_schedulerun
    WHERE {of_runs}
    ORDER BY slot DESC, id DESC LIMIT %(sample)s
) AS newest
WHERE started_at IS NOT NULL AND finished_at IS NOT NULL
"""
