"""Carries an install's schedules over to another version's endpoints: plan (pure) and apply."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from django.db.models.functions import Now

from schedules.errors import RemapFailed
from schedules.models import ApiEndpoint, ExtensionInstall, ExtensionVersion, Schedule


@dataclass(frozen=True, slots=True)
class ScheduledEndpoint:
    """What the plan needs to know of one schedule."""

    schedule_id: UUID
    method: str
    path: str


@dataclass(frozen=True, slots=True)
class RemapPlan:
    """Where each schedule goes. ``missing`` ones have no schedulable endpoint in the target version."""

    targets: dict[UUID, UUID]
    missing: tuple[ScheduledEndpoint, ...]


def plan_remap(*, schedules: Iterable[ScheduledEndpoint], endpoints: Iterable[ApiEndpoint]) -> RemapPlan:
    """Match each schedule's (method, path) with the schedulable endpoints of the target version. Pure."""
    available = {(endpoint.method, endpoint.path): endpoint.id for endpoint in endpoints if endpoint.schedulable}
    targets: dict[UUID, UUID] = {}
    missing: list[ScheduledEndpoint] = []
    for schedule in schedules:
        target = available.get((schedule.method, schedule.path))
        if target is None:
            missing.append(schedule)
        else:
            targets[schedule.schedule_id] = target
    return RemapPlan(targets, tuple(missing))


def apply_version(*, install: ExtensionInstall, version: ExtensionVersion) -> None:
    """Point the install and all its schedules at ``version``.

    The caller holds the install's row lock inside a transaction, so schedules created meanwhile come after. Raises
    RemapFailed and changes nothing where a schedule's endpoint is missing. Needs no call to Temporal: mirrors carry
    ids only.
    """
    rows = (
        Schedule.objects.filter(tenant_id=install.tenant_id, install=install)
        .order_by("id")
        .select_for_update(no_key=True)
    )
    plan = plan_remap(
        schedules=[ScheduledEndpoint(row.id, row.endpoint_method, row.endpoint_path) for row in rows],
        endpoints=ApiEndpoint.objects.filter(version=version),
    )
    if plan.missing:
        missing = [
            {
                "scheduleId": str(item.schedule_id),
                "method": item.method,
                "path": item.path,
            }
            for item in plan.missing
        ]
        raise RemapFailed(
            f"Version {version.version} lacks the endpoint of {len(missing)} schedule(s)",
            data={"missing": missing},
        )
    moved: list[Schedule] = []
    for row in rows:
        row.endpoint_id = plan.targets[row.id]
        row.updated_at = Now()
        moved.append(row)
    Schedule.objects.bulk_update(moved, ["endpoint", "updated_at"])
    install.version = version
    install.save(update_fields=["version", "updated_at"])
