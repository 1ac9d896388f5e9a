"""What people ask of runs: run now, cancel, replay, backfill."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final
from uuid import UUID, uuid4

from django.conf import settings
from django.db import transaction
from django.db.models.functions import Now

from schedules import (
    audit,
    convergence,
    cron,
    idempotency,
    kill_switches,
    ledger,
    limits,
    metrics,
    payloads,
    queries,
    services,
)
from schedules.errors import Conflict, InstallDisabled, InvalidFields, NotFound
from schedules.models import UNFINISHED_STATUSES, ExtensionInstall, RunStatus, Schedule, ScheduleRun, Trigger
from workflows import names

MAX_BACKFILL: Final = 500
EARLIEST_SLOT: Final = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class BackfillPlan:
    """The slots that a backfill would run, oldest first, and which of them have run before."""

    slots: tuple[datetime, ...]
    already_run: int


def request_run_now(
    *,
    tenant_id: UUID,
    install_id: UUID,
    schedule_id: UUID,
    actor: audit.Actor,
    idempotency_key: str | None = None,
    payload_override: Any = None,
) -> ScheduleRun:
    """Ask for a run of the schedule now; returns the queued run.

    The same ``idempotency_key`` gives the same run back, whatever became of it; with another payload it is a Conflict.
    Allowed on a disabled schedule, refused on a disabled install or without an endpoint. Raises NotFound,
    InstallDisabled, Conflict, InvalidFields, RateLimited.
    """
    if problem := payloads.problem_with_payload(payload_override):
        raise InvalidFields.from_fields({"payload": problem})
    run_id = names.request_invocation_id(schedule_id=schedule_id, request_key=idempotency_key or str(uuid4()))
    with transaction.atomic():
        install = services.lock_install(tenant_id=tenant_id, install_id=install_id)
        schedule = queries.find_schedule(tenant_id=tenant_id, install_id=install_id, schedule_id=schedule_id)
        existing = ScheduleRun.objects.filter(tenant_id=tenant_id, id=run_id).first()
        if existing is not None:
            _refuse_other_payload(existing, payload_override)
            return existing
        _refuse_unrunnable(install, schedule)
        limits.count_call(tenant_id=tenant_id, subject="run_now", limit=settings.SCHEDULER_RUN_NOW_PER_MINUTE)
        run = ScheduleRun.objects.create(
            id=run_id,
            tenant_id=tenant_id,
            install_id=install_id,
            schedule_id=schedule_id,
            trigger=Trigger.RUN_NOW,
            slot=Now(),
            status=RunStatus.QUEUED,
            payload=payload_override,
            payload_given=payload_override is not None,
            actor=actor.name[: audit.MAX_ACTOR_LENGTH],
        )
        facts = {"run_id": str(run_id), "payload_override": payload_override is not None}
        audit.record(actor, "run.requested", schedule, after=facts)
        transaction.on_commit(partial(convergence.request_start, tenant_id=tenant_id, run_id=run_id))
    metrics.RUNS_REQUESTED.labels(trigger=run.trigger).inc()
    run.refresh_from_db()
    return run


def cancel_run(*, tenant_id: UUID, install_id: UUID, run_id: UUID, actor: audit.Actor) -> ScheduleRun:
    """Stop a run; returns it as it is then.

    One that waits ends at once. One that is in flight is asked to: its call is aborted within seconds, and its row then
    says cancelled. A repeat changes nothing. Raises NotFound, and Conflict for a run that has ended otherwise.
    """
    reason = f"cancelled by {actor.name}"[: ledger.MAX_REASON_LENGTH]
    with transaction.atomic():
        run = _lock_run(tenant_id=tenant_id, install_id=install_id, run_id=run_id)
        if run.status == RunStatus.CANCELLED or (run.status == RunStatus.RUNNING and run.cancel_requested_at):
            return run
        if run.status not in UNFINISHED_STATUSES:
            raise Conflict(f"The run has ended already: {run.get_status_display().lower()}")
        if run.status == RunStatus.QUEUED:
            ledger.close_run(tenant_id=tenant_id, run_id=run_id, status=RunStatus.CANCELLED, reason=reason)
            start_next = partial(convergence.start_next, tenant_id=tenant_id, schedule_id=run.schedule_id)
            transaction.on_commit(start_next)
        else:
            run.cancel_requested_at, run.cancel_reason = Now(), reason
            run.save(update_fields=["cancel_requested_at", "cancel_reason"])
            transaction.on_commit(partial(convergence.request_cancel, tenant_id=tenant_id, run_id=run_id))
        audit.record(
            actor,
            "run.cancelled",
            Schedule(id=run.schedule_id, tenant_id=tenant_id),  # its row may be gone already
            before={"run_id": str(run_id), "status": run.status},
        )
    return queries.find_run(tenant_id=tenant_id, install_id=install_id, run_id=run_id)


def replay_run(
    *, tenant_id: UUID, install_id: UUID, run_id: UUID, actor: audit.Actor, idempotency_key: str | None = None
) -> ScheduleRun:
    """Run a past run again, with the payload that it had; returns the new run, which names the old one.

    Endpoint, version and configuration are today's. A run that never started has no payload of its own, so the
    schedule's is taken. The same ``idempotency_key`` gives the same run back. Counts as a run-now. Raises NotFound,
    Conflict, InstallDisabled, RateLimited.
    """
    with transaction.atomic():
        install = services.lock_install(tenant_id=tenant_id, install_id=install_id)
        past = queries.find_run(tenant_id=tenant_id, install_id=install_id, run_id=run_id)
        # No header can hold this character, so no key of a run-now names a replay.
        request_key = f"replay\x1f{run_id}\x1f{idempotency_key or uuid4()}"
        new_id = names.request_invocation_id(schedule_id=past.schedule_id, request_key=request_key)
        existing = ScheduleRun.objects.filter(tenant_id=tenant_id, id=new_id).first()
        if existing is not None:
            return existing
        if past.status in UNFINISHED_STATUSES:
            raise Conflict("The run has not ended yet")
        try:
            schedule = queries.find_schedule(tenant_id=tenant_id, install_id=install_id, schedule_id=past.schedule_id)
        except NotFound as error:
            raise Conflict("The schedule of this run was deleted") from error
        _refuse_unrunnable(install, schedule)
        limits.count_call(tenant_id=tenant_id, subject="run_now", limit=settings.SCHEDULER_RUN_NOW_PER_MINUTE)
        run = ScheduleRun.objects.create(
            id=new_id,
            tenant_id=tenant_id,
            install_id=install_id,
            schedule_id=past.schedule_id,
            trigger=Trigger.REPLAY,
            slot=Now(),
            status=RunStatus.QUEUED,
            payload=past.payload,
            payload_given=past.payload_given or past.started_at is not None,
            replay_of=past.id,
            actor=actor.name[: audit.MAX_ACTOR_LENGTH],
        )
        audit.record(actor, "run.replayed", schedule, after={"run_id": str(new_id), "replay_of": str(past.id)})
        transaction.on_commit(partial(convergence.request_start, tenant_id=tenant_id, run_id=new_id))
    metrics.RUNS_REQUESTED.labels(trigger=run.trigger).inc()
    run.refresh_from_db()
    return run


def plan_backfill(
    *, tenant_id: UUID, install_id: UUID, schedule_id: UUID, start: datetime, end: datetime
) -> BackfillPlan:
    """What a backfill of ``start <= slot < end`` would run; writes nothing.

    By the schedule's expression and zone as they are now. Raises InvalidFields where the range is empty, reaches into
    the future, or holds more slots than a backfill may have.
    """
    schedule = queries.find_schedule(tenant_id=tenant_id, install_id=install_id, schedule_id=schedule_id)
    slots = _past_slots(schedule, start=start, end=end)
    done = ScheduleRun.objects.filter(
        tenant_id=tenant_id, schedule_id=schedule_id, slot__in=slots, status=RunStatus.SUCCEEDED
    )
    return BackfillPlan(tuple(slots), done.values("slot").distinct().count())


def request_backfill(
    *,
    tenant_id: UUID,
    install_id: UUID,
    schedule_id: UUID,
    start: datetime,
    end: datetime,
    actor: audit.Actor,
    one_at_a_time: bool = True,
) -> Sequence[ScheduleRun]:
    """Run the slots of a past range, oldest first; returns the queued runs.

    One at a time they wait for each other and let slots of today go first; otherwise they start at once, beside
    whatever is in flight. Allowed on a disabled schedule. A repeat runs them once more. Raises NotFound,
    InstallDisabled, InvalidFields, RateLimited; counts as one run-now.
    """
    key = str(uuid4())
    with transaction.atomic():
        install = services.lock_install(tenant_id=tenant_id, install_id=install_id)
        schedule = queries.find_schedule(tenant_id=tenant_id, install_id=install_id, schedule_id=schedule_id)
        slots = _past_slots(schedule, start=start, end=end)
        ids = [names.backfill_invocation_id(schedule_id=schedule_id, request_key=key, slot=slot) for slot in slots]
        _refuse_unrunnable(install, schedule)
        limits.count_call(tenant_id=tenant_id, subject="run_now", limit=settings.SCHEDULER_RUN_NOW_PER_MINUTE)
        ScheduleRun.objects.bulk_create(
            ScheduleRun(
                id=run_id,
                tenant_id=tenant_id,
                install_id=install_id,
                schedule_id=schedule_id,
                trigger=Trigger.BACKFILL,
                slot=slot,
                status=RunStatus.QUEUED,
                exclusive=one_at_a_time,
                actor=actor.name[: audit.MAX_ACTOR_LENGTH],
            )
            for run_id, slot in zip(ids, slots, strict=True)
        )
        facts = {
            "start": payloads.moment_text(start),
            "end": payloads.moment_text(end),
            "runs": len(slots),
            "one_at_a_time": one_at_a_time,
        }
        audit.record(actor, "backfill.requested", schedule, after=facts)
        if one_at_a_time:
            start_next = partial(convergence.start_next, tenant_id=tenant_id, schedule_id=schedule_id)
            transaction.on_commit(start_next)
        else:
            transaction.on_commit(partial(convergence.request_starts, tenant_id=tenant_id, run_ids=ids))
    metrics.RUNS_REQUESTED.labels(trigger=Trigger.BACKFILL).inc(len(ids))
    return list(ScheduleRun.objects.filter(tenant_id=tenant_id, id__in=ids).order_by("slot"))


def _past_slots(schedule: Schedule, *, start: datetime, end: datetime) -> list[datetime]:
    if end > ledger.database_now():
        raise InvalidFields.from_fields({"end": "a backfill ends in the past"})
    if start < EARLIEST_SLOT:
        raise InvalidFields.from_fields({"start": f"it must not lie before {EARLIEST_SLOT:%Y}"})
    if start >= end:
        raise InvalidFields.from_fields({"start": "it must lie before the end"})
    slots: list[datetime] = []
    expression, zone = cron.parse(schedule.cron), cron.parse_zone(schedule.timezone)
    for slot in cron.slots(expression, zone, start=start, end=end):
        slots.append(slot)
        if len(slots) > MAX_BACKFILL:
            problem = f"the range has more than {MAX_BACKFILL} slots, take a shorter one"
            raise InvalidFields.from_fields({"end": problem})
    if not slots:
        raise InvalidFields.from_fields({"start": "the schedule was not due in this range"})
    return slots


def _refuse_unrunnable(install: ExtensionInstall, schedule: Schedule) -> None:
    if not install.is_enabled:
        raise InstallDisabled("The extension is disabled, enable it before running its schedules")
    kill_switches.refuse_stopped(install)
    if schedule.endpoint_id is None:
        raise Conflict("The schedule has no endpoint any more, choose one before running it")


def _refuse_other_payload(existing: ScheduleRun, payload_override: Any) -> None:
    given = existing.payload if existing.payload_given else None
    # Not by ==, for which true is 1.
    if idempotency.digest_of(given) != idempotency.digest_of(payload_override):
        raise Conflict("This Idempotency-Key was used with another payload")


def _lock_run(*, tenant_id: UUID, install_id: UUID, run_id: UUID) -> ScheduleRun:
    run = (
        ScheduleRun.objects.select_for_update()
        .filter(tenant_id=tenant_id, install_id=install_id, id=run_id)
        .defer("payload")
        .first()
    )
    if run is None:
        raise NotFound("Run not found")
    return run
