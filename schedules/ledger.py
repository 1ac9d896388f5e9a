"""The account of slots and of runs in line: every due slot has one row, and every row ends.

A schedule is accounted for up to a moment (``accounted_until``): each of its slots up to there has a run, or belongs to
a time when it was not enabled. `settle` moves that moment on and gives the slots that nobody has claimed their rows.
Runs that wait stand in one line for each schedule; who ends a run learns which one is next.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from django.db import connection
from django.db.models import BooleanField, ExpressionWrapper, Q, QuerySet
from django.db.models.functions import Now

from schedules import cron, metrics, notifications, policies
from schedules.models import (
    UNFINISHED_STATUSES,
    CatchUpPolicy,
    NotificationEvent,
    OverlapPolicy,
    RunStatus,
    Schedule,
    ScheduleRun,
    Trigger,
)
from schedules.payloads import moment_text
from workflows import names

MAX_REASON_LENGTH: Final = 256
SUPERSEDED_REASON: Final = "a newer slot took its place in line"
MAX_SLOTS: Final = 500
_INSERT_BATCH: Final = 1000
_IS_BACKFILL: Final = ExpressionWrapper(Q(trigger=Trigger.BACKFILL), output_field=BooleanField())


@dataclass(frozen=True, slots=True)
class Ended:
    """A run that has reached its end, and what that means for its schedule.

    ``failures_before`` and ``failures`` count failed runs in a row before and after it; they are None where the
    schedule is gone, and where the run never began or had ended earlier. ``has_line`` says that others were waiting;
    one that joined at this very moment may be overlooked.
    """

    run_id: UUID
    tenant_id: UUID
    install_id: UUID
    schedule_id: UUID
    trigger: str
    status: str
    slot: datetime
    reason: str
    error: str
    failures_before: int | None = None
    failures: int | None = None
    has_line: bool = False


def database_now() -> datetime:
    """The one clock of all decisions about time."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        (now,) = cursor.fetchone()
    assert isinstance(now, datetime)
    return now


def open_account(schedule: Schedule, *, now: datetime) -> None:
    """Owe the schedule's slots from ``now`` on. Sets the row's members; saving them is the caller's."""
    schedule.accounted_until = now
    schedule.next_slot_at = _next_slot(schedule, after=now)


def unclaimed_slots(schedules: Sequence[Schedule], *, until: datetime) -> dict[UUID, list[datetime]]:
    """The due slots up to ``until`` that have no run, by schedule; a schedule without such a slot is left out.

    One statement, however many schedules.
    """
    found = _examine(schedules, until=until)
    return {schedule_id: entry.unclaimed for schedule_id, entry in found.items() if entry.unclaimed}


def settle(schedules: Sequence[Schedule], *, until: datetime, held: Mapping[UUID, str] | None = None) -> int:
    """Account for the schedules' slots up to ``until``; returns how many had to be given a run.

    After a long outage only the oldest `MAX_SLOTS` of a schedule, so that a transaction stays short; its
    ``accounted_until`` says how far it has come. An unclaimed slot is queued, or ends as its schedule's catch-up policy
    says; one of a schedule in ``held`` (its id and the reason) ends as missed.

    Call it inside a transaction that holds the rows' locks, with rows as they were at the slots' times. Three
    statements where nobody is told of anything; a repeat finds nothing to do.
    """
    runs: list[ScheduleRun] = []
    found = _examine(schedules, until=until)
    for schedule in schedules:
        reached = until
        if schedule.id in found:
            slots = found[schedule.id]
            reached = slots.reach if slots.is_cut_off else until
            planned = _plan(schedule, slots, until=until, hold=(held or {}).get(schedule.id))
            runs += [_run_of(schedule, slot) for slot in planned]
            _announce_missed(schedule, planned)
        open_account(schedule, now=max(reached, schedule.accounted_until))
    ScheduleRun.objects.bulk_create(runs, batch_size=_INSERT_BATCH, ignore_conflicts=True)
    _save_accounts(schedules)
    for run in runs:
        if run.status != RunStatus.QUEUED:
            metrics.RUNS.labels(status=run.status, trigger=run.trigger).inc()
    return len(runs)


def settle_completely(schedules: Sequence[Schedule], *, until: datetime) -> int:
    """Like `settle`, until nothing is left: for a change that cannot wait for the sweep."""
    settled = 0
    while owing := [schedule for schedule in schedules if schedule.accounted_until < until]:
        settled += settle(owing, until=until)
    return settled


def reopen_accounts(schedules: Sequence[Schedule], *, now: datetime) -> None:
    """Owe the schedules' slots from ``now`` on, whatever was before: nobody's business then."""
    for schedule in schedules:
        open_account(schedule, now=now)
    _save_accounts(schedules)


def close_run(
    *,
    tenant_id: UUID,
    run_id: UUID,
    status: RunStatus,
    reason: str,
    slot_of: tuple[UUID, UUID, datetime] | None = None,
    while_status: RunStatus | None = None,
) -> Ended | None:
    """Give an unfinished run its terminal state; returns the run as it ended then or earlier, None where there is none.

    ``slot_of`` is (install id, schedule id, slot) of a scheduled run that may not have a row yet: then it gets one,
    because every slot is accounted for. ``while_status`` leaves the run alone where it has another state by then. Where
    somebody asked for the cancellation, their reason is the run's. One statement; a repeat changes nothing.
    """
    values: dict[str, Any] = {
        "tenant_id": tenant_id,
        "run_id": run_id,
        "status": status,
        "reason": reason[:MAX_REASON_LENGTH],
        "terminal": True,
        "from": [state for state in UNFINISHED_STATUSES if while_status in {None, state}],
        "insert": slot_of is not None,
        "install_id": slot_of[0] if slot_of else None,
        "schedule_id": slot_of[1] if slot_of else None,
        "slot": slot_of[2] if slot_of else None,
    }
    while True:
        with connection.cursor() as cursor:
            cursor.execute(_CLOSE, values)
            row = cursor.fetchone()
        if row is not None:
            ended = Ended(tenant_id=tenant_id, **dict(zip(_ENDED_COLUMNS, row, strict=True)))
            metrics.RUNS.labels(status=ended.status, trigger=ended.trigger).inc()
            return ended
        run = ScheduleRun.objects.filter(tenant_id=tenant_id, id=run_id).defer("payload").first()
        if run is None:
            return None
        if run.status not in values["from"]:
            break
        # It was claimed at this very moment; the next look sees that it has begun.
    return Ended(
        run_id=run.id,
        tenant_id=tenant_id,
        install_id=run.install_id,
        schedule_id=run.schedule_id,
        trigger=run.trigger,
        status=run.status,
        slot=run.slot,
        reason=run.reason,
        error=run.error,
    )


def next_in_line(*, tenant_id: UUID, schedule_id: UUID) -> ScheduleRun | None:
    """The run that is to start next once none of the schedule is in flight; slots come before backfilled ones.

    Ask only after the end of the run before it has committed: whoever joins the line looks for that end afterwards, so
    that one of the two sees the other.
    """
    waiting = ScheduleRun.objects.filter(tenant_id=tenant_id, schedule_id=schedule_id, status=RunStatus.QUEUED)
    return waiting.defer("payload").order_by(_IS_BACKFILL, "slot", "created_at").first()


def supersede_waiting(*, tenant_id: UUID, schedule_id: UUID, by: UUID, slot: datetime) -> int:
    """End the slots in line that are older than ``slot``, because that one takes their place; returns how many.

    Those that make up for an outage and those asked for by hand keep their place.
    """
    count = _regular_in_line(tenant_id=tenant_id, schedule_id=schedule_id, slot__lt=slot).update(
        status=RunStatus.SUPERSEDED, reason=SUPERSEDED_REASON, blocked_by=by, finished_at=Now()
    )
    metrics.RUNS.labels(status=RunStatus.SUPERSEDED, trigger=Trigger.SCHEDULE).inc(count)
    return count


def is_superseded(*, tenant_id: UUID, schedule_id: UUID, slot: datetime) -> bool:
    """Whether a newer slot waits in the line already."""
    return _regular_in_line(tenant_id=tenant_id, schedule_id=schedule_id, slot__gt=slot).exists()


def _regular_in_line(**conditions: Any) -> QuerySet[ScheduleRun]:
    """Slots of today that wait; neither made up for nor asked for by hand."""
    return ScheduleRun.objects.filter(status=RunStatus.QUEUED, trigger=Trigger.SCHEDULE, catch_up=False, **conditions)


def cancel_waiting(*, tenant_id: UUID, schedule_ids: Iterable[UUID], reason: str) -> int:
    """End every run in line of these schedules as cancelled; returns how many."""
    waiting = ScheduleRun.objects.filter(
        tenant_id=tenant_id, schedule_id__in=list(schedule_ids), status=RunStatus.QUEUED
    )
    return waiting.update(status=RunStatus.CANCELLED, reason=reason, finished_at=Now())


@dataclass(slots=True)
class _Found:
    """A schedule's due slots: those without a run, the newest with one, and how far was looked."""

    unclaimed: list[datetime]
    newest_claimed: datetime | None
    reach: datetime
    is_cut_off: bool


def _examine(schedules: Sequence[Schedule], *, until: datetime) -> dict[UUID, _Found]:
    """What is known of the slots of each schedule that has unclaimed ones."""
    due = {schedule.id: (schedule, slots) for schedule in schedules if (slots := _due_slots(schedule, until=until))}
    if not due:
        return {}
    claimed: dict[UUID, set[datetime]] = defaultdict(set)
    with connection.cursor() as cursor:
        owed = [schedule for schedule, _ in due.values()]
        values: dict[str, Any] = {
            "tenants": [schedule.tenant_id for schedule in owed],
            "schedules": [schedule.id for schedule in owed],
            "since": [schedule.accounted_until for schedule in owed],
            "until": until,
        }
        cursor.execute(_CLAIMED_SLOTS, values)
        for schedule_id, slot in cursor.fetchall():
            claimed[schedule_id].add(slot)
    found = {}
    for schedule_id, (_, slots) in due.items():
        is_cut_off = len(slots) > MAX_SLOTS + policies.MAX_CAUGHT_UP
        looked_at = slots[:MAX_SLOTS] if is_cut_off else slots
        unclaimed = [slot for slot in looked_at if slot not in claimed[schedule_id]]
        found[schedule_id] = _Found(unclaimed, max(claimed[schedule_id], default=None), looked_at[-1], is_cut_off)
    return {schedule_id: entry for schedule_id, entry in found.items() if entry.unclaimed or entry.is_cut_off}


def _due_slots(schedule: Schedule, *, until: datetime) -> list[datetime]:
    if until <= schedule.accounted_until:
        return []
    expression, zone = cron.parse(schedule.cron), cron.parse_zone(schedule.timezone)
    found = cron.slots_after(expression, zone, after=schedule.accounted_until, until=until)
    # Enough to know of each that is settled now whether a hundred newer ones follow.
    return list(itertools.islice(found, MAX_SLOTS + policies.MAX_CAUGHT_UP + 1))


def _next_slot(schedule: Schedule, *, after: datetime) -> datetime | None:
    return cron.next_slot(cron.parse(schedule.cron), cron.parse_zone(schedule.timezone), after=after)


def _plan(schedule: Schedule, found: _Found, *, until: datetime, hold: str | None) -> list[policies.PlannedSlot]:
    if hold is not None:
        return [policies.PlannedSlot(slot, RunStatus.MISSED, hold) for slot in found.unclaimed]
    if found.is_cut_off:
        return policies.plan_overtaken(found.unclaimed, policy=CatchUpPolicy(schedule.catch_up_policy))
    return policies.plan_catch_up(
        found.unclaimed,
        policy=CatchUpPolicy(schedule.catch_up_policy),
        now=until,
        newest_claimed=found.newest_claimed,
    )


def _run_of(schedule: Schedule, planned: policies.PlannedSlot) -> ScheduleRun:
    is_over = planned.status != RunStatus.QUEUED
    return ScheduleRun(
        id=names.slot_invocation_id(schedule_id=schedule.id, slot=planned.slot),
        tenant_id=schedule.tenant_id,
        install_id=schedule.install_id,
        schedule_id=schedule.id,
        trigger=Trigger.SCHEDULE,
        slot=planned.slot,
        status=planned.status,
        reason=planned.reason[:MAX_REASON_LENGTH],
        catch_up=planned.catch_up,
        # What is made up for is run one at a time, whatever the schedule allows otherwise.
        exclusive=planned.catch_up or schedule.overlap_policy != OverlapPolicy.ALLOW,
        endpoint_method=schedule.endpoint_method,
        endpoint_path=schedule.endpoint_path,
        schedule_revision=schedule.revision,
        finished_at=Now() if is_over else None,
    )


def _announce_missed(schedule: Schedule, planned: Sequence[policies.PlannedSlot]) -> None:
    missed = [slot for slot in planned if slot.status == RunStatus.MISSED]
    if missed:
        notifications.announce(
            event=NotificationEvent.MISSED,
            schedule=schedule,
            facts={
                "count": len(missed),
                "first_slot": moment_text(missed[0].slot),
                "last_slot": moment_text(missed[-1].slot),
                "reason": missed[-1].reason,
            },
        )


def _save_accounts(schedules: Sequence[Schedule]) -> None:
    with connection.cursor() as cursor:
        values: dict[str, Any] = {
            "tenants": [schedule.tenant_id for schedule in schedules],
            "schedules": [schedule.id for schedule in schedules],
            "until": [schedule.accounted_until for schedule in schedules],
            "next": [schedule.next_slot_at for schedule in schedules],
        }
        cursor.execute(_SAVE_ACCOUNTS, values)


_CLAIMED_SLOTS: Final = """
SELECT run.schedule_id, run.slot
FROM unnest(%(tenants)s::uuid[], %(schedules)s::uuid[], %(since)s::timestamptz[]) AS owed(tenant_id, schedule_id, since)
JOIN schedules_schedulerun run
  ON run.tenant_id = owed.tenant_id AND run.schedule_id = owed.schedule_id
 AND run.trigger = 'schedule' AND run.slot > owed.since AND run.slot <= %(until)s
"""

_SAVE_ACCOUNTS: Final = """
UPDATE schedules_schedule AS schedule
SET accounted_until = account.until, next_slot_at = account.next
FROM unnest(%(tenants)s::uuid[], %(schedules)s::uuid[], %(until)s::timestamptz[], %(next)s::timestamptz[])
     AS account(tenant_id, id, until, next)
WHERE schedule.tenant_id = account.tenant_id AND schedule.id = account.id
"""

# A statement that ends a run which has begun also writes to its schedule. Everybody else locks a schedule before its
# runs, so these do, too: the CTE `before` locks, and what updates the run must join `FIRST`, which has one row whatever
# there is to lock. A run in line has not begun, so who holds its lock already may end it.
LOCK_SCHEDULE: Final = """
before AS MATERIALIZED (
    SELECT s.consecutive_failures AS failures
    FROM schedules_schedulerun run
    JOIN schedules_schedule s ON s.tenant_id = run.tenant_id AND s.id = run.schedule_id
    WHERE run.tenant_id = %(tenant_id)s AND run.id = %(run_id)s AND run.started_at IS NOT NULL AND %(terminal)s
    FOR NO KEY UPDATE OF s
)"""
FIRST: Final = "(SELECT count(*) AS locked FROM before) AS first"

# What ended, with the schedule's count of failures before and after it. Expects the CTEs `before` and `ended`.
FOLLOW_UP: Final = """
noted AS (
    UPDATE schedules_schedule AS s
    SET last_run_at = ended.finished_at,
        last_run_status = ended.status,
        last_error = CASE WHEN ended.status = 'cancelled' THEN '' ELSE ended.error END,
        last_success_at = CASE WHEN ended.status = 'succeeded' THEN ended.finished_at ELSE s.last_success_at END,
        consecutive_failures = CASE
            WHEN ended.status = 'succeeded' THEN 0
            WHEN ended.status IN ('failed', 'timed_out') THEN s.consecutive_failures + 1
            ELSE s.consecutive_failures
        END
    FROM ended
    WHERE s.tenant_id = ended.tenant_id AND s.id = ended.schedule_id
      AND ended.finished_at IS NOT NULL AND ended.started_at IS NOT NULL
    RETURNING s.consecutive_failures AS failures
)
SELECT ended.id AS run_id, ended.install_id, ended.schedule_id, ended.trigger, ended.status, ended.slot,
       ended.reason, ended.error,
       (SELECT failures FROM before) AS failures_before,
       (SELECT failures FROM noted) AS failures,
       ended.finished_at IS NOT NULL AND EXISTS (
           SELECT 1 FROM schedules_schedulerun waiting
           WHERE waiting.tenant_id = ended.tenant_id AND waiting.schedule_id = ended.schedule_id
             AND waiting.status = 'queued'
       ) AS has_line
FROM ended
"""
_ENDED_COLUMNS: Final = (
    "run_id",
    "install_id",
    "schedule_id",
    "trigger",
    "status",
    "slot",
    "reason",
    "error",
    "failures_before",
    "failures",
    "has_line",
)

_CLOSE: Final = f"""
WITH {LOCK_SCHEDULE}, closed AS (
    UPDATE schedules_schedulerun
    SET status = %(status)s,
        reason = CASE WHEN cancel_reason <> '' AND %(status)s = 'cancelled' THEN cancel_reason ELSE %(reason)s END,
        error = CASE WHEN %(status)s = 'cancelled' OR error <> '' THEN error ELSE %(reason)s END,
        -- An attempt that was under way is one that somebody looks for: it reached the runner.
        attempt_log = CASE
            WHEN status = 'running' AND jsonb_array_length(attempt_log) < attempts
            THEN attempt_log || jsonb_build_array(
                jsonb_build_object('attempt', attempts, 'outcome', 'aborted', 'started_at', NULL,
                                   'finished_at', clock_timestamp(), 'http_status', NULL, 'envelope_status', NULL,
                                   'error', 'its outcome is not known'))
            ELSE attempt_log
        END,
        finished_at = clock_timestamp()
    FROM {FIRST}
    WHERE tenant_id = %(tenant_id)s AND id = %(run_id)s AND status = ANY(%(from)s) AND first.locked >= 0
      -- One that begins while this waits for it is left alone, as its schedule is not locked.
      AND (started_at IS NULL OR EXISTS (
          SELECT 1 FROM schedules_schedulerun seen
          WHERE seen.tenant_id = %(tenant_id)s AND seen.id = %(run_id)s AND seen.started_at IS NOT NULL
      ))
    RETURNING id, tenant_id, install_id, schedule_id, trigger, status, slot, reason, error,
              started_at, finished_at
), added AS (
    INSERT INTO schedules_schedulerun (
        id, tenant_id, install_id, schedule_id, trigger, slot, status, reason, version_name, content_hash,
        endpoint_method, endpoint_path, actor, error, workflow_id, workflow_run_id, finished_at
    )
    SELECT %(run_id)s, %(tenant_id)s, %(install_id)s::uuid, %(schedule_id)s::uuid, 'schedule',
           %(slot)s::timestamptz, %(status)s, %(reason)s, '', '', '', '', '', '', '', '', clock_timestamp()
    WHERE %(insert)s
    ON CONFLICT DO NOTHING
    RETURNING id, tenant_id, install_id, schedule_id, trigger, status, slot, reason, error,
              started_at, finished_at
), ended AS (
    SELECT * FROM closed UNION ALL SELECT * FROM added
), {FOLLOW_UP}"""  # noqa: S608 - all parts are constants
