"""What somebody who looks in wants to see first: what needs attention, what is due, what the last day brought.

Each function takes the tenants that may be seen; None means all of them, which is for operators alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from django.db import connection
from django.db.models import Count, Exists, F, OuterRef, Q, QuerySet

from schedules import cron
from schedules.models import RunStatus, Schedule, ScheduleRun

DAY: Final = timedelta(hours=24)
HOUR: Final = timedelta(hours=1)
# So many schedules are looked at for what is due next; the soonest of them are what is shown.
MAX_CANDIDATES: Final = 200

FAILED: Final = (RunStatus.FAILED, RunStatus.TIMED_OUT)


@dataclass(frozen=True, slots=True)
class Kind:
    """A reason to look at a schedule."""

    name: str
    title: str
    tone: str
    advice: str


KINDS: Final = (
    Kind("failing", "Failing", "bad", "The last run failed. Look at its error; it is paused if this goes on."),
    Kind("paused", "Auto-paused", "bad", "Disabled by the platform. Mend the cause, then enable it."),
    Kind("stranded", "Endpoint gone", "bad", "Disabled by an upgrade. Choose another endpoint, then enable it."),
    Kind("held", "Held by an operator", "warn", "Paused in Temporal. Slots are missed until the hold is lifted."),
    Kind("unsynced", "Not in sync", "warn", "The last change has not reached Temporal yet; it is tried each minute."),
    Kind("missed", "Missed slots", "warn", "Slots of the last 24 hours could not start in time."),
)


@dataclass(frozen=True, slots=True)
class Concern:
    """The schedules that need attention for one reason: how many, and the first few."""

    kind: Kind
    count: int
    schedules: Sequence[Schedule]


def condition(name: str, *, now: datetime) -> Q:
    """Which schedules one of `KINDS` is about."""
    if name == "missed":
        return Q(
            Exists(
                ScheduleRun.objects.filter(
                    tenant_id=OuterRef("tenant_id"),
                    schedule_id=OuterRef("id"),
                    status=RunStatus.MISSED,
                    slot__gte=now - DAY,
                )
            )
        )
    return {
        "failing": Q(enabled=True, last_run_status__in=FAILED),
        "paused": Q(enabled=False, endpoint__isnull=False) & ~Q(disabled_reason=""),
        "stranded": Q(enabled=False, endpoint__isnull=True) & ~Q(disabled_reason=""),
        "held": Q(held_since__isnull=False),
        "unsynced": ~Q(synced_generation=F("generation")),
    }[name]


def concerns(tenants: Sequence[UUID] | None, *, now: datetime, shown: int = 4) -> list[Concern]:
    """What needs attention, the worst first; what nothing needs is left out. One statement, and one a kind."""
    rows = _schedules(tenants)
    counts = rows.aggregate(**{kind.name: Count("id", filter=condition(kind.name, now=now)) for kind in KINDS})
    return [
        Concern(
            kind,
            counts[kind.name],
            list(
                rows.filter(condition(kind.name, now=now))
                .select_related("install__extension", "tenant")
                .defer("payload", "install__config", "install__secret_envelope")
                .order_by("-last_run_at", "id")[:shown]
            ),
        )
        for kind in KINDS
        if counts[kind.name]
    ]


def due_within_the_hour(
    tenants: Sequence[UUID] | None, *, now: datetime, shown: int = 10
) -> list[tuple[datetime, Schedule]]:
    """The slots of the coming hour, soonest first. One statement."""
    # No schedule is due before the slot that it owes next, so nothing of the hour lies outside.
    rows = (
        _schedules(tenants)
        .filter(enabled=True, install__is_enabled=True, held_since__isnull=True, next_slot_at__lt=now + HOUR)
        .select_related("install__extension", "tenant")
        .defer("payload", "install__config", "install__secret_envelope")
        .order_by("next_slot_at")[:MAX_CANDIDATES]
    )
    found: list[tuple[datetime, Schedule]] = []
    for schedule in rows:
        expression, zone = cron.parse(schedule.cron), cron.parse_zone(schedule.timezone)
        found += [(slot, schedule) for slot in cron.slots(expression, zone, start=now, end=now + HOUR)]
    return sorted(found, key=lambda pair: (pair[0], str(pair[1].id)))[:shown]


def runs_by_hour(tenants: Sequence[UUID] | None, *, now: datetime) -> Mapping[datetime, Mapping[str, int]]:
    """How many runs of each hour's slots are in which state, over the last 24 hours. One statement."""
    counts: dict[datetime, dict[str, int]] = {}
    with connection.cursor() as cursor:
        cursor.execute(
            _RUNS_BY_HOUR,
            {"tenants": None if tenants is None else list(tenants), "start": now - DAY, "end": now},
        )
        for hour, status, count in cursor.fetchall():
            counts.setdefault(hour, {})[status] = count
    return counts


def _schedules(tenants: Sequence[UUID] | None) -> QuerySet[Schedule]:
    rows = Schedule.objects.all()
    return rows if tenants is None else rows.filter(tenant_id__in=tenants)


# Tenant by tenant, because every index of runs begins with the tenant; OFFSET 0 keeps the planner from undoing that.
_RUNS_BY_HOUR: Final = """
SELECT date_trunc('hour', recent.slot, 'UTC'), recent.status, count(*)
FROM schedules_tenant AS tenant, LATERAL (
    SELECT slot, status FROM schedules_schedulerun
    WHERE tenant_id = tenant.id AND slot > %(start)s AND slot <= %(end)s
    OFFSET 0
) AS recent
WHERE %(tenants)s::uuid[] IS NULL OR tenant.id = ANY(%(tenants)s::uuid[])
GROUP BY 1, 2
"""


def last_durations(schedules: Sequence[Schedule]) -> Mapping[UUID, int]:
    """Milliseconds that the newest run of each schedule took, where it has ended. One statement."""
    if not schedules:
        return {}
    parameters = [key for schedule in schedules for key in (schedule.tenant_id, schedule.id)]
    with connection.cursor() as cursor:
        cursor.execute(" UNION ALL ".join([_LAST_DURATION] * len(schedules)), parameters)
        return {schedule_id: int(took) for schedule_id, took in cursor.fetchall() if took is not None}


# A SELECT for each schedule with its id in it. In a join with a list of ids the planner goes by what is true of most
# runs: where one schedule has nearly all, it looks for those of the others among the tenant's.
_LAST_DURATION: Final = """(
    SELECT schedule_id, EXTRACT(EPOCH FROM finished_at - started_at) * 1000 FROM schedules_schedulerun
    WHERE tenant_id = %s AND schedule_id = %s
    ORDER BY slot DESC, id DESC
    LIMIT 1
)"""
