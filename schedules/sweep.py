"""The minute's pass: everything that is wanted and not yet so, and every slot that is due and not yet accounted for.

A system schedule in Temporal runs it every minute, ``manage.py reconcile`` on demand. Each piece of work is isolated
from the others, so one row's trouble does not keep the rest from their turn.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final, cast
from uuid import UUID

import structlog
from django.db import connection, transaction
from django.db.models import F, Q, QuerySet
from django.db.models.functions import Now

from schedules import background, convergence, holds, ledger, metrics, retention
from schedules.background import PushOutcome
from schedules.convergence import RENEWAL_NOTICE
from schedules.errors import SchedulingError
from schedules.models import MirrorRemoval, PassRecord, RunStatus, Schedule, ScheduleRun

log = structlog.get_logger(__name__)

# A pass ends well before the engine would give it up.
PASS_BUDGET_SECONDS: Final = 240.0
# Of a pass's time: until when it settles slots, and then sees to runs; what is left is for mirrors and holds.
SETTLING_SHARE: Final = 0.35
RUNS_SHARE: Final = 0.6
OWN_NAME: Final = "sweep"
_NO_LONGER_WAITING: Final = (PushOutcome.STARTED, PushOutcome.NOTHING, PushOutcome.CLOSED)
# A run in flight for this long is asked for a sign of life: within two minutes, with the next minute's pass.
DEATH_GRACE: Final = timedelta(seconds=60)
MAX_LIFE_CHECKS: Final = 500
# A queued run that has no workflow after this long is started by the sweep.
START_GRACE: Final = timedelta(seconds=10)
MAX_STARTS: Final = 1000
# About as many as a pass has time for.
MAX_PUSHES: Final = 20_000
# A slot that has no run after this long was not delivered by the engine.
SLOT_GRACE: Final = timedelta(seconds=60)
LEDGER_BATCH: Final = 500
# More slots than this are not written in one transaction.
MAX_TOGETHER: Final = 1000


@dataclass(slots=True)
class Report:
    """What one pass did, by outcome, and how much is left to do."""

    outcomes: dict[PushOutcome, int] = field(default_factory=dict)
    unsynced: int = 0
    settled: int = 0
    unstarted: int = 0

    def of(self, outcome: PushOutcome) -> int:
        """How often an outcome came."""
        return self.outcomes.get(outcome, 0)


def converge_unsynced(*, budget_seconds: float = PASS_BUDGET_SECONDS, insistent: bool = False) -> Report:
    """One pass: account for due slots, push, remove, start, end what is dead, count what has ended.

    One row's trouble does not keep the others from their turn, and no part of the pass takes another's time. Stops
    early where Temporal does not answer several times in a row; the next pass goes on. ``insistent`` tries also what
    failed for a reason that was believed to stay. Safe to run twice at once.
    """
    report = Report()
    began = time.monotonic()
    report.settled = settle_due(deadline=began + SETTLING_SHARE * budget_seconds)
    deadline = began + RUNS_SHARE * budget_seconds
    waiting = _startable()
    started = _each_of(waiting, convergence.start, report, deadline=deadline)
    report.unstarted = len(waiting) - sum(started[outcome] for outcome in _NO_LONGER_WAITING)
    _each_of(_running_for_a_while(), convergence.close_if_dead, report, deadline=deadline)
    deadline = began + budget_seconds
    _push_unsynced(report, deadline=deadline, insistent=insistent)
    background.isolated(partial(_notice_holds, deadline=deadline))
    background.isolated(_count_finished)
    # A run whose workflow waits for a worker is in order; one that Temporal has not taken is not.
    report.unsynced = count_unsynced() + report.unstarted
    PassRecord.note(OWN_NAME)
    return report


def _each_of(
    runs: list[ScheduleRun], work: Callable[[ScheduleRun], PushOutcome], report: Report, *, deadline: float
) -> Counter[PushOutcome]:
    """Do the work for each run, a few at a time."""
    outcomes = background.in_parallel(runs, lambda run: background.isolated(partial(work, run)), deadline=deadline)
    for outcome, number in outcomes.items():
        report.outcomes[outcome] = report.of(outcome) + number
    return outcomes


def _push_unsynced(report: Report, *, deadline: float, insistent: bool) -> None:
    """Push what needs it, in fair turns; what does not fit into the pass is the next one's."""
    # The minute's pass passes over what somebody else is pushing; who asked for this one waits and sees.
    patience = convergence.LOCK_PATIENCE_SECONDS if insistent else 0

    def push(mirror: tuple[UUID, UUID]) -> PushOutcome:
        tenant_id, schedule_id = mirror
        return background.isolated(
            partial(convergence.push, tenant_id=tenant_id, schedule_id=schedule_id, patience_seconds=patience)
        )

    for outcome, number in background.in_parallel(_unsynced(insistent=insistent), push, deadline=deadline).items():
        report.outcomes[outcome] = report.of(outcome) + number


def _count_finished() -> PushOutcome:
    retention.count_finished()
    return PushOutcome.NOTHING


def _notice_holds(*, deadline: float) -> PushOutcome:
    try:
        holds.notice(deadline=deadline)
    except SchedulingError as error:
        log.warning("holds.not_looked_for", code=error.code, reason=error.message)
    return PushOutcome.NOTHING


def settle_due(*, deadline: float = float("inf")) -> int:
    """Account for every slot that has been due for a minute; returns how many had no run.

    Stops after ``deadline`` (of `time.monotonic`). A repeat finds nothing to do.
    """
    inquiry = holds.Inquiry()
    settled = 0
    stuck: set[UUID] = set()
    while time.monotonic() < deadline:
        until = ledger.database_now() - SLOT_GRACE
        due = list(_owing(until).exclude(id__in=stuck)[:LEDGER_BATCH])
        if not due:
            break
        before = {schedule.id: schedule.accounted_until for schedule in due}
        settled += _settle(due, until=until, inquiry=inquiry)
        now = dict(Schedule.objects.filter(id__in=before).values_list("id", "accounted_until"))
        stuck |= {schedule_id for schedule_id, moment in before.items() if now.get(schedule_id, moment) <= moment}
    return settled


def _settle(due: list[Schedule], *, until: datetime, inquiry: holds.Inquiry) -> int:
    """Settle a batch; a schedule that cannot be settled now, or at all, keeps none of the others from it."""
    try:
        return _settle_together(due, until=until, inquiry=inquiry)
    except Exception:
        if len(due) == 1:
            log.exception("ledger.not_settled", schedule_id=str(due[0].id))
            return 0
    return sum(_settle([schedule], until=until, inquiry=inquiry) for schedule in due)


def _settle_together(due: list[Schedule], *, until: datetime, inquiry: holds.Inquiry) -> int:
    unclaimed = ledger.unclaimed_slots(due, until=until)
    if len(due) > 1 and sum(len(slots) for slots in unclaimed.values()) > MAX_TOGETHER:
        return sum(_settle([schedule], until=until, inquiry=inquiry) for schedule in due)
    # Only a slot that nobody has claimed makes it worth asking whether an operator wants it so.
    answers = {schedule.id: inquiry.reason(schedule) for schedule in due if schedule.id in unclaimed}
    unknown = {schedule_id for schedule_id, reason in answers.items() if reason is None}
    held = {schedule_id: reason for schedule_id, reason in answers.items() if reason}
    settling = [schedule.id for schedule in due if schedule.id not in unknown]
    with transaction.atomic():
        # Rows that somebody is changing are settled by that change.
        rows = _owing(until).filter(id__in=settling).select_for_update(no_key=True, skip_locked=True, of=("self",))
        settled = ledger.settle(list(rows.order_by("id")), until=until, held=held)
    metrics.LEDGER_SETTLED.inc(settled)
    return settled


def _owing(until: datetime) -> QuerySet[Schedule]:
    """Enabled schedules with a slot that is due and not accounted for, oldest first."""
    return (
        Schedule.objects.filter(
            Q(next_slot_at__lte=until) | Q(next_slot_at=None), enabled=True, install__is_enabled=True
        )
        .defer("payload")
        .order_by("next_slot_at")
    )


def count_unsynced() -> int:
    """How many mirrors are not yet what their rows want, or are still there without one."""
    return _unsynced_rows().count() + MirrorRemoval.objects.count()


def _unsynced_rows() -> QuerySet[Schedule]:
    outdated = ~Q(calendar_rules=convergence.mirror_rules()) | Q(exact_until__lt=Now() + RENEWAL_NOTICE)
    return Schedule.objects.filter(~Q(synced_generation=F("generation")) | outdated)


def _unsynced(*, insistent: bool = False) -> list[tuple[UUID, UUID]]:
    """What needs a push now, as (tenant id, schedule id): each tenant's oldest, then each one's second oldest, ...

    So that however much of one tenant waits, the others' turn comes. Rows that cannot be pushed wait for theirs, unless
    ``insistent``.
    """
    with connection.cursor() as cursor:
        values = {"rules": convergence.mirror_rules(), "notice": cast("Any", RENEWAL_NOTICE), "limit": MAX_PUSHES}
        values["insistent"] = insistent
        cursor.execute(_UNSYNCED, values)
        return [(row[0], row[1]) for row in cursor.fetchall()]


def _startable() -> list[ScheduleRun]:
    """Queued runs that should have started by now, oldest first: the front of each line, and who stands in none.

    Some may have a workflow that is just about to claim them: asking again finds out.
    """
    with connection.cursor() as cursor:
        cursor.execute(_STARTABLE, {"grace": cast("Any", START_GRACE), "limit": MAX_STARTS})
        ids = [row[0] for row in cursor.fetchall()]
    return list(ScheduleRun.objects.filter(id__in=ids, status=RunStatus.QUEUED).defer("payload").order_by("created_at"))


def _running_for_a_while() -> list[ScheduleRun]:
    """Runs in flight for long enough that it is worth asking whether anybody still works on them.

    Where there are more than a pass can ask for, the passes take turns through all of them.
    """
    rows = ScheduleRun.objects.filter(status=RunStatus.RUNNING, started_at__lt=Now() - DEATH_GRACE)
    ids = list(rows.exclude(workflow_id="").order_by("started_at").values_list("id", flat=True))
    turns = max(1, -(-len(ids) // MAX_LIFE_CHECKS))
    mine = ids[int(time.time() // 60) % turns :: turns]
    return list(ScheduleRun.objects.filter(id__in=mine).defer("payload").order_by("started_at"))


_UNSYNCED: Final = """
SELECT tenant_id, id FROM (
    SELECT tenant_id, id, since,
           row_number() OVER (PARTITION BY tenant_id ORDER BY is_renewal, since) AS turn, is_renewal
    FROM (
        SELECT tenant_id, id, changed_at AS since, synced_generation = generation AS is_renewal FROM schedules_schedule
        WHERE (synced_generation <> generation OR calendar_rules <> %(rules)s
               OR exact_until < statement_timestamp() + %(notice)s)
          AND (%(insistent)s OR push_after IS NULL OR push_after <= statement_timestamp())
        UNION ALL
        SELECT tenant_id, id, deleted_at, false FROM schedules_mirrorremoval
    ) AS waiting
) AS in_turns
-- What somebody changed goes before what is only to be renewed.
ORDER BY is_renewal, turn, since LIMIT %(limit)s
"""

_STARTABLE: Final = """
SELECT id FROM (SELECT id FROM (
    SELECT DISTINCT ON (waiting.tenant_id, waiting.schedule_id) waiting.id, waiting.created_at
    FROM schedules_schedulerun waiting
    WHERE waiting.status = 'queued' AND waiting.exclusive
      AND (waiting.trigger = 'schedule' OR waiting.created_at < statement_timestamp() - %(grace)s)
      AND NOT EXISTS (
          SELECT 1 FROM schedules_schedulerun running
          WHERE running.tenant_id = waiting.tenant_id AND running.schedule_id = waiting.schedule_id
            AND running.status = 'running' AND running.exclusive
      )
    ORDER BY waiting.tenant_id, waiting.schedule_id, (waiting.trigger = 'backfill'), waiting.slot, waiting.created_at
) AS fronts
UNION
SELECT id FROM schedules_schedulerun
WHERE status = 'queued'
  AND ((NOT exclusive AND trigger = 'schedule')
       OR (created_at < statement_timestamp() - %(grace)s
           AND (NOT exclusive OR (waits = 0 AND trigger IN ('run_now', 'replay')))))
) AS startable
-- Not the oldest first: some only wait for a worker, and they must not take the others' places in every pass.
ORDER BY random() LIMIT %(limit)s
"""
