"""Makes mirrors equal to rows. The row is the truth; a mirror is its projection.

A push is level-triggered: it reads the current row under a lock of its own, so it does not matter how many pushes
were asked for, in which order they run, or how many of them a crash took away. What is left is found by
`schedules.sweep`. Starts and cancellations of runs go the same way: the row says what is wanted, the call to Temporal
follows the commit, and the sweep repeats what got lost.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import os
import random
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import partial
from typing import Final, TypeVar
from uuid import UUID

import structlog
from django.conf import settings
from django.core.signals import request_finished, request_started
from django.db import DatabaseError, InterfaceError, connection
from django.db.models import F
from django.db.models.functions import Coalesce, Now

from schedules import calendars, cron, inspection, ledger, temporal, temporal_bridge
from schedules.errors import SchedulingError
from schedules.models import (
    Deployment,
    ExtensionInstall,
    MirrorRemoval,
    RunStatus,
    Schedule,
    ScheduleRun,
)
from workflows import names
from workflows.payloads import RunRequest

log = structlog.get_logger(__name__)

T = TypeVar("T")

# After Temporal did not answer, nobody in this process asks again for this long: the answer would be the same.
OUTAGE_MEMORY_SECONDS: Final = 5.0
OUTAGE_JITTER_SECONDS: Final = 1.0
PUSH_THREADS: Final = 2
# A push that failed for a reason that will stay is tried again after this long, then twice as long, and so on.
BACKOFF_SECONDS: Final = 60.0
LONGEST_BACKOFF_SECONDS: Final = 3600.0
# How a pass over many mirrors goes on.
PARALLEL_PUSHES: Final = 4
PUSHES_PER_SECOND: Final = 150
MAX_UNANSWERED: Final = 2
# Requests go first, because somebody waits for them and nobody for a mirror: a push waits until the process has been
# quiet for a moment, though not for long.
QUIET_SECONDS: Final = 0.02
CALLERS_FIRST_SECONDS: Final = 0.5
ANNOUNCEMENT_SECONDS: Final = 10.0
MAX_WAITING: Final = 1000
# How long a push waits for another one of the same mirror; as long as a call to Temporal may take.
LOCK_PATIENCE_SECONDS: Final = 3.0
LOCK_POLL_SECONDS: Final = 0.05
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


def push(
    *, tenant_id: UUID, schedule_id: UUID, patience_seconds: float = LOCK_PATIENCE_SECONDS, again: bool = False
) -> PushOutcome:
    """Make one mirror equal to its row now, or remove it where the row is gone. Never raises for an outage.

    Must not run inside a transaction: Temporal is called while no row is locked. BUSY means that somebody else was
    pushing the same mirror for longer than ``patience_seconds``. With ``again`` it is written although the row believes
    it to be in order. A push that fails for a reason that will stay is left alone for a while, longer each time.
    """
    with _push_lock(schedule_id, patience_seconds=patience_seconds) as is_ours:
        if not is_ours:
            return PushOutcome.BUSY
        row = _load(tenant_id=tenant_id, schedule_id=schedule_id)
        try:
            if row is None:
                return _remove(tenant_id=tenant_id, schedule_id=schedule_id)
            return _project(row, again=again)
        except SchedulingError as error:
            log.warning("mirror.not_pushed", schedule_id=str(schedule_id), code=error.code, reason=error.message)
            if error.retryable:
                return PushOutcome.UNAVAILABLE
            _back_off(row, schedule_id=schedule_id, reason=error.message)
            return PushOutcome.REFUSED
        except (DatabaseError, InterfaceError):
            raise
        except Exception:
            # A bug, or a row that nothing can be made of: it must not take the others' turn in every pass.
            _back_off(row, schedule_id=schedule_id, reason="The mirror cannot be made, see the log")
            raise


def _back_off(row: Schedule | None, *, schedule_id: UUID, reason: str) -> None:
    if row is None:
        return  # a removal, which has no reason that will stay
    delay = min(BACKOFF_SECONDS * 2 ** min(row.push_failures, 16), LONGEST_BACKOFF_SECONDS) * random.uniform(0.8, 1.2)  # noqa: S311
    Schedule.objects.filter(tenant_id=row.tenant_id, id=schedule_id, generation=row.generation).update(
        sync_error=reason[:512],
        push_failures=F("push_failures") + 1,
        push_after=Now() + timedelta(seconds=delay),
    )


@functools.cache
def deployment() -> UUID:
    """The mark of this database's mirrors, made on first use."""
    row, _ = Deployment.objects.get_or_create(id=1)
    return row.mark


def mirror_rules() -> str:
    """What every mirror is made by beside its row: how times are compiled, and the task queue that runs go to."""
    return f"{calendars.RULES}/{zlib.crc32(settings.TEMPORAL_TASK_QUEUE.encode()):08x}"


def note_hold(row: Schedule, note: str | None) -> None:
    """Write down on the row what was seen of an operator's hold; None for none. A repeat changes nothing.

    Nothing is written where the row has changed since it was read: whoever lifted a hold meanwhile has the last word.
    """
    unmoved = Schedule.objects.filter(tenant_id=row.tenant_id, id=row.id, generation=row.generation)
    if note is None:
        if row.held_since is not None or row.release_hold:
            unmoved.update(held_since=None, held_note="")
    elif row.held_since is None or row.held_note != note[: temporal.MAX_NOTE_LENGTH]:
        unmoved.update(held_since=Coalesce(F("held_since"), Now()), held_note=note[: temporal.MAX_NOTE_LENGTH])


def services_answer() -> bool:
    """Whether PostgreSQL and Temporal answer, so that what got no answer has a reason of its own."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        temporal_bridge.check_health()
    except (DatabaseError, InterfaceError, SchedulingError):
        return False
    return True


def in_parallel(
    items: Iterable[T], work: Callable[[T], PushOutcome], *, deadline: float = float("inf")
) -> Counter[PushOutcome]:
    """Do the work for each, a few at a time, each thread with a connection of its own, at a bounded rate.

    Returns what came of them. Ends early, leaving the rest, after ``deadline`` (of `time.monotonic`) and where
    PostgreSQL or Temporal is away; a single item that gets no answer keeps none of the others from theirs.
    """
    waiting, lock, unanswered = iter(items), threading.Lock(), 0

    def one_thread() -> Counter[PushOutcome]:
        nonlocal unanswered
        outcomes: Counter[PushOutcome] = Counter()
        try:
            while unanswered < MAX_UNANSWERED and time.monotonic() < deadline:
                with lock:
                    item = next(waiting, None)
                if item is None:
                    break
                began = time.monotonic()
                outcome = work(item)
                outcomes[outcome] += 1
                is_away = outcome is PushOutcome.UNAVAILABLE and not services_answer()
                unanswered = unanswered + 1 if is_away else 0
                time.sleep(max(0.0, PARALLEL_PUSHES / PUSHES_PER_SECOND - (time.monotonic() - began)))
        finally:
            connection.close()
        return outcomes

    with ThreadPoolExecutor(PARALLEL_PUSHES, thread_name_prefix="converge") as threads:
        done = [threads.submit(one_thread) for _ in range(PARALLEL_PUSHES)]
    return sum((future.result() for future in done), Counter())


def request_push(*, tenant_id: UUID, schedule_id: UUID) -> None:
    """Push soon, in the background. Call it after the commit. Waits for nothing, never raises."""
    _background.do_soon(partial(push, tenant_id=tenant_id, schedule_id=schedule_id))


def request_pushes(*, pushes: Iterable[tuple[UUID, UUID]]) -> None:
    """Push several mirrors, given as (tenant id, schedule id), in the background. Waits for none, never raises."""
    for tenant_id, schedule_id in pushes:
        request_push(tenant_id=tenant_id, schedule_id=schedule_id)


def request_start(*, tenant_id: UUID, run_id: UUID) -> None:
    """Start a queued run's workflow soon, in the background. Waits for nothing, never raises."""
    _background.do_soon(partial(_start_queued, tenant_id, run_id))


def request_starts(*, tenant_id: UUID, run_ids: Iterable[UUID]) -> None:
    """Start the workflows of several queued runs soon, in the background. Waits for none, never raises."""
    for run_id in run_ids:
        request_start(tenant_id=tenant_id, run_id=run_id)


def request_cancel(*, tenant_id: UUID, run_id: UUID) -> None:
    """Ask the workflow of a run whose row wants cancellation to stop, in the background. Never raises."""
    _background.do_soon(partial(_cancel, tenant_id, run_id))


def start_next(*, tenant_id: UUID, schedule_id: UUID) -> None:
    """Start the run that is next in the schedule's line, if there is one, in the background. Never raises.

    Call it after the commit of what ended the run before.
    """
    run = ledger.next_in_line(tenant_id=tenant_id, schedule_id=schedule_id)
    if run is not None:
        _background.do_soon(partial(_start_queued, tenant_id, run.id))


def announce_temporal() -> None:
    """Say in the log when Temporal answers, and until then that it does not. Returns at once; nothing waits for it.

    For a web process at its start: writes succeed all the same, and whoever looks should know why mirrors are pending.
    """

    def announce() -> None:
        while True:
            try:
                temporal_bridge.check_health()
            except SchedulingError as error:
                log.warning("web.waiting_for_temporal", reason=error.message)
                time.sleep(ANNOUNCEMENT_SECONDS)
            else:
                log.info("web.temporal_answers", address=temporal_bridge.address())
                return

    threading.Thread(target=announce, name="announce-temporal", daemon=True).start()


def finish_background_work(*, timeout_seconds: float) -> None:
    """Wait until the pushes that this process was asked for are done, e.g. before a command exits."""
    wait(list(_background.futures), timeout=timeout_seconds)


def start(run: ScheduleRun) -> PushOutcome:
    """Start the workflow of a queued run, or end the run if its workflow has ended without it. A repeat is fine."""
    if run.status != RunStatus.QUEUED:
        return PushOutcome.NOTHING
    request = RunRequest(
        tenant_id=str(run.tenant_id),
        install_id=str(run.install_id),
        schedule_id=str(run.schedule_id),
        trigger=run.trigger,
        invocation_id=str(run.id),
        slot=run.slot.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        begins_locally=True,
    )
    try:
        if temporal.start_run(request, extension_id=_extension_id(run), waits=run.waits):
            return PushOutcome.STARTED
        return _close_if_abandoned(run, names.started_workflow_id(request, waits=run.waits), None)
    except SchedulingError as error:
        log.warning("run.not_started", run_id=str(run.id), code=error.code, reason=error.message)
        return PushOutcome.UNAVAILABLE if error.retryable else PushOutcome.REFUSED


def isolated(work: Callable[[], PushOutcome]) -> PushOutcome:
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


def close_if_dead(run: ScheduleRun) -> PushOutcome:
    """End a run in flight whose workflow has ended without it; where cancellation is wanted, ask for it again."""
    try:
        if run.cancel_requested_at is not None:
            temporal.cancel_workflow(workflow_id=run.workflow_id, run_id=None)
        return _close_if_abandoned(run, run.workflow_id, run.workflow_run_id)
    except SchedulingError as error:
        return PushOutcome.UNAVAILABLE if error.retryable else PushOutcome.REFUSED


def _close_if_abandoned(run: ScheduleRun, workflow_id: str, workflow_run_id: str | None) -> PushOutcome:
    """End a run whose workflow was terminated or is gone: nobody else would, and it keeps its schedule occupied."""
    is_open = temporal.workflow_is_open(workflow_id=workflow_id, run_id=workflow_run_id or None)
    if is_open or (is_open is None and _is_another_namespace(run)):
        return PushOutcome.NOTHING
    # Whatever a workflow wrote, it wrote before it ended: what still stands now is what it left.
    left = ScheduleRun.objects.filter(tenant_id=run.tenant_id, id=run.id, status=run.status, waits=run.waits)
    if not left.exists():
        return PushOutcome.NOTHING
    ledger.close_run(
        tenant_id=run.tenant_id,
        run_id=run.id,
        status=RunStatus.CANCELLED,
        reason="its workflow ended without it, e.g. terminated by an operator",
        while_status=RunStatus(run.status),
    )
    start_next(tenant_id=run.tenant_id, schedule_id=run.schedule_id)
    return PushOutcome.CLOSED


def _is_another_namespace(run: ScheduleRun) -> bool:
    """Whether the namespace knows nothing of the run's schedule, so that it is no evidence against its workflow."""
    if not Schedule.objects.filter(tenant_id=run.tenant_id, id=run.schedule_id, synced_generation__gt=0).exists():
        return False
    return temporal.describe_mirror(install_id=run.install_id, schedule_id=run.schedule_id) is None


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
        deployment=deployment(),
        held_note=schedule.held_note if schedule.held_since is not None else None,
        lifted_note=schedule.held_note if schedule.release_hold else None,
    )


def _load(*, tenant_id: UUID, schedule_id: UUID) -> Schedule | None:
    return (
        Schedule.objects.select_related("install")
        .defer("payload", "install__config", "install__secret_envelope")
        .filter(tenant_id=tenant_id, id=schedule_id)
        .first()
    )


def _project(row: Schedule, *, again: bool) -> PushOutcome:
    now = datetime.now(UTC)
    is_exact = row.exact_until is not None and row.exact_until >= now + RENEWAL_NOTICE
    if row.synced_generation == row.generation and is_exact and row.calendar_rules == mirror_rules() and not again:
        return PushOutcome.NOTHING
    compiled = calendars.compile_calendars(cron.parse(row.cron), cron.parse_zone(row.timezone), now=now)
    state = mirror_state(row, compiled=compiled)
    held = temporal.put_mirror(state, exists=row.synced_generation > 0)
    # Stamped with the generation that was read: a change that committed meanwhile stays visibly unsynced.
    stamped = Schedule.objects.filter(tenant_id=row.tenant_id, id=row.id, synced_generation__lte=state.generation)
    stamped.update(
        synced_generation=state.generation,
        exact_until=compiled.exact_until,
        calendar_rules=mirror_rules(),
        mirror_digest=inspection.digest_of(temporal.build_schedule(state)),
    )
    # What belongs to the generation that was read is not taken from a later one.
    unmoved = Schedule.objects.filter(tenant_id=row.tenant_id, id=row.id, generation=state.generation)
    unmoved.update(sync_error="", push_failures=0, push_after=None, release_hold=False)
    note_hold(row, held)
    return PushOutcome.SYNCED


def _remove(*, tenant_id: UUID, schedule_id: UUID) -> PushOutcome:
    removal = MirrorRemoval.objects.filter(tenant_id=tenant_id, id=schedule_id).first()
    if removal is None:
        return PushOutcome.NOTHING
    temporal.remove_mirror(install_id=removal.install_id, schedule_id=schedule_id)
    removal.delete()
    return PushOutcome.REMOVED


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


class _Callers:
    """Knows whether this process is answering a request right now."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._in_flight = 0
        self._quiet_since = 0.0
        request_started.connect(self._began, weak=False)
        request_finished.connect(self._ended, weak=False)

    def wait_for_a_pause(self, *, patience_seconds: float) -> None:
        """Return once nothing has been in flight for `QUIET_SECONDS`, or after so long."""
        deadline = time.monotonic() + patience_seconds
        with self._changed:
            while (now := time.monotonic()) < deadline:
                wake = deadline if self._in_flight else min(deadline, self._quiet_since + QUIET_SECONDS)
                if wake <= now:
                    return
                self._changed.wait(wake - now)

    def _began(self, **_: object) -> None:
        with self._changed:
            self._in_flight += 1

    def _ended(self, **_: object) -> None:
        with self._changed:
            self._in_flight = max(0, self._in_flight - 1)
            self._quiet_since = time.monotonic()
            self._changed.notify_all()


class _Background:
    """The threads that push for this process, made on first use and anew after a fork.

    While Temporal is away, work is put off and tried again together; what a process takes with it when it ends, and
    what is too much to keep, is found by the sweep.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process_id = 0
        self._executor: ThreadPoolExecutor | None = None
        self._unavailable_until = 0.0
        self._put_off: list[Callable[[], PushOutcome]] = []
        self.futures: set[Future[PushOutcome]] = set()

    def do_soon(self, work: Callable[[], PushOutcome]) -> None:
        """Do the work in the background. Waits for nothing, never raises."""
        with self._lock:
            if self._process_id != os.getpid():
                self._executor = ThreadPoolExecutor(PUSH_THREADS, thread_name_prefix="push")
                self.futures, self._put_off, self._process_id = set(), [], os.getpid()
            if len(self.futures) + len(self._put_off) >= MAX_WAITING:
                return
            work = partial(contextvars.copy_context().run, work)
            if time.monotonic() < self._unavailable_until:
                self._put_off_until_it_answers(work)
                return
            assert self._executor is not None
            future = self._executor.submit(self._do, work)
            self.futures.add(future)
        future.add_done_callback(self.futures.discard)

    def _do(self, work: Callable[[], PushOutcome]) -> PushOutcome:
        _callers.wait_for_a_pause(patience_seconds=CALLERS_FIRST_SECONDS)
        if time.monotonic() < self._unavailable_until:
            outcome = PushOutcome.UNAVAILABLE
        else:
            try:
                outcome = isolated(work)
            finally:
                connection.close()
            if outcome is PushOutcome.UNAVAILABLE:
                self._unavailable_until = time.monotonic() + OUTAGE_MEMORY_SECONDS
        if outcome is PushOutcome.UNAVAILABLE:
            with self._lock:
                self._put_off_until_it_answers(work)
        return outcome

    def _put_off_until_it_answers(self, work: Callable[[], PushOutcome]) -> None:
        """Keep it for later; the first that is kept sets the clock. Call it with the lock held."""
        self._put_off.append(work)
        if len(self._put_off) == 1:
            # Not all processes at the same moment. A timer that is a daemon keeps no process from ending.
            delay = max(0.0, self._unavailable_until - time.monotonic()) + random.uniform(0, OUTAGE_JITTER_SECONDS)  # noqa: S311
            timer = threading.Timer(delay, self._try_again)
            timer.daemon = True
            timer.start()

    def _try_again(self) -> None:
        with self._lock:
            works, self._put_off = self._put_off, []
        for work in works:
            self.do_soon(work)


_callers = _Callers()
_background = _Background()


def _cancel(tenant_id: UUID, run_id: UUID) -> PushOutcome:
    run = ScheduleRun.objects.filter(tenant_id=tenant_id, id=run_id, status=RunStatus.RUNNING).defer("payload").first()
    if run is None or not run.workflow_id:
        return PushOutcome.NOTHING
    try:
        temporal.cancel_workflow(workflow_id=run.workflow_id, run_id=None)
    except SchedulingError as error:
        log.warning("run.not_cancelled", run_id=str(run_id), code=error.code, reason=error.message)
        return PushOutcome.UNAVAILABLE if error.retryable else PushOutcome.REFUSED
    return PushOutcome.NOTHING


def _start_queued(tenant_id: UUID, run_id: UUID) -> PushOutcome:
    run = ScheduleRun.objects.filter(tenant_id=tenant_id, id=run_id, status=RunStatus.QUEUED).first()
    return PushOutcome.NOTHING if run is None else start(run)
