"""The audit trail: one row for each change, written in the change's own transaction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from uuid import UUID

from schedules.models import AuditEvent

MAX_ACTOR_LENGTH = 256


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
    *,
    actor: Actor,
    action: str,
    subject_type: str,
    subject_id: UUID,
    tenant_id: UUID | None,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
) -> None:
    """Insert one audit row. Call it inside the transaction that makes the change."""
    AuditEvent.objects.create(
        tenant_id=tenant_id,
        source=actor.source,
        actor=actor.name[:MAX_ACTOR_LENGTH],
        action=action,
        subject_type=subject_type,
        subject_id=subject_id,
        before=None if before is None else dict(before),
        after=None if after is None else dict(after),
    )
