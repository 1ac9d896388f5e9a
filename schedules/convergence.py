"""Makes mirrors equal to rows. The row is the truth; a mirror is its projection.

A push is level-triggered: it reads the current row under a lock of its own, so it does not matter how many pushes
were asked for, in which order they run, or how many of them a crash took away. What is left is found by
`converge_unsynced`, which a system schedule runs every minute and ``manage.py reconcile`` on demand.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import partial
from typing import Final
from uuid import UUID

import structlog
from django.db import DatabaseError, connection
from django.db.models import F, Q
from django.db.models.functions import Now

from schedules import calendars, cron, temporal
from schedules.errors import DependencyUnavailable
from schedules.models import (
    ExtensionInstall,
    MirrorRemoval,
    RunStatus,
    Schedule,
    ScheduleRun,
    Trigger,
)
from workflows.payloads import RunRequest

log = structlog.get_logger(__name__)

# How long a writer waits for its own push, so that its answer can say "synced". The push goes on without it.
PUSH_PATIENCE_SECONDS: Final = 0.3
# After Temporal did not answer, writers stop waiting for this long: the answer would be the same.
OUTAGE_MEMORY_SECONDS: Final = 5.0
PUSH_THREADS: Final = 4
# A run that was asked for by hand and has no workflow after this long is started by the sweep.
START_GRACE: Final = timedelta(seconds=10)
# Mirrors are renewed while their calendars are still exact for this long: clock changes of the next 18 months are
# always written out.
RENEWAL_NOTICE: Final = timedelta(days=19 * 31)


class PushOutcome(StrEnum):
    """What became of one push."""

    SYNCED = "synced"
    REMOVED = "removed"
    UNAVAILABLE = "unavailable"
    REFUSED = "refused"
    NOTHING = "nothing"


@dataclass(slots=True)
class Report:
    """What one pass did, by outcome, and what is left."""

    outcomes: dict[PushOutcome, int] = field(default_factory=dict)
    started: int = 0
    unsynced: int = 0

    def count(self, outcome: PushOutcome) -> None:
        """Add one outcome."""
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1

    def of(self, outcome: PushOutcome) -> int:
        """How often an outcome came."""
        return self.outcomes.get(outcome, 0)


def push(*, tenant_id: UUID, schedule_id: UUID) -> PushOutcome:
    """Make one mirror equal to its row now, or remove it where the row is gone. Never raises for an outage.

    Must not run inside a transaction: Temporal is called while no row is locked.
    """
    with _push_lock(schedule_id):
        row = _load(tenant_id=tenant_id, schedule_id=schedule_id)
        try:
            if row is None:
                return _remove(tenant_id=tenant_id, schedule_id=schedule_id)
            return _project(row)
        except DependencyUnavailable as error:
            log.warning("mirror.pending", schedule_id=str(schedule_id), reason=error.message)
            return PushOutcome.UNAVAILABLE
        except temporal.MirrorRefused as error:
            log.warning("mirror.refused", schedule_id=str(schedule_id), reason=error.message)
            Schedule.objects.filter(tenant_id=tenant_id, id=schedule_id).update(sync_error=error.message[:512])
            return PushOutcome.REFUSED


def request_push(*, tenant_id: UUID, schedule_id: UUID) -> None:
    """Push soon, in the background; wait a moment for it. Call it after the commit. Never raises."""
    _in_background(lambda: _push_quietly(tenant_id, schedule_id))


def request_pushes(*, pushes: Iterable[tuple[UUID, UUID]]) -> None:
    """Push several mirrors, given as (tenant id, schedule id), in the background. Waits for none, never raises."""
    for tenant_id, schedule_id in pushes:
        _background.submit(partial(_push_quietly, tenant_id, schedule_id))


def request_start(*, tenant_id: UUID, run_id: UUID) -> None:
    """Start a queued run's workflow soon, in the background; wait a moment for it. Never raises."""
    _in_background(lambda: _start_quietly(tenant_id, run_id))


def finish_background_work(*, timeout_seconds: float) -> None:
    """Wait until the pushes that this process was asked for are done, e.g. before a command exits."""
    wait(list(_background.futures), timeout=timeout_seconds)


def converge_unsynced(*, progress: Callable[[], object] = lambda: None) -> Report:
    """Push every unsynced row, remove every leftover mirror and start every queued run that lacks a workflow.

    ``progress`` is called after each step. Stops early once Temporal does not answer. Safe to run twice at once.
    """
    report = Report()
    for tenant_id, schedule_id in _unsynced():
        outcome = push(tenant_id=tenant_id, schedule_id=schedule_id)
        report.count(outcome)
        progress()
        if outcome is PushOutcome.UNAVAILABLE:
            break
    else:
        for run in _queued_without_workflow():
            if start(run) is PushOutcome.UNAVAILABLE:
                break
            report.started += 1
            progress()
    report.unsynced = len(_unsynced())
    return report


def start(run: ScheduleRun) -> PushOutcome:
    """Start the workflow of a queued run. A repeat changes nothing."""
    request = RunRequest(
        tenant_id=str(run.tenant_id),
        install_id=str(run.install_id),
        schedule_id=str(run.schedule_id),
        trigger=run.trigger,
        invocation_id=str(run.id),
    )
    try:
        temporal.start_run(request, extension_id=_extension_id(run))
    except DependencyUnavailable as error:
        log.warning("run.start_pending", run_id=str(run.id), reason=error.message)
        return PushOutcome.UNAVAILABLE
    except temporal.MirrorRefused as error:
        log.warning("run.start_refused", run_id=str(run.id), reason=error.message)
        return PushOutcome.REFUSED
    return PushOutcome.SYNCED


def mirror_state(schedule: Schedule, *, compiled: calendars.Compiled) -> temporal.MirrorState:
    """What the schedule's mirror must show. The row needs its install."""
    return temporal.MirrorState(
        tenant_id=schedule.tenant_id,
        install_id=schedule.install_id,
        extension_id=schedule.install.extension_id,
        schedule_id=schedule.id,
        cron=schedule.cron,
        timezone=schedule.timezone,
        calendars=compiled.calendars,
        active=schedule.enabled and schedule.install.is_enabled,
        generation=schedule.generation,
    )


def _load(*, tenant_id: UUID, schedule_id: UUID) -> Schedule | None:
    return (
        Schedule.objects.select_related("install")
        .defer("payload", "install__config", "install__secret_envelope")
        .filter(tenant_id=tenant_id, id=schedule_id)
        .first()
    )


def _project(row: Schedule) -> PushOutcome:
    now = datetime.now(UTC)
    is_exact = row.exact_until is not None and row.exact_until >= now + RENEWAL_NOTICE
    if row.synced_generation == row.generation and is_exact and row.calendar_rules == calendars.RULES:
        return PushOutcome.NOTHING
    compiled = calendars.compile_calendars(cron.parse(row.cron), cron.parse_zone(row.timezone), now=now)
    state = mirror_state(row, compiled=compiled)
    temporal.put_mirror(state, exists=row.synced_generation > 0)
    # Stamped with the generation that was read: a change that committed meanwhile stays visibly unsynced.
    Schedule.objects.filter(tenant_id=row.tenant_id, id=row.id, synced_generation__lte=state.generation).update(
        synced_generation=state.generation,
        sync_error="",
        exact_until=compiled.exact_until,
        calendar_rules=calendars.RULES,
    )
    return PushOutcome.SYNCED


def _remove(*, tenant_id: UUID, schedule_id: UUID) -> PushOutcome:
    removal = MirrorRemoval.objects.filter(tenant_id=tenant_id, id=schedule_id).first()
    if removal is None:
        return PushOutcome.NOTHING
    temporal.remove_mirror(install_id=removal.install_id, schedule_id=schedule_id)
    removal.delete()
    return PushOutcome.REMOVED


def _unsynced() -> list[tuple[UUID, UUID]]:
    """What needs a push, oldest change first."""
    outdated = ~Q(calendar_rules=calendars.RULES) | Q(exact_until__lt=Now() + RENEWAL_NOTICE)
    rows = Schedule.objects.filter(~Q(synced_generation=F("generation")) | outdated).order_by("changed_at")
    removals = MirrorRemoval.objects.order_by("deleted_at")
    return [
        *rows.values_list("tenant_id", "id"),
        *removals.values_list("tenant_id", "id"),
    ]


def _queued_without_workflow() -> list[ScheduleRun]:
    return list(
        ScheduleRun.objects.filter(status=RunStatus.QUEUED, created_at__lt=Now() - START_GRACE)
        .exclude(trigger=Trigger.SCHEDULE)
        .defer("payload")
        .order_by("created_at")
    )


def _extension_id(run: ScheduleRun) -> UUID:
    install = ExtensionInstall.objects.filter(tenant_id=run.tenant_id, id=run.install_id).only("extension_id").first()
    return install.extension_id if install else run.install_id


@contextlib.contextmanager
def _push_lock(schedule_id: UUID) -> Iterator[None]:
    """One push of a schedule at a time, across processes: Temporal would keep whichever of two writes came last.

    A session lock, because no transaction may be open during the call; it goes with the connection if we die.
    """
    key = f"mirror:{schedule_id}"
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", [key])
    try:
        yield
    finally:
        try:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_unlock(hashtextextended(%s, 0))", [key])
        except DatabaseError:
            # The server let go of the lock with the connection; a broken one must not go back to the pool.
            connection.close()


class _Background:
    """The threads that push for this process. Made on first use and anew after a fork."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.process_id = 0
        self.executor: ThreadPoolExecutor | None = None
        self.futures: set[Future[PushOutcome]] = set()
        self.unavailable_until = 0.0

    def submit(self, work: Callable[[], PushOutcome]) -> Future[PushOutcome]:
        with self.lock:
            if self.executor is None or self.process_id != os.getpid():
                self.executor = ThreadPoolExecutor(PUSH_THREADS, thread_name_prefix="push")
                self.futures, self.process_id = set(), os.getpid()
            future = self.executor.submit(work)
            self.futures.add(future)
        future.add_done_callback(self.futures.discard)
        return future


_background = _Background()


def _in_background(work: Callable[[], PushOutcome]) -> None:
    future = _background.submit(work)
    if time.monotonic() < _background.unavailable_until:
        return
    with contextlib.suppress(FutureTimeoutError):
        future.result(PUSH_PATIENCE_SECONDS)


def _push_quietly(tenant_id: UUID, schedule_id: UUID) -> PushOutcome:
    return _quietly(lambda: push(tenant_id=tenant_id, schedule_id=schedule_id))


def _start_quietly(tenant_id: UUID, run_id: UUID) -> PushOutcome:
    def start_run() -> PushOutcome:
        run = ScheduleRun.objects.filter(tenant_id=tenant_id, id=run_id, status=RunStatus.QUEUED).first()
        return PushOutcome.NOTHING if run is None else start(run)

    return _quietly(start_run)


def _quietly(work: Callable[[], PushOutcome]) -> PushOutcome:
    """Do background work, remember an outage, and give the thread's connection back.

    Nothing is lost when it fails: what it should have done stays visibly undone in the database, for the sweep.
    """
    try:
        outcome = work()
    except DatabaseError:
        log.exception("push.database_error")
        outcome = PushOutcome.UNAVAILABLE
    finally:
        connection.close()
    if outcome is PushOutcome.UNAVAILABLE:
        _background.unavailable_until = time.monotonic() + OUTAGE_MEMORY_SECONDS
    return outcome
