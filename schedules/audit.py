"""The audit trail: one row for each change, written in the change's own transaction."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from django.contrib.auth.models import User
from django.db import connection
from django.db.models import Model

from schedules.models import (
    ApiKey,
    AuditEvent,
    Extension,
    ExtensionInstall,
    ExtensionVersion,
    KillScope,
    KillSwitch,
    NotificationChannel,
    Schedule,
    Tenant,
    TenantMembership,
)

MAX_ACTOR_LENGTH = 256
# How the trail calls what a change is about.
_SUBJECT_TYPES: Final[Mapping[type[Model], str]] = {
    Tenant: "tenant",
    ApiKey: "api_key",
    NotificationChannel: "notification_channel",
    Extension: "extension",
    ExtensionVersion: "version",
    ExtensionInstall: "install",
    Schedule: "schedule",
    KillSwitch: "kill_switch",
    TenantMembership: "membership",
    User: "user",
}
SUBJECT_TYPES: Final = tuple(_SUBJECT_TYPES.values())


class Source(StrEnum):
    """The door that a change came through."""

    ADMIN = "admin"
    ADMIN_API = "admin_api"
    HOST_API = "host_api"
    REGISTRY_API = "registry_api"
    COMMAND = "command"
    SYSTEM = "system"


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts and through which door. ``name`` is for people, e.g. a user name or an API key's prefix."""

    source: Source
    name: str


def record(
    actor: Actor,
    action: str,
    subject: Model,
    *,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
    of_platform: bool = False,
) -> None:
    """Insert one audit row. Call it inside the transaction that makes the change.

    The row belongs to the subject's tenant, or to the platform where the subject has none or ``of_platform`` says so.
    """
    event = _event(actor, action, subject, before=before, after=after)
    if of_platform:
        event.tenant_id = None
    event.save(force_insert=True)


def record_all(
    actor: Actor, action: str, changes: Iterable[tuple[Model, Mapping[str, Any] | None, Mapping[str, Any] | None]]
) -> None:
    """Insert a row for each (subject, before, after) at once; see `record`."""
    record_many(actor, ((action, subject, before, after) for subject, before, after in changes))


def record_many(
    actor: Actor, changes: Iterable[tuple[str, Model, Mapping[str, Any] | None, Mapping[str, Any] | None]]
) -> None:
    """Insert a row for each (action, subject, before, after) at once; see `record`."""
    tenants, actions, kinds, subjects, befores, afters = [], [], [], [], [], []
    for action, subject, before, after in changes:
        tenants.append(_tenant_of(subject))
        actions.append(action)
        kinds.append(_SUBJECT_TYPES[type(subject)])
        subjects.append(_id_of(subject))
        befores.append(None if before is None else json.dumps(before))
        afters.append(None if after is None else json.dumps(after))
    with connection.cursor() as cursor:
        name = actor.name[:MAX_ACTOR_LENGTH]
        cursor.execute(_INSERT, [actor.source, name, tenants, actions, kinds, subjects, befores, afters])


# Not `bulk_create`, which takes most of the time of an upgrade of many.
_INSERT: Final = """
INSERT INTO schedules_auditevent (source, actor, tenant_id, action, subject_type, subject_id, before, after)
SELECT %s, %s, event.*
FROM unnest(%s::uuid[], %s::text[], %s::text[], %s::uuid[], %s::jsonb[], %s::jsonb[]) AS event
"""


def _event(
    actor: Actor,
    action: str,
    subject: Model,
    *,
    before: Mapping[str, Any] | None,
    after: Mapping[str, Any] | None,
) -> AuditEvent:
    return AuditEvent(
        tenant_id=_tenant_of(subject),
        source=actor.source,
        actor=actor.name[:MAX_ACTOR_LENGTH],
        action=action,
        subject_type=_SUBJECT_TYPES[type(subject)],
        subject_id=_id_of(subject),
        before=None if before is None else dict(before),
        after=None if after is None else dict(after),
    )


def _id_of(subject: Model) -> UUID:
    """The subject's id; users are Django's and counted, so theirs is their number as a UUID."""
    key: UUID = UUID(int=subject.pk) if isinstance(subject, User) else subject.pk
    return key


def _tenant_of(subject: Model) -> UUID | None:
    if isinstance(subject, Tenant):
        return subject.pk
    if isinstance(subject, KillSwitch):
        return subject.target_id if subject.scope == KillScope.TENANT else None
    tenant_id: UUID | None = getattr(subject, "tenant_id", None)
    return tenant_id
