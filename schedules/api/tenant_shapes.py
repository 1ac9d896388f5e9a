"""The shapes of what a tenant keeps beside its schedules; see `shapes`."""

from __future__ import annotations

from rest_framework import serializers

from schedules.api import shapes
from schedules.api.fields import ObjectField
from schedules.models import NotificationEvent, NotificationKind, Role


class Tenant(shapes.Shape):
    """A tenant and the settings that it keeps itself."""

    id = serializers.UUIDField()
    name = shapes.words()
    timezone = shapes.words("What a schedule's zone is where none is given.")
    keep_succeeded_days = serializers.IntegerField()
    keep_other_days = serializers.IntegerField()

    example = {
        "id": shapes.TENANT,
        "name": "Acme",
        "timezone": "Europe/Berlin",
        "keep_succeeded_days": 30,
        "keep_other_days": 90,
    }


class Stop(shapes.Shape):
    """What an operator has stopped, and why: no run begins until it is released."""

    since = shapes.moment()
    reason = shapes.words()

    example = {"since": "2026-11-21T09:00:00Z", "reason": "it floods a partner"}


class Install(shapes.Shape):
    """An extension that the tenant has installed."""

    id = serializers.UUIDField()
    registry_id = serializers.UUIDField()
    publisher = shapes.words()
    name = shapes.words("With the publisher in front of it, and a dot between them, its slug.")
    version = shapes.words("The version that runs.")
    is_enabled = serializers.BooleanField()
    stopped = Stop(allow_null=True, help_text="Null where no operator has stopped it.")
    granted_caps = serializers.ListField(child=serializers.CharField())
    created_at = shapes.moment()

    example = {
        "id": shapes.INSTALL,
        "registry_id": shapes.ENDPOINT,
        "publisher": "acme",
        "name": "reports",
        "version": "1.4.0",
        "is_enabled": True,
        "stopped": None,
        "granted_caps": ["cap:scheduler.manage"],
        "created_at": "2026-03-01T09:00:00Z",
    }


class AuditEvent(shapes.Shape):
    """Who changed what, through which door."""

    at = shapes.moment()
    source = shapes.words(  # type: ignore[assignment]
        "The door: `admin`, `admin_api`, `host_api`, `registry_api`, `command` or `system`."
    )
    actor = shapes.words("A user's name, an API key's prefix, or a service.")
    action = shapes.words("What was done, e.g. `schedule.updated`.")
    subject_type = shapes.words()
    subject_id = serializers.UUIDField()
    before = ObjectField(allow_null=True)
    after = ObjectField(allow_null=True)

    example = {
        "at": "2026-03-01T09:00:00Z",
        "source": "admin_api",
        "actor": "API key 4f1c9a2b",
        "action": "schedule.updated",
        "subject_type": "schedule",
        "subject_id": shapes.SCHEDULE,
        "before": {"cron": "30 2 * * *"},
        "after": {"cron": "45 2 * * *"},
    }


class Notification(shapes.Shape):
    """A message on its way to a channel."""

    id = serializers.UUIDField(help_text="What the receiver tells repeats by.")
    channel_id = serializers.UUIDField()
    event = serializers.ChoiceField(choices=NotificationEvent.choices)
    schedule_id = serializers.UUIDField()
    created_at = shapes.moment()
    attempts = serializers.IntegerField()
    next_attempt_at = shapes.moment("Null once it is over.", allow_null=True)
    delivered_at = shapes.moment(allow_null=True)
    last_error = shapes.words(allow_null=True)

    example = {
        "id": "2b1e7c55-6a3b-4a8f-9d53-0d6a4e1f7c77",
        "channel_id": "b7e3c1aa-55a4-4a55-8a0b-6f1e8c1d4f55",
        "event": "failure",
        "schedule_id": shapes.SCHEDULE,
        "created_at": "2026-03-28T01:30:01Z",
        "attempts": 1,
        "next_attempt_at": None,
        "delivered_at": "2026-03-28T01:30:02Z",
        "last_error": None,
    }


class NotificationChannel(shapes.Shape):
    """Whom a tenant wants told of what."""

    id = serializers.UUIDField()
    kind = serializers.ChoiceField(choices=NotificationKind.choices)
    target = shapes.words("An e-mail address, or a URL.")
    events = serializers.ListField(child=serializers.ChoiceField(choices=NotificationEvent.choices))
    is_active = serializers.BooleanField()
    created_at = shapes.moment()

    example = {
        "id": "b7e3c1aa-55a4-4a55-8a0b-6f1e8c1d4f55",
        "kind": "webhook",
        "target": "https://alerts.example.com/scheduler",
        "events": ["failure", "recovery"],
        "is_active": True,
        "created_at": "2026-03-01T09:00:00Z",
    }


class NewNotificationChannel(NotificationChannel):
    """A channel as it was made, with what is shown this once."""

    secret = shapes.words("What a webhook's messages are signed with.", allow_null=True)

    example = NotificationChannel.example | {"secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}


class ApiKey(shapes.Shape):
    """A key of the tenant's tools."""

    id = serializers.UUIDField()
    name = shapes.words()
    role = serializers.ChoiceField(choices=Role.choices)
    prefix = shapes.words("How the key begins; the rest is known to its owner alone.")
    created_at = shapes.moment()
    expires_at = shapes.moment(allow_null=True)
    last_used_at = shapes.moment(allow_null=True)
    revoked_at = shapes.moment(allow_null=True)

    example = {
        "id": "77a0b0ce-32a5-4c9c-a0b0-0d7c0b8a4e66",
        "name": "deployments",
        "role": "administrator",
        "prefix": "4f1c9a2b",
        "created_at": "2026-03-01T09:00:00Z",
        "expires_at": None,
        "last_used_at": "2026-03-28T08:00:00Z",
        "revoked_at": None,
    }


class NewApiKey(ApiKey):
    """A key as it was made, with its text, which is shown this once."""

    key = shapes.words()

    example = ApiKey.example | {"key": "esk_3f2504e04f8941d39a0c0305e82c3301_4f1c9a2b-and-more"}
