"""What follows from the end of a run: who is told, and whether its schedule goes on.

Drawn in the transaction that ends the run where anything may follow, so that a crash loses neither.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final
from uuid import UUID

from django.db import transaction

from schedules import audit, cron, ledger, metrics, notifications, policies, services
from schedules.models import ExtensionInstall, NotificationEvent, RunStatus, Schedule
from schedules.payloads import moment_text

ACTOR: Final = audit.Actor(audit.Source.SYSTEM, "scheduler")
FAILED_STATUSES: Final = frozenset({RunStatus.FAILED, RunStatus.TIMED_OUT})
DANGLING_REASON: Final = "its endpoint does not exist in the installed version"


def may_follow(*, status: str, failures_before: int) -> bool:
    """Whether anything can follow from a run that ends so; such an end belongs into `ending`."""
    return status in FAILED_STATUSES or (status == RunStatus.SUCCEEDED and failures_before > 0)


@contextmanager
def ending(*, tenant_id: UUID, install_id: UUID | None) -> Iterator[None]:
    """The transaction to end a run in and to draw the consequences.

    Takes the install's lock first, as every writer of schedules does: what ends the run locks the schedule's row, and
    who pauses the schedule needs both.
    """
    with transaction.atomic():
        if install_id is not None:
            list(ExtensionInstall.objects.select_for_update().filter(tenant_id=tenant_id, id=install_id).values("id"))
        yield


def draw(ended: ledger.Ended) -> None:
    """Tell of a first failure or of a recovery, and disable a schedule that has failed too often in a row.

    Call it within `ending`, for a run that has ended just now.
    """
    if ended.failures is None:
        return
    schedule = Schedule.objects.filter(tenant_id=ended.tenant_id, id=ended.schedule_id).first()
    if schedule is None:
        return
    if ended.status == RunStatus.SUCCEEDED and ended.failures_before:
        facts = _facts(ended) | {"failed_runs_before": ended.failures_before}
        notifications.announce(event=NotificationEvent.RECOVERY, schedule=schedule, facts=facts)
    if ended.status not in FAILED_STATUSES:
        return
    if ended.failures == 1:
        notifications.announce(event=NotificationEvent.FAILURE, schedule=schedule, facts=_facts(ended))
    threshold = policies.pause_threshold(schedule.pause_after_failures, cron.parse(schedule.cron))
    if schedule.enabled and threshold and ended.failures >= threshold:
        runs = f"{ended.failures} runs in a row" if ended.failures > 1 else "a run"
        pause(schedule, reason=f"paused after {runs} failed", facts=_facts(ended))


def pause_dangling(*, tenant_id: UUID, install_id: UUID, schedule_id: UUID) -> None:
    """Disable a schedule whose endpoint the installed version does not have. A repeat changes nothing."""
    with ending(tenant_id=tenant_id, install_id=install_id):
        schedule = Schedule.objects.filter(tenant_id=tenant_id, id=schedule_id).select_related("install").first()
        if schedule is None or not schedule.enabled or not services.is_dangling(schedule):
            return
        pause(schedule, reason=DANGLING_REASON, facts={})


def pause(schedule: Schedule, *, reason: str, facts: dict[str, Any]) -> None:
    """Disable a schedule on the platform's own account, with the reason, an audit row and a message."""
    paused = services.pause_schedule(
        tenant_id=schedule.tenant_id,
        install_id=schedule.install_id,
        schedule_id=schedule.id,
        reason=reason,
        actor=ACTOR,
    )
    if paused is not None:
        metrics.AUTO_PAUSES.inc()
        notifications.announce(event=NotificationEvent.AUTO_PAUSE, schedule=paused, facts={"reason": reason, **facts})


def _facts(ended: ledger.Ended) -> dict[str, Any]:
    return {
        "run_id": str(ended.run_id),
        "slot": moment_text(ended.slot),
        "status": ended.status,
        "reason": ended.reason,
        "error": ended.error,
        "failed_runs_in_a_row": ended.failures,
    }
