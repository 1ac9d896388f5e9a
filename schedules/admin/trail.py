"""The audit trail of one thing, as sentences of who changed what from which value to which."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from django.db.models import CharField, F, Model, Value
from django.db.models.functions import Coalesce, Concat
from django.utils.html import format_html

from schedules.admin import display
from schedules.admin.base import in_words
from schedules.models import (
    ApiKey,
    AuditEvent,
    Extension,
    ExtensionInstall,
    ExtensionVersion,
    NotificationChannel,
    Schedule,
    Tenant,
)

SHOWN: Final = 20
_MAX_VALUE: Final = 200
_SLUG: Final = ("publisher", Value("."), "name")
_SLUG_OF_INSTALL: Final = ("extension__publisher", Value("."), "extension__name")
# What an event can be about: the table, how its rows are called, and the page that shows one.
_SUBJECTS: Final[Mapping[str, tuple[type[Model], Any, str]]] = {
    "schedule": (
        Schedule,
        Coalesce("name", Concat("endpoint_method", Value(" "), "endpoint_path"), output_field=CharField()),
        "schedule_page",
    ),
    "install": (ExtensionInstall, Concat(*_SLUG_OF_INSTALL, output_field=CharField()), "extensioninstall_change"),
    "notification_channel": (NotificationChannel, F("target"), "notificationchannel_change"),
    "api_key": (ApiKey, F("name"), "apikey_change"),
    "tenant": (Tenant, F("name"), "tenant_change"),
    "extension": (Extension, Concat(*_SLUG, output_field=CharField()), "extension_change"),
    "version": (
        ExtensionVersion,
        Concat(*_SLUG_OF_INSTALL, Value(" "), "version", output_field=CharField()),
        "extensionversion_change",
    ),
}
_OPERATORS_SUBJECTS: Final = ("extension", "version")


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
            words_of(event),
            changes_of(event),
        )
        for event in rows[:SHOWN]
    ]


def words_of(event: AuditEvent) -> str:
    """What was done."""
    return event.action.replace(".", " ").replace("_", " ")


def name_subjects(events: Sequence[Any], *, for_operator: bool) -> None:
    """Let each event know what it is about as ``about``, as a link where that still exists. One statement."""
    wanted: dict[str, set[UUID]] = {}
    for event in events:
        if event.subject_type in _SUBJECTS:
            wanted.setdefault(event.subject_type, set()).add(event.subject_id)
    names: dict[tuple[str, UUID], str] = {}
    if wanted:
        parts = []
        for kind, ids in wanted.items():
            model, name, _ = _SUBJECTS[kind]
            rows = model._default_manager.order_by().filter(id__in=ids)  # noqa: SLF001 - documented by Django
            parts.append(
                rows.annotate(subject_kind=Value(kind, output_field=CharField()), called=name).values_list(
                    "subject_kind", "id", "called"
                )
            )
        names = {(kind, key): called for kind, key, called in parts[0].union(*parts[1:], all=True)}
    for event in events:
        called = names.get((event.subject_type, event.subject_id))
        kind = in_words(event.subject_type)
        if called is None:
            event.about = f"{kind} {_name_in_trail(event)}"
        elif event.subject_type in _OPERATORS_SUBJECTS and not for_operator:
            event.about = f"{kind} {called}"
        else:
            page = _SUBJECTS[event.subject_type][2]
            event.about = format_html("{} {}", kind, display.link(page, event.subject_id, called))


def _name_in_trail(event: AuditEvent) -> str:
    """What the event itself calls a thing that is gone, or the beginning of its id."""
    facts = event.after or event.before or {}
    called = facts.get("name") or facts.get("target")
    return called if isinstance(called, str) else display.short_id(event.subject_id)


def changes_of(event: AuditEvent, *, longest: int = _MAX_VALUE) -> list[Change]:
    """What differs between before and after; of a creation all that was given."""
    before, after = event.before or {}, event.after or {}
    return [
        Change(member.replace("_", " "), _as_text(before.get(member), longest), _as_text(after.get(member), longest))
        for member in dict.fromkeys([*before, *after])
        if before.get(member) != after.get(member) and member != "endpoint_id"
    ]


def _as_text(value: Any, longest: int) -> str:
    if value is None or value == "":
        return "\N{EN DASH}"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= longest else f"{text[:longest]}…"
