"""The registry: tenants, extensions, versions and installs, as the platform's own services bring them in.

Every call is idempotent: the same call twice changes nothing the second time, and writes no second audit row.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final
from uuid import UUID

import structlog
from django.db import DatabaseError, IntegrityError, transaction
from django.db.models import F
from django.db.models.functions import Now

from schedules import audit, convergence, cron, endpoints, manifests, retention, services, upgrades
from schedules.errors import Conflict, InvalidFields, NotFound
from schedules.models import (
    UNFINISHED_STATUSES,
    ApiEndpoint,
    ApiKey,
    Extension,
    ExtensionInstall,
    ExtensionVersion,
    IdempotencyRecord,
    KillScope,
    KillSwitch,
    NotificationChannel,
    RunStatus,
    Schedule,
    ScheduleRun,
    Tenant,
    TenantMembership,
)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class PublishedVersion:
    """A stored version and what its manifest's reading left out."""

    version: ExtensionVersion
    endpoint_count: int
    skipped: tuple[manifests.SkippedMember, ...]
    created: bool


@dataclass(frozen=True, slots=True)
class InstallState:
    """What the platform says of a tenant's install."""

    version: str
    is_enabled: bool
    config: Mapping[str, Any]
    granted_caps: list[str]
    secret_envelope: Mapping[str, Any] | None
    install_id: UUID | None = None


BEING_DELETED: Final = "The tenant is being deleted"
INSTALL_ID_TAKEN: Final = "install_id belongs to another install"
VERSION_ID_TAKEN: Final = "version_id belongs to another version"


@contextmanager
def _translated(message: str) -> Iterator[None]:
    """A primary key that two calls chose at the same moment is the second one's conflict and not our bug."""
    try:
        yield
    except IntegrityError as error:
        if "_pkey" not in str(error):
            raise
        raise Conflict(message) from error


def put_tenant(*, tenant_id: UUID, name: str, timezone: str, actor: audit.Actor) -> Tenant:
    """Create or change a tenant. Raises InvalidFields for an unknown zone, Conflict while it is being deleted."""
    try:
        zone = cron.parse_zone(timezone).key
    except cron.CronError as error:
        raise InvalidFields.from_fields({"timezone": str(error)}) from error
    values = {"name": name, "timezone": zone}
    with transaction.atomic():
        tenant, created = Tenant.objects.select_for_update().get_or_create(id=tenant_id, defaults=values)
        if tenant.deleted_at is not None:
            raise Conflict(BEING_DELETED)
        before = None if created else {"name": tenant.name, "timezone": tenant.timezone}
        if before == values:
            return tenant
        tenant.name, tenant.timezone = name, zone
        tenant.save()
        audit.record(
            actor,
            "tenant.put",
            tenant,
            before=before,
            after=values,
        )
    return tenant


def change_retention(
    *,
    tenant_id: UUID,
    actor: audit.Actor,
    keep_succeeded_days: int | None = None,
    keep_other_days: int | None = None,
) -> Tenant:
    """Change for how many days a tenant's runs are kept; None leaves a member alone. A repeat changes nothing."""
    with transaction.atomic():
        tenant = Tenant.objects.select_for_update(no_key=True).filter(id=tenant_id).first()
        if tenant is None:
            raise NotFound("Tenant not found")
        before = {"keep_succeeded_days": tenant.keep_succeeded_days, "keep_other_days": tenant.keep_other_days}
        given = {"keep_succeeded_days": keep_succeeded_days, "keep_other_days": keep_other_days}
        after = before | {name: days for name, days in given.items() if days is not None}
        if after != before:
            Tenant.objects.filter(id=tenant_id).update(**after)
            audit.record(actor, "tenant.retention_changed", tenant, before=before, after=after)
    return Tenant.objects.get(id=tenant_id)


def delete_tenant(*, tenant_id: UUID, actor: audit.Actor, budget_seconds: float = float("inf")) -> bool:
    """Remove everything of a tenant, its mirrors included; returns whether nothing is left.

    What can act goes first and at once: schedules, installs, keys, memberships. The history follows batch by batch and
    the tenant's row last, so that whatever interrupts it, a repeat or `finish_deletions` goes on. Mirrors are removed
    as soon as Temporal answers. A repeat is fine: there is nothing left to remove.
    """
    deadline = time.monotonic() + budget_seconds
    with transaction.atomic():
        # Not against those who refer to it: who creates a schedule holds its install, which we want next.
        tenant = Tenant.objects.select_for_update(no_key=True).filter(id=tenant_id).first()
        if tenant is None:
            return True
        if tenant.deleted_at is None:
            Tenant.objects.filter(id=tenant_id).update(deleted_at=Now())
            audit.record(actor, "tenant.deletion_began", tenant, of_platform=True)
        _remove_what_acts(tenant_id)
    for statement in _HISTORY_OF_A_TENANT:
        while retention.delete_batch(statement, {"tenant_id": tenant_id}):
            if time.monotonic() > deadline:
                return False
    with transaction.atomic():
        tenant = Tenant.objects.select_for_update().filter(id=tenant_id).first()
        if tenant is not None:
            _remove_what_acts(tenant_id)  # whatever came in since, e.g. a key
            # Of the platform and without content: what belonged to the tenant is gone with it.
            audit.record(actor, "tenant.deleted", tenant, of_platform=True)
            tenant.delete()
    return True


def finish_deletions(*, budget_seconds: float) -> int:
    """Go on with the deletions of tenants that something interrupted; returns how many have come to their end."""
    deadline = time.monotonic() + budget_seconds
    finished = 0
    for tenant_id in list(Tenant.objects.exclude(deleted_at=None).values_list("id", flat=True)):
        left = deadline - time.monotonic()
        try:
            finished += left > 0 and delete_tenant(tenant_id=tenant_id, actor=_PLATFORM, budget_seconds=left)
        except DatabaseError:
            log.exception("tenant.not_deleted", tenant_id=str(tenant_id))
    return finished


def _remove_what_acts(tenant_id: UUID) -> None:
    """Everything of a tenant that can make a call, change a row or let somebody in."""
    installs = ExtensionInstall.objects.select_for_update().filter(tenant_id=tenant_id).order_by("id")
    list(installs)
    services.lock_for_deletion(tenant_id=tenant_id)
    _stop_runs(tenant_id)
    services.remove_rows(list(Schedule.objects.filter(tenant_id=tenant_id)))
    installs.all().delete()
    ApiKey.objects.filter(tenant_id=tenant_id).delete()
    TenantMembership.objects.filter(tenant_id=tenant_id).delete()
    NotificationChannel.objects.filter(tenant_id=tenant_id).delete()
    KillSwitch.objects.filter(scope=KillScope.TENANT, target_id=tenant_id).delete()


def _stop_runs(tenant_id: UUID, *, install_id: UUID | None = None, reason: str = "the tenant was deleted") -> None:
    """Ask every run that is in flight to stop; its call is aborted within seconds where Temporal answers."""
    rows = ScheduleRun.objects.filter(tenant_id=tenant_id, status=RunStatus.RUNNING)
    if install_id is not None:
        rows = rows.filter(install_id=install_id)
    found = list(rows.select_for_update(of=("self",)).values_list("id", "workflow_id"))
    asked = ScheduleRun.objects.filter(tenant_id=tenant_id, id__in=[run_id for run_id, _ in found])
    asked.filter(cancel_requested_at=None).update(cancel_requested_at=Now(), cancel_reason=reason)
    running = [workflow_id for _, workflow_id in found if workflow_id]
    transaction.on_commit(partial(convergence.request_workflow_cancels, workflow_ids=running))


def put_extension(*, registry_id: UUID, publisher: str, name: str, actor: audit.Actor) -> Extension:
    """Create or rename a registry entry. Raises Conflict where another entry has that publisher and name."""
    values = {"publisher": publisher, "name": name}
    try:
        with transaction.atomic():
            extension, created = Extension.objects.select_for_update().get_or_create(id=registry_id, defaults=values)
            before = None if created else {"publisher": extension.publisher, "name": extension.name}
            if before == values:
                return extension
            extension.publisher, extension.name = publisher, name
            extension.save()
            audit.record(
                actor,
                "extension.put",
                extension,
                before=before,
                after=values,
            )
    except IntegrityError as error:
        if "a_publisher_names_an_extension_once" not in str(error):
            raise
        raise Conflict(f"Another extension is already called {publisher}.{name}") from error
    return extension


def put_version(
    *,
    registry_id: UUID,
    version: str,
    version_id: UUID | None,
    content_hash: str,
    manifest: Mapping[str, Any],
    actor: audit.Actor,
) -> PublishedVersion:
    """Store a version and materialise its endpoints.

    Raises NotFound for an unknown extension and Conflict where the version exists with other content.
    """
    read = manifests.read_manifest(manifest)
    with _translated(VERSION_ID_TAKEN), transaction.atomic():
        extension = _lock_extension(registry_id)
        existing = ExtensionVersion.objects.filter(extension=extension, version=version).first()
        if existing is not None:
            # Compared by the database, which keeps numbers in a form of its own: 1e23 comes back as an integer.
            versions = ExtensionVersion.objects.filter(id=existing.id, content_hash=content_hash)
            same = versions.filter(manifest=dict(manifest)).exists()
            if not same or version_id not in {None, existing.id}:
                raise Conflict(f"Version {version} exists with other content, and a version's content never changes")
            return PublishedVersion(existing, len(read.endpoints), read.skipped, created=False)
        if version_id is not None and ExtensionVersion.objects.filter(id=version_id).exists():
            raise Conflict(VERSION_ID_TAKEN)
        stored = ExtensionVersion(
            extension=extension,
            version=version,
            content_hash=content_hash,
            manifest=dict(manifest),
            capabilities=list(read.capabilities),
        )
        if version_id is not None:
            stored.id = version_id
        stored.save(force_insert=True)
        endpoints.materialise(stored)
        after = {
            "version": version,
            "content_hash": content_hash,
            "endpoints": len(read.endpoints),
        }
        audit.record(actor, "version.put", stored, after=after)
    return PublishedVersion(stored, len(read.endpoints), read.skipped, created=True)


def delete_version(*, registry_id: UUID, version: str, actor: audit.Actor) -> None:
    """Remove a version and its endpoints; a repeat is fine.

    Raises Conflict while an install runs it or a schedule points at one of its endpoints.
    """
    with transaction.atomic():
        # Installs take their version under the same lock, so none can take this one meanwhile.
        extension = _lock_extension(registry_id)
        # Waits for the upgrades to it that are under way; those that come later find it gone.
        rows = ExtensionVersion.objects.select_for_update().filter(extension=extension, version=version)
        stored = rows.first()
        if stored is None:
            return
        if ScheduleRun.objects.filter(version=stored, status__in=UNFINISHED_STATUSES).exists():
            raise Conflict(f"A run of version {version} is in flight")
        if ExtensionInstall.objects.filter(version=stored).exists():
            raise Conflict(f"Version {version} is installed")
        if Schedule.objects.filter(endpoint__version=stored).exists():
            raise Conflict(f"A schedule refers to an endpoint of version {version}")
        if KillSwitch.objects.filter(scope=KillScope.VERSION, target_id=stored.id).exists():
            raise Conflict(f"A kill switch stands for version {version}, release it first")
        ApiEndpoint.objects.filter(version=stored).delete()
        before = {"version": version, "content_hash": stored.content_hash}
        audit.record(actor, "version.deleted", stored, before=before)
        stored.delete()


def put_install(*, tenant_id: UUID, registry_id: UUID, state: InstallState, actor: audit.Actor) -> ExtensionInstall:
    """Install an extension for a tenant, or change its install.

    Another version carries the install's schedules over, all of them or none. Disabling pauses the mirrors and
    leaves the schedules as they are. Raises NotFound, Conflict, RemapFailed.
    """
    with _translated(INSTALL_ID_TAKEN), transaction.atomic():
        # Locked, so that the tenant is not deleted under the install.
        tenant = Tenant.objects.select_for_update(no_key=True).filter(id=tenant_id).first()
        if tenant is None:
            raise NotFound("Tenant not found")
        if tenant.deleted_at is not None:
            raise Conflict(BEING_DELETED)
        extension = _lock_extension(registry_id)
        version = ExtensionVersion.objects.filter(extension=extension, version=state.version).first()
        if version is None:
            raise NotFound(f"The extension has no version {state.version}")
        install = ExtensionInstall.objects.select_for_update().filter(tenant_id=tenant_id, extension=extension).first()
        if install is None:
            return _create_install(tenant_id, extension, version, state, actor)
        if state.install_id not in {None, install.id}:
            raise Conflict("The tenant has this extension under another install_id")
        before = _describe_install(install)
        if install.version_id != version.id:
            upgrades.apply(install=install, target=version, options=upgrades.Options(), actor=actor)
        was_enabled = install.is_enabled
        if was_enabled != state.is_enabled:
            services.settle_install(install)
        hidden_before = (install.config, install.secret_envelope)
        _set_state(install, state)
        after = _describe_install(install)
        values_changed = hidden_before != (install.config, install.secret_envelope)
        if before == after and not values_changed:
            return install
        install.save()
        if was_enabled != install.is_enabled:
            _repush_all(install)
        after["values_changed"] = values_changed
        audit.record(
            actor,
            "install.put",
            install,
            before=before,
            after=after,
        )
    return install


def delete_install(*, tenant_id: UUID, registry_id: UUID, actor: audit.Actor) -> None:
    """Uninstall: schedules and mirrors go, runs in flight are cancelled, past runs and audit stay. A repeat is fine."""
    with transaction.atomic():
        install = (
            ExtensionInstall.objects.select_for_update().filter(tenant_id=tenant_id, extension_id=registry_id).first()
        )
        if install is None:
            return
        services.lock_for_deletion(tenant_id=tenant_id, install_id=install.id)
        services.settle_install(install)
        _stop_runs(tenant_id, install_id=install.id, reason="the extension was uninstalled")
        schedules = list(Schedule.objects.filter(tenant_id=tenant_id, install=install))
        services.remove_rows(schedules)
        IdempotencyRecord.objects.filter(tenant_id=tenant_id, install_id=install.id).delete()
        before = _describe_install(install) | {"schedules": len(schedules)}
        audit.record(actor, "install.deleted", install, before=before)
        install.delete()


def set_install_enabled(*, tenant_id: UUID, install_id: UUID, is_enabled: bool, actor: audit.Actor) -> ExtensionInstall:
    """Enable or disable an install, as `put_install` does, and leave all else of it alone. A repeat changes nothing.

    Raises NotFound.
    """
    with transaction.atomic():
        install = services.lock_install(tenant_id=tenant_id, install_id=install_id)
        if install.is_enabled == is_enabled:
            return install
        before = _describe_install(install)
        services.settle_install(install)
        install.is_enabled = is_enabled
        install.save(update_fields=["is_enabled", "updated_at"])
        _repush_all(install)
        audit.record(actor, "install.put", install, before=before, after=_describe_install(install))
    return install


def _lock_extension(registry_id: UUID) -> Extension:
    extension = Extension.objects.select_for_update().filter(id=registry_id).first()
    if extension is None:
        raise NotFound("Extension not found")
    return extension


def _create_install(
    tenant_id: UUID,
    extension: Extension,
    version: ExtensionVersion,
    state: InstallState,
    actor: audit.Actor,
) -> ExtensionInstall:
    install = ExtensionInstall(tenant_id=tenant_id, extension=extension, version=version)
    if state.install_id is not None:
        if ExtensionInstall.objects.filter(id=state.install_id).exists():
            raise Conflict(INSTALL_ID_TAKEN)
        install.id = state.install_id
    _set_state(install, state)
    install.save(force_insert=True)
    audit.record(
        actor,
        "install.put",
        install,
        after=_describe_install(install),
    )
    return install


def _set_state(install: ExtensionInstall, state: InstallState) -> None:
    install.is_enabled = state.is_enabled
    install.config = dict(state.config)
    install.granted_caps = list(manifests.normalise_capabilities(state.granted_caps))
    install.secret_envelope = None if state.secret_envelope is None else dict(state.secret_envelope)


def _describe_install(install: ExtensionInstall) -> dict[str, Any]:
    """What of an install the audit trail may hold: the names of its configuration and never the values."""
    return {
        "version": install.version.version,
        "is_enabled": install.is_enabled,
        "config_members": sorted(install.config),
        "granted_caps": install.granted_caps,
    }


def _repush_all(install: ExtensionInstall) -> None:
    rows = Schedule.objects.filter(tenant_id=install.tenant_id, install=install)
    rows.update(generation=F("generation") + 1, changed_at=Now(), sync_error="", push_failures=0, push_after=None)
    pushes = list(rows.order_by("id").values_list("tenant_id", "id"))
    transaction.on_commit(partial(convergence.request_pushes, pushes=pushes))


_PLATFORM: Final = audit.Actor(audit.Source.SYSTEM, "scheduler")
# What may be millions of rows, so that it goes in batches; nothing in it can act.
_HISTORY_OF_A_TENANT: Final = tuple(
    f"""
    DELETE FROM {table} WHERE id IN (
        SELECT id FROM {table} WHERE tenant_id = %(tenant_id)s LIMIT %(batch)s
    )
    """  # noqa: S608 - the names are ours
    for table in (
        "schedules_schedulerun",
        "schedules_runcount",
        "schedules_notification",
        "schedules_idempotencyrecord",
        "schedules_ratewindowentry",
        "schedules_auditevent",
    )
)
