"""Makes mirrors equal to rows. The row is the truth; a mirror is its projection.

A push is level-triggered: it reads the current row under a lock of its own, so it does not matter how many pushes
were asked for, in which order they run, or how many of them a crash took away. What is left is found by
`schedules.sweep`. Starts and cancellations of runs go the same way: the row says what is wanted, the call to Temporal
follows the commit, and the sweep repeats what got lost.
"""

from __future__ import annotations

import contextlib
import functools
import random
import time
import zlib
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final
from uuid import UUID

import structlog
from django.conf import settings
from django.db import DatabaseError, InterfaceError, connection
from django.db.models import F
from django.db.models.functions import Coalesce, Now

from schedules import background, calendars, cron, inspection, ledger, temporal
from schedules.background import PushOutcome
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

# A push that failed for a reason that will stay is tried again after this long, then twice as long, and so on.
BACKOFF_SECONDS: Final = 60.0
LONGEST_BACKOFF_SECONDS: Final = 3600.0
# How long a push waits for another one of the same mirror; as long as a call to Temporal may take.
LOCK_PATIENCE_SECONDS: Final = 3.0
LOCK_POLL_SECONDS: Final = 0.05
# Mirrors are renewed while their calendars are still exact for this long: clock changes of the next 18 months are
# always written out.
RENEWAL_NOTICE: Final = timedelta(days=19 * 31)


def push(
    *,
    tenant_id: UUID,
    schedule_id: UUID,
    patience_seconds: float = LOCK_PATIENCE_SECONDS,
    again: bool = False,
    is_missing: bool = False,
) -> PushOutcome:
    """Make one mirror equal to its row now, or remove it where the row is gone. Never raises for an outage.

    Must not run inside a transaction: Temporal is called while no row is locked. BUSY means that somebody else was
    pushing the same mirror for longer than ``patience_seconds``. With ``again`` it is written although the row believes
    it to be in order; ``is_missing`` saves a call where it was just seen not to be there. A push that fails for a
    reason that will stay is left alone for a while, longer each time.
    """
    with _push_lock(schedule_id, patience_seconds=patience_seconds) as is_ours:
        if not is_ours:
            return PushOutcome.BUSY
        loaded = _load(tenant_id=tenant_id, schedule_id=schedule_id)
        row = None if loaded is None else loaded[0]
        try:
            if loaded is None:
                return _remove(tenant_id=tenant_id, schedule_id=schedule_id)
            return _project(*loaded, again=again, is_missing=is_missing)
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


def request_push(*, tenant_id: UUID, schedule_id: UUID) -> None:
    """Push soon, in the background. Call it after the commit. Waits for nothing, never raises."""
    background.do_soon(
        partial(push, tenant_id=tenant_id, schedule_id=schedule_id), key=("push", schedule_id), patient=True
    )


def request_pushes(*, pushes: Iterable[tuple[UUID, UUID]]) -> None:
    """Push several mirrors, given as (tenant id, schedule id), in the background. Waits for none, never raises."""
    for tenant_id, schedule_id in pushes:
        request_push(tenant_id=tenant_id, schedule_id=schedule_id)


def request_start(*, tenant_id: UUID, run_id: UUID) -> None:
    """Start a queued run's workflow soon, in the background. Waits for nothing, never raises."""
    background.do_soon(partial(_start_queued, tenant_id, run_id), key=("start", run_id))


def request_starts(*, tenant_id: UUID, run_ids: Iterable[UUID]) -> None:
    """Start the workflows of several queued runs soon, in the background. Waits for none, never raises."""
    for run_id in run_ids:
        request_start(tenant_id=tenant_id, run_id=run_id)


def request_cancel(*, tenant_id: UUID, run_id: UUID) -> None:
    """Ask the workflow of a run whose row wants cancellation to stop, in the background. Never raises."""
    background.do_soon(partial(_cancel, tenant_id, run_id), key=("cancel", run_id))


def request_workflow_cancels(*, workflow_ids: Iterable[str]) -> None:
    """Ask workflows to stop whose runs may be gone by then, in the background. Never raises."""
    for workflow_id in workflow_ids:
        background.do_soon(partial(_cancel_workflow, workflow_id), key=("cancel", workflow_id))


def start_next(*, tenant_id: UUID, schedule_id: UUID) -> None:
    """Start the run that is next in the schedule's line, if there is one, in the background. Never raises.

    Call it after the commit of what ended the run before.
    """
    run = ledger.next_in_line(tenant_id=tenant_id, schedule_id=schedule_id)
    if run is not None:
        background.do_soon(partial(_start_queued, tenant_id, run.id), key=("start", run.id))


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


def _load(*, tenant_id: UUID, schedule_id: UUID) -> tuple[Schedule, datetime] | None:
    """The row with its install, and the database's time when it was read."""
    rows = Schedule.objects.select_related("install").defer("payload", "install__config", "install__secret_envelope")
    try:
        row = rows.annotate(read_at=Now()).get(tenant_id=tenant_id, id=schedule_id)
    except Schedule.DoesNotExist:
        return None
    return row, row.read_at


def _project(row: Schedule, now: datetime, *, again: bool, is_missing: bool) -> PushOutcome:
    is_exact = row.exact_until is not None and row.exact_until >= now + RENEWAL_NOTICE
    if row.synced_generation == row.generation and is_exact and row.calendar_rules == mirror_rules() and not again:
        return PushOutcome.NOTHING
    compiled = calendars.compile_calendars(cron.parse(row.cron), cron.parse_zone(row.timezone), now=now)
    state = mirror_state(row, compiled=compiled)
    # A renewal makes no mirror: where many are missing, the comparison asks whether this is the right place.
    is_renewal = row.synced_generation == row.generation and not again
    try:
        exists = row.synced_generation > 0 and not is_missing
        held = temporal.put_mirror(state, exists=exists, may_create=not is_renewal)
    except temporal.MirrorMissing:
        log.warning("mirror.missing", schedule_id=str(row.id))
        return PushOutcome.NOTHING
    stamp = {
        "synced_generation": state.generation,
        "exact_until": compiled.exact_until,
        "calendar_rules": mirror_rules(),
        "mirror_digest": inspection.digest_of(temporal.build_schedule(state)),
    }
    same = Schedule.objects.filter(tenant_id=row.tenant_id, id=row.id, synced_generation__lte=state.generation)
    done = {"sync_error": "", "push_failures": 0, "push_after": None, "release_hold": False}
    if not same.filter(generation=state.generation).update(**stamp, **done):
        # Stamped with the generation that was read: a change that committed meanwhile stays visibly unsynced, and
        # what belongs to that one is left to it.
        same.update(**stamp)
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


def _cancel(tenant_id: UUID, run_id: UUID) -> PushOutcome:
    run = ScheduleRun.objects.filter(tenant_id=tenant_id, id=run_id, status=RunStatus.RUNNING).defer("payload").first()
    if run is None or not run.workflow_id:
        return PushOutcome.NOTHING
    return _cancel_workflow(run.workflow_id)


def _cancel_workflow(workflow_id: str) -> PushOutcome:
    try:
        temporal.cancel_workflow(workflow_id=workflow_id, run_id=None)
    except SchedulingError as error:
        log.warning("run.not_cancelled", workflow_id=workflow_id, code=error.code, reason=error.message)
        return PushOutcome.UNAVAILABLE if error.retryable else PushOutcome.REFUSED
    return PushOutcome.NOTHING


def _start_queued(tenant_id: UUID, run_id: UUID) -> PushOutcome:
    run = ScheduleRun.objects.filter(tenant_id=tenant_id, id=run_id, status=RunStatus.QUEUED).first()
    return PushOutcome.NOTHING if run is None else start(run)
