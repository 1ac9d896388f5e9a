"""Every write of schedules: create, update, enable, disable, delete.

A write locks the install's row, checks every rule, writes row, audit and generation in one transaction, and asks
convergence to push the mirror once that has committed. It succeeds whether or not Temporal answers.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from typing import Any, Final, cast
from uuid import UUID

from django.conf import settings
from django.db import IntegrityError, connection, transaction
from django.db.models import F
from django.db.models.functions import Now

from schedules import audit, convergence, ledger, payloads, policies, queries
from schedules.changes import ScheduleChanges, apply_changes
from schedules.errors import (
    InstallDisabled,
    NameInUse,
    NotFound,
    StaleRevision,
    TooManySchedules,
)
from schedules.models import (
    ApiEndpoint,
    ExtensionInstall,
    MirrorRemoval,
    Schedule,
)

MAX_REASON_LENGTH: Final = 256
_NAME_CONSTRAINT: Final = "a_schedule_name_is_unique_per_install"


def create_schedule(
    *,
    tenant_id: UUID,
    install_id: UUID,
    changes: ScheduleChanges,
    actor: audit.Actor,
) -> Schedule:
    """Create a schedule and ask for its mirror.

    Raises InvalidFields with every member that is wrong, TooManySchedules, NameInUse, InstallDisabled, NotFound. A
    repeat creates another schedule, unless the name is given: then it is refused.
    """
    with _translated_constraints(), transaction.atomic():
        install = lock_install(tenant_id=tenant_id, install_id=install_id)
        if not install.is_enabled:
            raise InstallDisabled("The extension is disabled, enable it before creating schedules")
        schedule = Schedule(tenant_id=tenant_id, install=install)
        complete = cast("ScheduleChanges", {"timezone": None, "enabled": True, **changes})
        apply_changes(schedule, complete, install=install)
        # Counted under the install's lock, so that concurrent creates cannot both take the last place.
        count, now = _count_schedules(install)
        if count >= _schedule_limit():
            raise TooManySchedules(f"Too many schedules: an install may have {_schedule_limit()}")
        _refuse_taken_name(schedule)
        ledger.open_account(schedule, now=now)
        schedule.created_at = schedule.updated_at = schedule.changed_at = now
        schedule.save(force_insert=True)
        audit.record(actor, "schedule.created", schedule, after=describe_schedule(schedule))
        _push_on_commit(schedule)
    return schedule


def update_schedule(
    *,
    tenant_id: UUID,
    install_id: UUID,
    schedule_id: UUID,
    changes: ScheduleChanges,
    actor: audit.Actor,
    expected_revisions: Collection[int] | None = None,
) -> Schedule:
    """Change the given members of a schedule and ask for its mirror.

    Raises what `create_schedule` does, and StaleRevision where ``expected_revisions`` is given and the
    current one is not among them. Changes that make no difference write nothing, so a repeat is free.
    """
    with _translated_constraints(), transaction.atomic():
        install = lock_install(tenant_id=tenant_id, install_id=install_id)
        schedule = _lock_schedule(install, schedule_id)
        _refuse_stale(schedule, expected_revisions)
        former, before, was_enabled = copy.copy(schedule), describe_schedule(schedule), schedule.enabled
        apply_changes(schedule, changes, install=install)
        if changes.get("enabled") is False and schedule.disabled_at_revision is not None:
            # A person wants it disabled now, and not only an upgrade.
            schedule.disabled_at_revision, schedule.disabled_reason = None, ""
        if schedule.enabled and not was_enabled and not install.is_enabled:
            raise InstallDisabled("The extension is disabled, enable it before enabling schedules")
        after = describe_schedule(schedule)
        if after == before:
            return schedule
        _refuse_taken_name(schedule)
        schedule.revision += 1
        if any(after[member] != before[member] for member in _MIRRORED_MEMBERS):
            touch_mirror(schedule)
            now = ledger.database_now()
            _settle(former, install=install, until=now)
            ledger.open_account(schedule, now=now)
        if schedule.enabled and not was_enabled:
            schedule.consecutive_failures = 0
        schedule.updated_at = Now()
        # last_run_* and synced_generation belong to other writers that do not take this lock.
        schedule.save(update_fields=_WRITTEN_FIELDS)
        schedule.refresh_from_db()
        audit.record(actor, "schedule.updated", schedule, before=before, after=after)
        _push_on_commit(schedule)
    return schedule


def pause_schedule(
    *, tenant_id: UUID, install_id: UUID, schedule_id: UUID, reason: str, actor: audit.Actor
) -> Schedule | None:
    """Disable a schedule on the platform's own account, with the reason on the row; asks for its mirror.

    Returns None where there is nothing to disable, e.g. on a repeat.
    """
    with transaction.atomic():
        install = lock_install(tenant_id=tenant_id, install_id=install_id)
        schedule = _lock_schedule(install, schedule_id)
        if not schedule.enabled:
            return None
        before = describe_schedule(schedule)
        now = ledger.database_now()
        _settle(schedule, install=install, until=now)
        ledger.open_account(schedule, now=now)
        schedule.enabled, schedule.disabled_reason = False, reason[:MAX_REASON_LENGTH]
        schedule.revision += 1
        touch_mirror(schedule)
        schedule.updated_at = Now()
        schedule.save(update_fields=_WRITTEN_FIELDS)
        schedule.refresh_from_db()
        audit.record(actor, "schedule.paused", schedule, before=before, after=describe_schedule(schedule))
        _push_on_commit(schedule)
    return schedule


def is_dangling(schedule: Schedule) -> bool:
    """Whether the installed version lacks the schedule's endpoint. The row needs its install."""
    if schedule.endpoint_id is None:
        return True
    endpoints = ApiEndpoint.objects.filter(id=schedule.endpoint_id, version_id=schedule.install.version_id)
    return not endpoints.exists()


def settle_install(install: ExtensionInstall) -> None:
    """Account for the slots that an install's schedules owe up to now, and owe nothing before from here on.

    Call it with the install's row locked, before what is about to change changes.
    """
    rows = Schedule.objects.select_for_update(no_key=True).filter(tenant_id=install.tenant_id, install=install)
    schedules = list(rows.filter(enabled=True).defer("payload").order_by("id"))
    now = ledger.database_now()
    if install.is_enabled:
        ledger.settle_completely(schedules, until=now)
    else:
        ledger.reopen_accounts(schedules, now=now)


def _settle(schedule: Schedule, *, install: ExtensionInstall, until: datetime) -> None:
    """Give the slots that were due until this change, by the rules before it, their runs."""
    if schedule.enabled and install.is_enabled:
        ledger.settle_completely([schedule], until=until)


def touch_mirror(schedule: Schedule) -> None:
    """Count a change that the mirror must show. Sets the row's members; saving them is the caller's."""
    schedule.generation += 1
    schedule.changed_at = Now()
    schedule.sync_error = ""
    schedule.push_failures, schedule.push_after = 0, None


def check_schedule(
    *,
    tenant_id: UUID,
    install_id: UUID,
    schedule_id: UUID | None,
    changes: ScheduleChanges,
    expected_revisions: Collection[int] | None = None,
) -> None:
    """Raise what a create (without ``schedule_id``) or an update would raise, and write nothing."""
    common: dict[str, Any] = {
        "tenant_id": tenant_id,
        "install_id": install_id,
        "changes": changes,
        "actor": audit.Actor(audit.Source.SYSTEM, "check"),
    }
    with transaction.atomic():
        if schedule_id is None:
            create_schedule(**common)
        else:
            update_schedule(schedule_id=schedule_id, expected_revisions=expected_revisions, **common)
        # Takes the rows and the request for a push back together.
        transaction.set_rollback(True)


def set_enabled(
    *,
    tenant_id: UUID,
    install_id: UUID,
    schedule_id: UUID,
    enabled: bool,
    actor: audit.Actor,
) -> Schedule:
    """Enable or disable a schedule; a repeat changes nothing."""
    return update_schedule(
        tenant_id=tenant_id,
        install_id=install_id,
        schedule_id=schedule_id,
        changes={"enabled": enabled},
        actor=actor,
    )


def lift_hold(*, tenant_id: UUID, install_id: UUID, schedule_id: UUID, actor: audit.Actor) -> Schedule:
    """Lift the pause that an operator set in Temporal; a repeat, or where there is none, changes nothing.

    Raises NotFound.
    """
    with transaction.atomic():
        install = lock_install(tenant_id=tenant_id, install_id=install_id)
        schedule = _lock_schedule(install, schedule_id)
        if schedule.held_since is None:
            return schedule
        before = {"held_since": payloads.moment_text(schedule.held_since), "note": schedule.held_note}
        touch_mirror(schedule)
        # The note stays until the push: a hold with another one has come since, and is not lifted.
        schedule.release_hold, schedule.held_since = True, None
        schedule.save(update_fields=[*_MIRROR_FIELDS, "release_hold", "held_since"])
        schedule.refresh_from_db()
        audit.record(actor, "schedule.hold_lifted", schedule, before=before)
        _push_on_commit(schedule)
    return schedule


def disable_all(*, tenant_id: UUID, install_id: UUID, actor: audit.Actor) -> list[Schedule]:
    """Disable every enabled schedule of an install, all of them or none; returns those. A repeat changes nothing."""
    with transaction.atomic():
        install = lock_install(tenant_id=tenant_id, install_id=install_id)
        rows = Schedule.objects.select_for_update(no_key=True).filter(tenant_id=tenant_id, install=install)
        # What an upgrade has disabled is disabled by a person from now on, and no way back enables it.
        rows.filter(enabled=False).exclude(disabled_at_revision=None).update(
            disabled_at_revision=None, disabled_reason="", revision=F("revision") + 1
        )
        schedules = list(rows.filter(enabled=True).order_by("id"))
        befores = [describe_schedule(schedule) for schedule in schedules]
        now = ledger.database_now()
        if install.is_enabled:
            ledger.settle_completely(schedules, until=now)
        for schedule in schedules:
            ledger.open_account(schedule, now=now)
            touch_mirror(schedule)
            schedule.enabled, schedule.updated_at, schedule.changed_at = False, now, now
            schedule.revision += 1
        Schedule.objects.bulk_update(schedules, _WRITTEN_FIELDS)
        audit.record_all(
            actor,
            "schedule.updated",
            [
                (schedule, before, describe_schedule(schedule))
                for schedule, before in zip(schedules, befores, strict=True)
            ],
        )
        pushes = [(schedule.tenant_id, schedule.id) for schedule in schedules]
        transaction.on_commit(partial(convergence.request_pushes, pushes=pushes))
    return schedules


def delete_schedule(
    *,
    tenant_id: UUID,
    install_id: UUID,
    schedule_id: UUID,
    actor: audit.Actor,
    expected_revisions: Collection[int] | None = None,
) -> None:
    """Delete a schedule; its runs stay until their retention ends.

    Raises NotFound, also on a repeat, and StaleRevision.
    """
    with transaction.atomic():
        install = lock_install(tenant_id=tenant_id, install_id=install_id)
        schedule = _lock_schedule(install, schedule_id, for_deletion=True)
        _refuse_stale(schedule, expected_revisions)
        audit.record(actor, "schedule.deleted", schedule, before=describe_schedule(schedule))
        _settle(schedule, install=install, until=ledger.database_now())
        remove_rows([schedule])


def lock_for_deletion(*, tenant_id: UUID, install_id: UUID | None = None) -> None:
    """Lock the schedules of an install, or of all installs of a tenant, before any of their runs is touched.

    Who claims, records or ends a run locks its schedule and then the run; whoever deletes has to go the same way, or
    each waits for the other.
    """
    rows = Schedule.objects.select_for_update().filter(tenant_id=tenant_id)
    if install_id is not None:
        rows = rows.filter(install_id=install_id)
    list(rows.order_by("id").values_list("id"))


def remove_rows(schedules: list[Schedule]) -> None:
    """Delete schedule rows, end the runs that wait in their lines, and ask for the removal of the mirrors.

    A note of each mirror stays until it is gone. Call it inside a transaction that holds the locks of the install's and
    the schedules' rows, see `lock_for_deletion`.
    """
    for tenant_id in {schedule.tenant_id for schedule in schedules}:
        ids = [schedule.id for schedule in schedules if schedule.tenant_id == tenant_id]
        ledger.cancel_waiting(tenant_id=tenant_id, schedule_ids=ids, reason="the schedule was deleted")
    MirrorRemoval.objects.bulk_create(
        MirrorRemoval(id=schedule.id, tenant_id=schedule.tenant_id, install_id=schedule.install_id)
        for schedule in schedules
    )
    Schedule.objects.filter(id__in=[schedule.id for schedule in schedules]).delete()
    pushes = [(schedule.tenant_id, schedule.id) for schedule in schedules]
    transaction.on_commit(partial(convergence.request_pushes, pushes=pushes))


def lock_install(*, tenant_id: UUID, install_id: UUID) -> ExtensionInstall:
    """The install with its row locked until the transaction ends; raises NotFound.

    Everything that counts an install's schedules or reads its version to write by it takes this lock first.
    """
    installs = ExtensionInstall.objects.select_for_update(of=("self",)).select_related("tenant", "extension", "version")
    try:
        return installs.defer("version__manifest").get(tenant_id=tenant_id, id=install_id)
    except ExtensionInstall.DoesNotExist:
        raise NotFound("Extension not found") from None


def describe_schedule(schedule: Schedule) -> dict[str, Any]:
    """What an administrator may change of a schedule, for the audit trail."""
    return {
        "endpoint": f"{schedule.endpoint_method} {schedule.endpoint_path}",
        "endpoint_id": str(schedule.endpoint_id) if schedule.endpoint_id else None,
        "name": schedule.name,
        "cron": schedule.cron,
        "timezone": schedule.timezone,
        "enabled": schedule.enabled,
        "payload": schedule.payload,
        "disabled_reason": schedule.disabled_reason,
        **{member: getattr(schedule, member) for member in sorted(policies.MEMBERS)},
    }


# The mirror shows when and whether; what is called and with which payload is read when a run starts.
_MIRRORED_MEMBERS: Final = ("cron", "timezone", "enabled")
_MIRROR_FIELDS: Final = ("generation", "changed_at", "sync_error", "push_failures", "push_after")
_WRITTEN_FIELDS: Final = (
    "endpoint",
    "endpoint_method",
    "endpoint_path",
    "name",
    "cron",
    "timezone",
    "enabled",
    "disabled_reason",
    "disabled_at_revision",
    "payload",
    *sorted(policies.MEMBERS),
    "consecutive_failures",
    "accounted_until",
    "next_slot_at",
    "revision",
    "updated_at",
    *_MIRROR_FIELDS,
)


def _schedule_limit() -> int:
    return int(settings.SCHEDULER_MAX_PER_INSTALL)


def _count_schedules(install: ExtensionInstall) -> tuple[int, datetime]:
    """How many the install has, and the database's time: both in one statement that is not composed for each call."""
    with connection.cursor() as cursor:
        cursor.execute(_COUNT_SCHEDULES, [install.tenant_id, install.id])
        count, now = cursor.fetchone()
    return count, now


_COUNT_SCHEDULES: Final = """
SELECT count(*), clock_timestamp() FROM schedules_schedule WHERE tenant_id = %s AND install_id = %s
"""


def _lock_schedule(install: ExtensionInstall, schedule_id: UUID, *, for_deletion: bool = False) -> Schedule:
    # A claim goes on beside a change, with what was before it; only a deletion makes it wait.
    schedules = Schedule.objects.select_for_update(no_key=not for_deletion)
    try:
        return schedules.get(tenant_id=install.tenant_id, install_id=install.id, id=schedule_id)
    except Schedule.DoesNotExist:
        raise NotFound("Schedule not found") from None


def _refuse_stale(schedule: Schedule, expected_revisions: Collection[int] | None) -> None:
    if expected_revisions is not None and schedule.revision not in expected_revisions:
        raise StaleRevision(
            "Somebody else changed the schedule meanwhile",
            data={"revision": schedule.revision},
        )


def _refuse_taken_name(schedule: Schedule) -> None:
    if schedule.name is None:
        return
    others = queries.schedules_of(tenant_id=schedule.tenant_id, install_id=schedule.install_id)
    if others.filter(name=schedule.name).exclude(id=schedule.id).exists():
        raise _name_in_use()


def _name_in_use() -> NameInUse:
    return NameInUse("Schedule name already in use", fields={"name": "Schedule name already in use"})


@contextmanager
def _translated_constraints() -> Iterator[None]:
    """Turns a violated constraint into the refusal that it stands for, outside the atomic block."""
    try:
        yield
    except IntegrityError as error:
        if _NAME_CONSTRAINT in str(error):
            raise _name_in_use() from error
        raise


def _push_on_commit(schedule: Schedule) -> None:
    transaction.on_commit(partial(convergence.request_push, tenant_id=schedule.tenant_id, schedule_id=schedule.id))
