"""Takes an install to another version: shows the plan, applies it entirely or not at all, and goes back the same way.

What a plan says is made by `schedules.remap`, from rows that are locked here; what it says is then written, so that a
plan and its application cannot differ. Mirrors carry ids only: Temporal hears of an upgrade only where it disables or
enables a schedule.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final
from uuid import UUID

import structlog
from django.db import IntegrityError, OperationalError, connection, transaction
from django.db.models.functions import Now

from schedules import audit, convergence, ledger, queries, remap, services
from schedules.errors import (
    Conflict,
    DependencyUnavailable,
    InvalidFields,
    NotFound,
    RefusedByRule,
    RemapFailed,
    SchedulingError,
)
from schedules.models import ExtensionInstall, ExtensionVersion, Schedule
from schedules.remap import Change, Step

log = structlog.get_logger(__name__)

SCHEDULER_CAPABILITY: Final = "cap:scheduler.manage"
DISABLED_REASON: Final = "version {version} does not offer its endpoint: {reason}"


@dataclass(frozen=True, slots=True)
class Options:
    """How to deal with schedules whose endpoint the target version does not offer.

    ``remap`` says where some are to go, see `remap.read_choices`, and ``ignore_unknown`` that not every install has to
    have what it names; ``disable_missing`` disables the others. With ``plan_token`` nothing is done unless the plan is
    still the one that was shown.
    """

    remap: Mapping[str, str] = field(default_factory=dict)
    ignore_unknown: bool = False
    disable_missing: bool = False
    plan_token: str | None = None


@dataclass(frozen=True, slots=True)
class UpgradePlan:
    """What an upgrade would do, or has done. The install is as it was before."""

    install: ExtensionInstall
    source: ExtensionVersion
    target: ExtensionVersion
    steps: tuple[Step, ...]
    schedules: dict[UUID, Schedule]
    token: str

    @property
    def added_capabilities(self) -> list[str]:
        """What the target version asks for beyond the source."""
        return sorted(set(self.target.capabilities) - set(self.source.capabilities))

    @property
    def removed_capabilities(self) -> list[str]:
        """What the target version does not ask for any more."""
        return sorted(set(self.source.capabilities) - set(self.target.capabilities))

    @property
    def warnings(self) -> list[str]:
        """What somebody who upgrades should know and may not expect."""
        if SCHEDULER_CAPABILITY not in self.removed_capabilities:
            return []
        lost = f"Version {self.target.version} does not ask for {SCHEDULER_CAPABILITY} any more: it will keep no "
        return [f"{lost}schedules of its own, and those that it made stay until somebody deletes them"]

    @property
    def blocking(self) -> list[Step]:
        """The steps that keep the upgrade from being applied."""
        return [step for step in self.steps if step.change is Change.BLOCK]


class PlanChanged(RefusedByRule):
    """What was shown is not what would be done now. ``plan`` is the new one."""

    code = "UPGRADE_PLAN_CHANGED"
    status = 409

    def __init__(self, plan: UpgradePlan) -> None:
        super().__init__("The plan has changed since it was shown, look at the new one")
        self.plan = plan


def preview(*, install: ExtensionInstall, version: str) -> UpgradePlan:
    """What taking another version would do, without choices; changes nothing. Raises NotFound.

    The install needs its version and extension.
    """
    target = ExtensionVersion.objects.defer("manifest").filter(extension_id=install.extension_id, version=version)
    found = target.first()
    if found is None:
        raise NotFound(f"The extension has no version {version}")
    return _plan(install, found, Options(), _schedules_of(install), offered_by(found))


def upgrade(
    *, tenant_id: UUID, install_id: UUID, version: str, options: Options, actor: audit.Actor
) -> tuple[ExtensionInstall, UpgradePlan]:
    """Take an install to another version, forward or back; returns the install and what was done.

    A repeat finds the version installed, does nothing, and returns a plan without steps. Raises NotFound, RemapFailed,
    PlanChanged, InvalidFields.
    """
    if options.disable_missing:
        _settle_what_is_owed(tenant_id=tenant_id, install_id=install_id)
    with transaction.atomic():
        target = lock_version(tenant_id=tenant_id, install_id=install_id, version=version)
        install = services.lock_install(tenant_id=tenant_id, install_id=install_id)
        return install, apply(install=install, target=target, options=options, actor=actor)


def apply(
    *,
    install: ExtensionInstall,
    target: ExtensionVersion,
    options: Options,
    actor: audit.Actor,
    offered: Sequence[remap.Endpoint] | None = None,
) -> UpgradePlan:
    """Point the install and its schedules at the target version; returns what was done.

    Call it inside a transaction that holds the locks of the target version and then of the install, so that whoever
    creates, edits or deletes schedules meanwhile comes before or after. Raises as `upgrade` does, and has then written
    nothing. The number of statements does not depend on the number of schedules, but for what disabled ones still owe.
    """
    if install.version_id == target.id:
        return UpgradePlan(install, target, target, (), {}, "")
    source = install.version
    rows = _schedules_of(install, lock=True, whole=options.disable_missing)
    endpoints = offered_by(target) if offered is None else offered
    if options.plan_token is not None:
        shown = _plan(install, target, Options(), rows, endpoints)
        if shown.token != options.plan_token:
            raise PlanChanged(shown)
    plan = _plan(install, target, options, rows, endpoints)
    if plan.blocking:
        missing = [_describe_missing(step) for step in plan.blocking]
        what = "schedule calls an endpoint" if len(missing) == 1 else "schedules call endpoints"
        raise RemapFailed(
            f"{len(missing)} {what} that version {target.version} does not offer", data={"missing": missing}
        )
    befores = {row.id: _describe_row(row, source) for row in rows.values()}
    _write_states(plan, install=install)
    _write_endpoints(plan)
    install.version = target
    installs = ExtensionInstall.objects.filter(tenant_id=install.tenant_id, id=install.id)
    installs.update(version=target, updated_at=Now())
    _record(plan, befores, options=options, actor=actor)
    pushes = [(install.tenant_id, step.schedule.id) for step in _changed(plan)]
    if pushes:
        transaction.on_commit(partial(convergence.request_pushes, pushes=pushes))
    return plan


def _settle_what_is_owed(*, tenant_id: UUID, install_id: UUID) -> None:
    """Account for the slots that an outage has left, before the upgrade and not while it holds its locks.

    They may be thousands; what is owed by the time of the upgrade is then what the last moment has brought.
    """
    owing = queries.schedules_of(tenant_id=tenant_id, install_id=install_id).filter(
        enabled=True, next_slot_at__lt=Now()
    )
    if not owing.exists():
        return
    with transaction.atomic():
        services.settle_install(services.lock_install(tenant_id=tenant_id, install_id=install_id))


def upgrade_all(
    *,
    extension_id: UUID,
    target: ExtensionVersion,
    source: str | None,
    options: Options,
    actor: audit.Actor,
    dry_run: bool = False,
) -> Iterator[tuple[UUID, UpgradePlan | SchedulingError]]:
    """Take every install of an extension to the target version, one transaction each.

    Yields each install's id with what was done, or why it was left as it was, by a rule or by the database. With
    ``source`` only those that run that version; with ``dry_run`` everything is taken back. A repeat goes on with those
    that are left.
    """
    offered = offered_by(target)
    waiting = ExtensionInstall.objects.filter(extension_id=extension_id).exclude(version=target)
    if source is not None:
        waiting = waiting.filter(version__version=source)
    for tenant_id, install_id in list(waiting.order_by("tenant_id", "id").values_list("tenant_id", "id")):
        try:
            with transaction.atomic():
                if lock_version(tenant_id=tenant_id, install_id=install_id, version=target.version) != target:
                    raise Conflict(f"Version {target.version} was published anew meanwhile")
                install = services.lock_install(tenant_id=tenant_id, install_id=install_id)
                plan = apply(install=install, target=target, options=options, actor=actor, offered=offered)
                if dry_run:
                    # Takes the rows and the requests for pushes back together.
                    transaction.set_rollback(True)
        except RefusedByRule as error:
            yield install_id, error
        except (OperationalError, IntegrityError) as error:
            log.exception("upgrade.not_done", install_id=str(install_id))
            yield install_id, DependencyUnavailable(f"The database did not take it ({type(error).__name__})")
        else:
            yield install_id, plan


def lock_version(*, tenant_id: UUID, install_id: UUID, version: str) -> ExtensionVersion:
    """A version of the install's extension, which is not deleted before the transaction has ended. Raises NotFound.

    Not `select_for_update`: that would let only one install at a time take a version.
    """
    named = {"tenant": tenant_id, "install": install_id, "version": version}
    found = list(ExtensionVersion.objects.raw(_LOCK_VERSION, named))
    if found:
        return found[0]
    if not ExtensionInstall.objects.filter(tenant_id=tenant_id, id=install_id).exists():
        raise NotFound("Extension not found")
    raise NotFound(f"The extension has no version {version}")


def offered_by(version: ExtensionVersion) -> tuple[remap.Endpoint, ...]:
    """The endpoints of a version as a plan needs them."""
    return tuple(
        remap.Endpoint(row.id, row.method, row.path, row.handler, row.unschedulable_reason)
        for row in queries.endpoints_of(version_id=version.id)
    )


def _schedules_of(install: ExtensionInstall, *, lock: bool = False, whole: bool = False) -> dict[UUID, Schedule]:
    rows = queries.schedules_of(tenant_id=install.tenant_id, install_id=install.id).select_related("endpoint")
    if lock:
        rows = rows.select_for_update(no_key=True, of=("self",)).order_by("id")
    # A bulk upgrade reads thousands of them, so no more of each than a plan is made of, unless more may be written.
    read = rows.defer("payload") if whole else rows.only(*_READ_FIELDS)
    return {row.id: row for row in sorted(read, key=lambda row: (row.created_at, row.id))}


def _plan(
    install: ExtensionInstall,
    target: ExtensionVersion,
    options: Options,
    rows: dict[UUID, Schedule],
    offered: Sequence[remap.Endpoint],
) -> UpgradePlan:
    schedules = [_scheduled(row, install=install) for row in rows.values()]
    try:
        choices = remap.read_choices(
            options.remap, schedules=schedules, endpoints=offered, ignore_unknown=options.ignore_unknown
        )
    except remap.RemapInvalidError as error:
        raise InvalidFields.from_fields({"remap": str(error)}) from error
    steps = remap.plan(schedules=schedules, endpoints=offered, choices=choices, disable_missing=options.disable_missing)
    source = install.version
    facts = {
        "offered": sorted([str(each.id), str(each), each.handler, each.unschedulable_reason] for each in offered),
        "install": str(install.id),
        "source": [str(source.id), source.content_hash],
        "target": [str(target.id), target.content_hash],
        "capabilities": [source.capabilities, target.capabilities],
    }
    return UpgradePlan(install, source, target, steps, rows, remap.token_of(steps, facts=facts))


def _scheduled(row: Schedule, *, install: ExtensionInstall) -> remap.Scheduled:
    # An endpoint of a version that is not installed is as good as none.
    endpoint = row.endpoint if row.endpoint and row.endpoint.version_id == install.version_id else None
    return remap.Scheduled(
        id=row.id,
        method=row.endpoint_method,
        path=row.endpoint_path,
        endpoint_id=endpoint.id if endpoint else None,
        handler=endpoint.handler if endpoint else "",
        name=row.name or "",
        enabled=row.enabled,
        awaits_return=not row.enabled and row.disabled_at_revision == row.revision,
    )


def _changed(plan: UpgradePlan) -> list[Step]:
    """The steps whose mirrors have to hear of it."""
    return [step for step in plan.steps if step.change in {Change.DISABLE, Change.ENABLE}]


def _write_states(plan: UpgradePlan, *, install: ExtensionInstall) -> None:
    """Disable and enable what the plan says."""
    changed = _changed(plan)
    if not changed:
        return
    ids = [step.schedule.id for step in changed]
    if any(plan.schedules[schedule_id].get_deferred_fields() - {"payload"} for schedule_id in ids):
        plan.schedules.update(Schedule.objects.filter(tenant_id=install.tenant_id).defer("payload").in_bulk(ids))
    going = [plan.schedules[step.schedule.id] for step in changed if step.change is Change.DISABLE]
    now = ledger.database_now()
    if install.is_enabled:
        # Their slots up to now are owed by the rules up to now.
        ledger.settle_completely(going, until=now)
    for step in changed:
        row = plan.schedules[step.schedule.id]
        row.enabled = step.change is Change.ENABLE
        row.revision += 1
        row.disabled_at_revision = None if row.enabled else row.revision
        row.disabled_reason = ""
        if not row.enabled:
            reason = DISABLED_REASON.format(version=plan.target.version, reason=step.reason)
            row.disabled_reason = reason[: services.MAX_REASON_LENGTH]
        row.consecutive_failures = 0
        ledger.open_account(row, now=now)
        services.touch_mirror(row)
    Schedule.objects.bulk_update([plan.schedules[schedule_id] for schedule_id in ids], _STATE_FIELDS)


def _write_endpoints(plan: UpgradePlan) -> None:
    """Point every schedule where the plan says, in one statement; what it called is kept as text where that is nowhere.

    Whoever has the schedule open learns of another endpoint by its revision.
    """
    if not plan.steps:
        return
    ids, endpoints, methods, paths = [], [], [], []
    for step in plan.steps:
        calls = step.target or step.schedule
        ids.append(step.schedule.id)
        endpoints.append(step.target.id if step.target else None)
        methods.append(calls.method)
        paths.append(calls.path)
    with connection.cursor() as cursor:
        cursor.execute(_POINT, [ids, endpoints, methods, paths, plan.install.tenant_id])


def _record(
    plan: UpgradePlan, befores: Mapping[UUID, Mapping[str, Any]], *, options: Options, actor: audit.Actor
) -> None:
    after = {
        "version": plan.target.version,
        "content_hash": plan.target.content_hash,
        "counts": remap.count(plan.steps),
        "remap": dict(options.remap),
        "disable_missing": options.disable_missing,
        "plan_token": options.plan_token,
    }
    before = {"version": plan.source.version, "content_hash": plan.source.content_hash}
    of_schedules = (
        ("schedule.upgraded", plan.schedules[step.schedule.id], befores[step.schedule.id], _describe_step(step, plan))
        for step in plan.steps
    )
    audit.record_many(actor, [("install.upgraded", plan.install, before, after), *of_schedules])


def _describe_row(row: Schedule, version: ExtensionVersion) -> dict[str, Any]:
    return {
        "version": version.version,
        "endpoint": f"{row.endpoint_method} {row.endpoint_path}",
        "endpoint_id": str(row.endpoint_id) if row.endpoint_id else None,
        "enabled": row.enabled,
    }


def _describe_step(step: Step, plan: UpgradePlan) -> dict[str, Any]:
    return {
        "version": plan.target.version,
        "endpoint": str(step.target or step.schedule),
        "endpoint_id": str(step.target.id) if step.target else None,
        "enabled": plan.schedules[step.schedule.id].enabled,
        "fate": step.fate,
        "change": step.change,
        "reason": step.reason or None,
    }


def _describe_missing(step: Step) -> dict[str, str]:
    return {"scheduleId": str(step.schedule.id), "method": step.schedule.method, "path": step.schedule.path}


_READ_FIELDS: Final = (
    "tenant_id",
    "install_id",
    "endpoint_id",
    "endpoint__version_id",
    "endpoint__handler",
    "endpoint_method",
    "endpoint_path",
    "name",
    "cron",
    "timezone",
    "enabled",
    "revision",
    "disabled_at_revision",
    "created_at",
)
_STATE_FIELDS: Final = (
    "enabled",
    "revision",
    "disabled_at_revision",
    "disabled_reason",
    "consecutive_failures",
    "accounted_until",
    "next_slot_at",
    "generation",
    "changed_at",
    "sync_error",
    "push_failures",
    "push_after",
)

_LOCK_VERSION: Final = """
SELECT v.id, v.extension_id, v.version, v.content_hash, v.capabilities, v.endpoints_read_at, v.created_at
FROM schedules_extensioninstall i JOIN schedules_extensionversion v ON v.extension_id = i.extension_id
WHERE i.tenant_id = %(tenant)s AND i.id = %(install)s AND v.version = %(version)s
FOR KEY SHARE OF v
"""

_POINT: Final = """
UPDATE schedules_schedule AS schedule
SET endpoint_id = goes.endpoint_id, endpoint_method = goes.method, endpoint_path = goes.path,
    revision = revision + CASE
        WHEN (endpoint_method, endpoint_path) <> (goes.method, goes.path) THEN 1
        -- It calls nothing from now on; one that is disabled because of that has been counted already.
        WHEN goes.endpoint_id IS NULL AND schedule.endpoint_id IS NOT NULL
             AND disabled_at_revision IS DISTINCT FROM revision THEN 1
        ELSE 0 END,
    updated_at = statement_timestamp()
FROM unnest(%s::uuid[], %s::uuid[], %s::text[], %s::text[]) AS goes (id, endpoint_id, method, path)
WHERE schedule.tenant_id = %s AND schedule.id = goes.id
"""
