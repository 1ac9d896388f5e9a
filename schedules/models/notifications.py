"""Whom tenants want told of what, and the messages on their way."""

from __future__ import annotations

import uuid

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from schedules.models.choices import MAX_TARGET_LENGTH, NotificationEvent, NotificationKind
from schedules.models.registry import Tenant


class NotificationChannel(models.Model):
    """Where a tenant wants to be told of what, and by which means."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, db_index=False, related_name="notification_channels")
    kind = models.CharField(max_length=8, choices=NotificationKind.choices)
    target = models.CharField(max_length=MAX_TARGET_LENGTH, help_text="An e-mail address, or a webhook's URL.")
    secret = models.CharField(max_length=128, blank=True, editable=False, help_text="What a webhook is signed with.")
    events = models.JSONField(default=list)
    is_active = models.BooleanField(default=True)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        verbose_name = "notification channel"
        ordering = ("tenant", "created_at")
        indexes = [models.Index(fields=("tenant", "created_at"), name="channels_of_a_tenant")]

    def __str__(self) -> str:
        return f"{self.get_kind_display()} {self.target}"


class Notification(models.Model):
    """One message on its way to one channel. The id is what the receiver tells repeats by."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    tenant = models.ForeignKey(
        Tenant, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False, related_name="notifications"
    )
    channel = models.ForeignKey(
        NotificationChannel,
        on_delete=models.DO_NOTHING,
        db_constraint=False,
        db_index=False,
        related_name="notifications",
    )
    event = models.CharField(max_length=16, choices=NotificationEvent.choices)
    schedule_id = models.UUIDField()
    body = models.JSONField()
    created_at = models.DateTimeField(db_default=Now())
    attempts = models.PositiveSmallIntegerField(db_default=0)
    next_attempt_at = models.DateTimeField(null=True, db_default=Now(), help_text="Null once it is over.")
    delivered_at = models.DateTimeField(null=True)
    last_error = models.CharField(max_length=256, blank=True, db_default="")

    class Meta:
        ordering = ("-created_at",)
        indexes = [
            models.Index(fields=("tenant", "-created_at"), name="notifications_of_a_tenant"),
            # Not led by the tenant: whoever delivers asks what is due on the whole platform.
            models.Index(
                fields=("next_attempt_at",),
                condition=Q(next_attempt_at__isnull=False),
                name="notifications_to_deliver",
            ),
            models.Index(
                fields=("created_at",), condition=Q(next_attempt_at__isnull=True), name="notifications_to_forget"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.event} of {self.schedule_id}"
