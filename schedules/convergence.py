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
from django.db import DatabaseError, InterfaceError, connection
from django.db.models import F, Q, QuerySet
from django.db.models.functions import Now

from schedules import calendars, cron, ledger, temporal
from schedules.errors import SchedulingError
from schedules.models import (
    ExtensionInstall,
    MirrorRemoval,
    RunStatus,
    Schedule,
    ScheduleRun,
    Trigger,
)
from workflows import names
from workflows.payloads import RunRequest

log = structlog.get_logger(__name__)

# How long a writer waits for its own push, so that its answer can say "synced". The push goes on without it.
PUSH_PATIENCE_SECONDS: Final = 0.3
# After Temporal did not answer, writers stop waiting for this long: the answer would be the same.
OUTAGE_MEMORY_SECONDS: Final = 5.0
PUSH_THREADS: Final = 4
ANNOUNCEMENT_SECONDS: Final = 10.0
MAX_WAITING: Final = 1000
# How long a push waits for another one of the same mirror; as long as a call to Temporal may take.
LOCK_PATIENCE_SECONDS: Final = 3.0
LOCK_POLL_SECONDS: Final = 0.05
# A pass ends well before the engine would give it up.
PASS_BUDGET_SECONDS: Final = 240.0
MAX_UNANSWERED: Final = 2
# A run in flight for this long is asked for a sign of life: within two minutes, with the next minute's pass.
DEATH_GRACE: Final = timedelta(seconds=60)
MAX_LIFE_CHECKS: Final = 500
# A run that was asked for by hand and has no workflow after this long is started by the sweep.
START_GRACE: Final = timedelta(seconds=10)
# Mirrors are renewed while their calendars are still exact for this long: clock changes of the next 18 months are
# always written out.
RENEWAL_NOTICE: Final = timedelta(days=19 * 31)


class PushOutcome(StrEnum):
    """What became of one piece of work on the way to Temporal."""

    SYNCED = "synced"
    REMOVED = "removed"
    STARTED = "started"
    CLOSED = "closed"
    NOTHING = "nothing"
    BUSY = "busy"
    UNAVAILABLE = "unavailable"
    REFUSED = "refused"
    FAILED = "failed"


@dataclass(slots=True)
class Report:
    """What one pass did, by outcome, and how much is left to do."""

    outcomes: dict[PushOutcome, int] = field(default_factory=dict)
    unsynced: int = 0

    def count(self, outcome: PushOutcome) -> None:
        """Add one outcome."""
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1

    def of(self, outcome: PushOutcome) -> int:
        """How often an outcome came."""
        return self.outcomes.get(outcome, 0)


def push(*, tenant_id: UUID, schedule_id: UUID, patience_seconds: float = LOCK_PATIENCE_SECONDS) -> PushOutcome:
    """Make one mirror equal to its row now, or remove it where the row is gone. Never raises for an outage.

    Must not run inside a transaction: Temporal is called while no row is locked. BUSY means that somebody else was
    pushing the same mirror for longer than ``patience_seconds``.
    """
    with _push_lock(schedule_id, patience_seconds=patience_seconds) as is_ours:
        if not is_ours:
            return PushOutcome.BUSY
        row = _load(tenant_id=tenant_id, schedule_id=schedule_id)
        try:
            if row is None:
                return _remove(tenant_id=tenant_id, schedule_id=schedule_id)
            return _project(row)
        except SchedulingError as error:
            log.warning("mirror.not_pushed", schedule_id=str(schedule_id), code=error.code, reason=error.message)
            if error.retryable:
                return PushOutcome.UNAVAILABLE
            Schedule.objects.filter(tenant_id=tenant_id, id=schedule_id).update(sync_error=error.message[:512])
            return PushOutcome.REFUSED


def request_push(*, tenant_id: UUID, schedule_id: UUID) -> None:
    """Push soon, in the background; wait a moment for it. Call it after the commit. Never raises."""
    _background.do_soon(partial(push, tenant_id=tenant_id, schedule_id=schedule_id), patience=PUSH_PATIENCE_SECONDS)


def request_pushes(*, pushes: Iterable[tuple[UUID, UUID]]) -> None:
    """Push several mirrors, given as (tenant id, schedule id), in the background. Waits for none, never raises."""
    for tenant_id, schedule_id in pushes:
        _background.do_soon(partial(push, tenant_id=tenant_id, schedule_id=schedule_id), patience=0)


def request_start(*, tenant_id: UUID, run_id: UUID) -> None:
    """Start a queued run's workflow soon, in the background; wait a moment for it. Never raises."""
    _background.do_soon(partial(_start_queued, tenant_id, run_id), patience=PUSH_PATIENCE_SECONDS)


def announce_temporal() -> None:
    """Say in the log when Temporal answers, and until then that it does not. Returns at once; nothing waits for it.

    For a web process at its start: writes succeed all the same, and whoever looks should know why mirrors are pending.
    """

    def announce() -> None:
        while True:
            try:
                temporal.check_health()
            except SchedulingError as error:
                log.warning("web.waiting_for_temporal", reason=error.message)
                time.sleep(ANNOUNCEMENT_SECONDS)
            else:
                log.info("web.temporal_answers", address=temporal.address())
                return

    threading.Thread(target=announce, name="announce-temporal", daemon=True).start()


def finish_background_work(*, timeout_seconds: float) -> None:
    """Wait until the pushes that this process was asked for are done, e.g. before a command exits."""
    wait(list(_background.futures), timeout=timeout_seconds)


def converge_unsynced(*, budget_seconds: float = PASS_BUDGET_SECONDS) -> Report:
    """Push every unsynced row, remove every leftover mirror, start queued runs and end those whose workflow is gone.

    One row's trouble does not keep the others from their turn. Stops early where Temporal does not answer several
    times in a row, or after ``budget_seconds``; the next pass goes on. Safe to run twice at once.
    """
    report = Report()
    deadline = time.monotonic() + budget_seconds
    unanswered = 0
    for work in _all_work():
        outcome = _isolated(work)
        report.count(outcome)
        unanswered = unanswered + 1 if outcome is PushOutcome.UNAVAILABLE else 0
        if unanswered >= MAX_UNANSWERED or time.monotonic() > deadline:
            break
    report.unsynced = len(_unsynced()) + _queued_without_workflow().count()
    return report


def start(run: ScheduleRun) -> PushOutcome:
    """Start the workflow of a queued run, or end the run if its workflow has ended without it. A repeat is fine."""
    request = RunRequest(
        tenant_id=str(run.tenant_id),
        install_id=str(run.install_id),
        schedule_id=str(run.schedule_id),
        trigger=run.trigger,
        invocation_id=str(run.id),
    )
    workflow_id = names.manual_workflow_id(install_id=run.install_id, schedule_id=run.schedule_id, invocation_id=run.id)
    try:
        if temporal.start_run(request, extension_id=_extension_id(run)):
            return PushOutcome.STARTED
        return _close_if_abandoned(run, workflow_id=workflow_id, workflow_run_id=None)
    except SchedulingError as error:
        log.warning("run.not_started", run_id=str(run.id), code=error.code, reason=error.message)
        return PushOutcome.UNAVAILABLE if error.retryable else PushOutcome.REFUSED


def _all_work() -> Iterator[Callable[[], PushOutcome]]:
    """Everything that a pass has to do, in the order of doing it; each part is looked up when its turn comes."""
    for tenant_id, schedule_id in _unsynced():
        yield partial(push, tenant_id=tenant_id, schedule_id=schedule_id, patience_seconds=0)
    for run in _queued_without_workflow():
        yield partial(start, run)
    for run in _running_for_a_while():
        yield partial(_close_dead, run)


def _isolated(work: Callable[[], PushOutcome]) -> PushOutcome:
    """Do one piece of work; whatever goes wrong with it is its own affair, and stays visibly undone."""
    try:
        return work()
    except (DatabaseError, InterfaceError):
        log.warning("convergence.database_error")
        connection.close()
        return PushOutcome.UNAVAILABLE
    except Exception:
        log.exception("convergence.bug")
        return PushOutcome.FAILED


def _close_dead(run: ScheduleRun) -> PushOutcome:
    try:
        return _close_if_abandoned(run, workflow_id=run.workflow_id, workflow_run_id=run.workflow_run_id)
    except SchedulingError as error:
        return PushOutcome.UNAVAILABLE if error.retryable else PushOutcome.REFUSED


def _close_if_abandoned(run: ScheduleRun, *, workflow_id: str, workflow_run_id: str | None) -> PushOutcome:
    """End a run whose workflow was terminated or is gone: nobody else would, and it keeps its schedule occupied."""
    if temporal.workflow_is_open(workflow_id=workflow_id, run_id=workflow_run_id or None):
        return PushOutcome.NOTHING
    ledger.close_run(
        tenant_id=run.tenant_id,
        run_id=run.id,
        status=RunStatus.CANCELLED,
        reason="its workflow ended without it, e.g. terminated by an operator",
    )
    return PushOutcome.CLOSED


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


def _queued_without_workflow() -> QuerySet[ScheduleRun]:
    """Runs by hand that should have started by now. Some may have: asking again finds out."""
    return (
        ScheduleRun.objects.filter(status=RunStatus.QUEUED, created_at__lt=Now() - START_GRACE)
        .exclude(trigger=Trigger.SCHEDULE)
        .defer("payload")
        .order_by("created_at")
    )


def _running_for_a_while() -> list[ScheduleRun]:
    """Runs in flight for long enough that it is worth asking whether anybody still works on them, oldest first."""
    rows = ScheduleRun.objects.filter(status=RunStatus.RUNNING, started_at__lt=Now() - DEATH_GRACE)
    return list(rows.exclude(workflow_id="").defer("payload").order_by("started_at")[:MAX_LIFE_CHECKS])


def _extension_id(run: ScheduleRun) -> UUID:
    install = ExtensionInstall.objects.filter(tenant_id=run.tenant_id, id=run.install_id).only("extension_id").first()
    return install.extension_id if install else run.install_id


@contextlib.contextmanager
def _push_lock(schedule_id: UUID, *, patience_seconds: float) -> Iterator[bool]:
    """One push of a schedule at a time, across processes: Temporal would keep whichever of two writes came last.

    Yields whether the lock is ours. A session lock, because no transaction may be open during the call; it goes with
    the connection if we die, and nobody waits for long behind a holder that hangs.
    """
    key = f"mirror:{schedule_id}"
    deadline = time.monotonic() + patience_seconds
    while not _lock_statement("pg_try_advisory_lock", key):
        if time.monotonic() >= deadline:
            yield False
            return
        time.sleep(LOCK_POLL_SECONDS)
    try:
        yield True
    finally:
        try:
            _lock_statement("pg_advisory_unlock", key)
        except (DatabaseError, InterfaceError):
            # The server let go of the lock with the connection; a broken one must not go back to the pool.
            connection.close()


def _lock_statement(function: str, key: str) -> bool:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {function}(hashtextextended(%s, 0))", [key])
        return bool(cursor.fetchone()[0])


class _Background:
    """The threads that push for this process. Made on first use and anew after a fork."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process_id = 0
        self._executor: ThreadPoolExecutor | None = None
        self._unavailable_until = 0.0
        self.futures: set[Future[PushOutcome]] = set()

    def do_soon(self, work: Callable[[], PushOutcome], *, patience: float) -> None:
        """Do the work in the background and wait ``patience`` seconds for it.

        Does not wait while Temporal is known to be away, and leaves the work to the sweep where too much is queued.
        """
        if len(self.futures) >= MAX_WAITING:
            return
        if time.monotonic() < self._unavailable_until:
            patience = 0
        with self._lock:
            if self._executor is None or self._process_id != os.getpid():
                self._executor = ThreadPoolExecutor(PUSH_THREADS, thread_name_prefix="push")
                self.futures, self._process_id = set(), os.getpid()
            future = self._executor.submit(self._do, work)
            self.futures.add(future)
        future.add_done_callback(self.futures.discard)
        with contextlib.suppress(FutureTimeoutError):
            future.result(patience)

    def _do(self, work: Callable[[], PushOutcome]) -> PushOutcome:
        # Whoever comes right after an outage was seen does not ask again at once, and keeps no connection meanwhile.
        time.sleep(max(0.0, self._unavailable_until - time.monotonic()))
        try:
            outcome = _isolated(work)
        finally:
            connection.close()
        if outcome is PushOutcome.UNAVAILABLE:
            self._unavailable_until = time.monotonic() + OUTAGE_MEMORY_SECONDS
        return outcome


_background = _Background()


def _start_queued(tenant_id: UUID, run_id: UUID) -> PushOutcome:
    run = ScheduleRun.objects.filter(tenant_id=tenant_id, id=run_id, status=RunStatus.QUEUED).first()
    return PushOutcome.NOTHING if run is None else start(run)
