"""The audit trail of one thing, as sentences of who changed what from which value to which."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from schedules.models import AuditEvent

SHOWN: Final = 20
_MAX_VALUE: Final = 200


@dataclass(frozen=True, slots=True)
class Change:
    """A member before and after."""

    member: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of the trail."""

    at: datetime
    actor: str
    source: str
    action: str
    changes: Sequence[Change]


def read_trail(*, tenant_id: UUID, subject_id: UUID) -> list[Entry]:
    """The newest rows about a subject. One statement."""
    rows = AuditEvent.objects.filter(tenant_id=tenant_id, subject_id=subject_id).order_by("-at", "-id")
    return [
        Entry(
            event.at,
            event.actor,
            event.source.replace("_", " "),
            event.action.replace(".", " ").replace("_", " "),
            changes_of(event),
        )
        for event in rows[:SHOWN]
    ]


def changes_of(event: AuditEvent) -> list[Change]:
    """What differs between before and after; of a creation all that was given."""
    before, after = event.before or {}, event.after or {}
    return [
        Change(member.replace("_", " "), _as_text(before.get(member)), _as_text(after.get(member)))
        for member in dict.fromkeys([*before, *after])
        if before.get(member) != after.get(member) and member != "endpoint_id"
    ]


def _as_text(value: Any) -> str:
    if value is None or value == "":
        return "\N{EN DASH}"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _MAX_VALUE else f"{text[:_MAX_VALUE]}…"
