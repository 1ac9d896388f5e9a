"""Kill switches: operators stop all calls of a tenant, an extension, a version or the whole platform at once.

A switch is a row that every claim reads, so it holds from the next claim on, whether or not Temporal answers, and
nothing has to be undone when it is released: schedules and mirrors stay as they are. Slots that come meanwhile end as
skipped, with the reason; those that nobody could claim, because workers or Temporal were away as well, are left to each
schedule's catch-up policy. A run between two attempts is cancelled. A call that is under way is left to its end.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from django.db import transaction

from schedules import audit, queries
from schedules.errors import Conflict, InvalidFields, NotFound
from schedules.models import (
    EVERYTHING,
    MAX_KILL_REASON_LENGTH,
    ExtensionInstall,
    ExtensionVersion,
    KillScope,
    KillSwitch,
    Tenant,
)


class Stopped(Conflict):
    """An operator has stopped what is asked for."""

    code = "stopped"


@dataclass(frozen=True, slots=True)
class Target:
    """What a switch is about: an id, and how people call it."""

    scope: KillScope
    id: UUID
    label: str


def find_target(*, scope: str, name: str = "") -> Target:
    """What ``name`` means: a tenant's id, a registry id or ``publisher.name``, a version's id or slug@version.

    The whole platform has none. Raises InvalidFields for a scope or a name that cannot be, NotFound for what is not.
    """
    if scope not in KillScope.values:
        raise InvalidFields.from_fields({"scope": f"scope must be one of {', '.join(KillScope.values)}"})
    if scope == KillScope.PLATFORM:
        if name:
            raise InvalidFields.from_fields({"target": "the whole platform has no name"})
        return Target(KillScope.PLATFORM, EVERYTHING, "")
    if not name:
        raise InvalidFields.from_fields({"target": f"name the {scope}"})
    if scope == KillScope.TENANT:
        ref = queries.parse_uuid(name)
        tenant = Tenant.objects.filter(id=ref).first() if ref else None
        if tenant is None:
            raise NotFound("Tenant not found, name it by its id")
        return Target(KillScope.TENANT, tenant.id, tenant.name)
    if scope == KillScope.EXTENSION:
        extension = queries.find_extension(name)
        return Target(KillScope.EXTENSION, extension.id, extension.slug)
    version = _find_version(name)
    return Target(KillScope.VERSION, version.id, f"{version.extension.slug} {version.version}")


def engage(target: Target, *, reason: str, actor: audit.Actor) -> KillSwitch:
    """Stop it; returns the switch. A repeat leaves the first one, with its reason. Raises InvalidFields."""
    reason = reason.strip()
    if not reason:
        raise InvalidFields.from_fields({"reason": "say why, it is shown to everybody who wonders"})
    if len(reason) > MAX_KILL_REASON_LENGTH or not reason.isprintable():
        raise InvalidFields.from_fields(
            {"reason": f"reason must be printable and at most {MAX_KILL_REASON_LENGTH} characters"}
        )
    with transaction.atomic():
        switch, created = KillSwitch.objects.get_or_create(
            scope=target.scope,
            target_id=target.id,
            defaults={
                "target": target.label[:512],
                "reason": reason,
                "source": actor.source,
                "actor": actor.name[: audit.MAX_ACTOR_LENGTH],
            },
        )
        if created:
            audit.record(actor, "kill_switch.engaged", switch, after=describe(switch))
    return switch


def release(*, switch_id: UUID, actor: audit.Actor) -> None:
    """Let it run again. Slots of the time before stay as they ended. Raises NotFound, also on a repeat."""
    with transaction.atomic():
        switch = KillSwitch.objects.select_for_update().filter(id=switch_id).first()
        if switch is None:
            raise NotFound("There is no such kill switch")
        audit.record(actor, "kill_switch.released", switch, before=describe(switch))
        switch.delete()


def standing() -> list[KillSwitch]:
    """All switches that stand, the newest first."""
    return list(KillSwitch.objects.all())


def find_over(install: ExtensionInstall) -> KillSwitch | None:
    """The oldest switch that stops an install's runs, or None."""
    return find_among(standing(), install)


def find_among(switches: Iterable[KillSwitch], install: ExtensionInstall) -> KillSwitch | None:
    """The oldest of these switches that stops an install's runs, or None."""
    about = {
        (KillScope.PLATFORM, EVERYTHING),
        (KillScope.TENANT, install.tenant_id),
        (KillScope.EXTENSION, install.extension_id),
        (KillScope.VERSION, install.version_id),
    }
    over = [switch for switch in switches if (switch.scope, switch.target_id) in about]
    return min(over, key=lambda switch: switch.created_at, default=None)


def refuse_stopped(install: ExtensionInstall) -> None:
    """Raise Stopped where a switch stops the install's runs."""
    if (switch := find_over(install)) is not None:
        raise Stopped(f"An operator has stopped it: {switch.reason}")


def describe(switch: KillSwitch) -> dict[str, str]:
    """What the audit trail keeps of a switch."""
    return {"scope": switch.scope, "target": switch.target, "target_id": str(switch.target_id), "reason": switch.reason}


def _find_version(name: str) -> ExtensionVersion:
    versions = ExtensionVersion.objects.select_related("extension").defer("manifest")
    if (ref := queries.parse_uuid(name)) is not None:
        version = versions.filter(id=ref).first()
    else:
        extension, _, own_name = name.rpartition("@")
        if not extension:
            raise InvalidFields.from_fields({"target": "name the version by its id or as publisher.name@version"})
        if "\x00" in own_name:
            raise NotFound("Version not found")
        version = versions.filter(extension=queries.find_extension(extension), version=own_name).first()
    if version is None:
        raise NotFound("Version not found")
    return version
