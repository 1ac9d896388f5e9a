"""Whom a tenant wants told of what: channels, and the messages that are written for them.

A message is written in the transaction of what it tells of, and delivered later by `schedules.delivery`, so it is
neither lost nor ever in a run's way.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID, uuid4

from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import transaction
from django.db.models.functions import Now

from schedules import audit, egress
from schedules.errors import Conflict, InvalidFields, NotFound
from schedules.models import Notification, NotificationChannel, NotificationEvent, NotificationKind, Schedule, Tenant

MAX_CHANNELS: Final = 20
# 192 bits, within the 24 to 64 bytes that Standard Webhooks asks for (https://www.standardwebhooks.com).
_SECRET_BYTES: Final = 32


def create_channel(
    *,
    tenant_id: UUID,
    kind: str,
    target: str,
    events: Sequence[str],
    actor: audit.Actor,
    channel_id: UUID | None = None,
) -> NotificationChannel:
    """Add a channel; a webhook's gets a new signing secret, which is its ``secret``.

    Raises InvalidFields, NotFound for an unknown tenant. A repeat adds another one, unless the caller names the id:
    then it raises Conflict.
    """
    wrong = _problems(kind=kind, target=target, events=events)
    with transaction.atomic():
        if Tenant.objects.select_for_update(no_key=True).filter(id=tenant_id, deleted_at=None).first() is None:
            raise NotFound("Tenant not found")
        if channel_id is not None and NotificationChannel.objects.filter(id=channel_id).exists():
            raise Conflict("This channel was made already")
        if NotificationChannel.objects.filter(tenant_id=tenant_id).count() >= MAX_CHANNELS:
            wrong.setdefault("target", f"a tenant may have at most {MAX_CHANNELS} channels")
        if wrong:
            raise InvalidFields.from_fields(wrong)
        channel = NotificationChannel.objects.create(
            id=channel_id or uuid4(),
            tenant_id=tenant_id,
            kind=kind,
            target=target,
            events=sorted(set(events)),
            secret=_new_secret() if kind == NotificationKind.WEBHOOK else "",
        )
        audit.record(actor, "notification_channel.created", channel, after=_describe(channel))
    return channel


def update_channel(
    *,
    tenant_id: UUID,
    channel_id: UUID,
    actor: audit.Actor,
    target: str | None = None,
    events: Sequence[str] | None = None,
    is_active: bool | None = None,
) -> NotificationChannel:
    """Change a channel's target, events or whether it is used; None leaves a member alone. A repeat changes nothing.

    Raises InvalidFields, NotFound.
    """
    with transaction.atomic():
        channel = _lock(tenant_id=tenant_id, channel_id=channel_id)
        before = _describe(channel)
        channel.target = channel.target if target is None else target
        channel.events = channel.events if events is None else sorted(set(events))
        channel.is_active = channel.is_active if is_active is None else is_active
        if wrong := _problems(kind=channel.kind, target=channel.target, events=channel.events):
            raise InvalidFields.from_fields(wrong)
        after = _describe(channel)
        if after != before:
            channel.save(update_fields=["target", "events", "is_active"])
            audit.record(actor, "notification_channel.updated", channel, before=before, after=after)
    return channel


def delete_channel(*, tenant_id: UUID, channel_id: UUID, actor: audit.Actor) -> None:
    """Remove a channel and what still waits for it. Raises NotFound, also on a repeat."""
    with transaction.atomic():
        channel = _lock(tenant_id=tenant_id, channel_id=channel_id)
        Notification.objects.filter(tenant_id=tenant_id, channel=channel).delete()
        audit.record(actor, "notification_channel.deleted", channel, before=_describe(channel))
        channel.delete()


def announce(*, event: NotificationEvent, schedule: Schedule, facts: Mapping[str, Any]) -> None:
    """Write the message for each of the tenant's channels that wants it. Call it in the transaction of the change.

    ``facts`` is what there is to tell beside the schedule; it must be JSON and hold nothing secret.
    """
    channels = NotificationChannel.objects.filter(
        tenant_id=schedule.tenant_id, is_active=True, events__contains=[str(event)]
    )
    body = {
        "schedule_id": str(schedule.id),
        "install_id": str(schedule.install_id),
        "tenant_id": str(schedule.tenant_id),
        "schedule": str(schedule),
        "endpoint": f"{schedule.endpoint_method} {schedule.endpoint_path}",
        **facts,
    }
    Notification.objects.bulk_create(
        Notification(
            tenant_id=schedule.tenant_id, channel=channel, event=event, schedule_id=schedule.id, body=body,
            created_at=Now(), next_attempt_at=Now(),
        )
        for channel in channels
    )  # fmt: skip


def _lock(*, tenant_id: UUID, channel_id: UUID) -> NotificationChannel:
    channel = NotificationChannel.objects.select_for_update().filter(tenant_id=tenant_id, id=channel_id).first()
    if channel is None:
        raise NotFound("Notification channel not found")
    return channel


def _problems(*, kind: str, target: str, events: Sequence[str]) -> dict[str, str]:
    wrong: dict[str, str] = {}
    if kind not in NotificationKind.values:
        wrong["kind"] = f"choose one of {', '.join(NotificationKind.values)}"
    if kind == NotificationKind.WEBHOOK and (problem := egress.problem_with_url(target)):
        wrong["target"] = problem
    if kind == NotificationKind.EMAIL and not _is_email(target):
        wrong["target"] = "write an e-mail address such as name@example.com"
    if not events or not set(events) <= set(NotificationEvent.values):
        wrong["events"] = f"choose one or more of {', '.join(NotificationEvent.values)}"
    return wrong


def _is_email(text: str) -> bool:
    try:
        validate_email(text)
    except ValidationError:
        return False
    return True


def _new_secret() -> str:
    return "whsec_" + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def _describe(channel: NotificationChannel) -> dict[str, Any]:
    return {
        "kind": channel.kind,
        "target": channel.target,
        "events": channel.events,
        "is_active": channel.is_active,
    }
